"""Reading images of every kind, and saying why one cannot be read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

import gapcam
from gapcam.image_file import jpeg_is_whole

PHOTOGRAPH = np.ascontiguousarray(skimage.data.chelsea()[..., ::-1])


def saved(path: Path, image: np.ndarray, *options: int) -> Path:
    fits, data = cv2.imencode(path.suffix, image, list(options))
    assert fits
    path.write_bytes(data.tobytes())
    return path


def test_a_png_comes_back_as_it_was(tmp_path: Path) -> None:
    np.testing.assert_array_equal(gapcam.read_image(saved(tmp_path / "a.png", PHOTOGRAPH)), PHOTOGRAPH)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = PHOTOGRAPH[:, :, 0]
    np.testing.assert_array_equal(gapcam.read_image(saved(tmp_path / "a.png", grey)), np.dstack([grey] * 3))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.full(PHOTOGRAPH.shape[:2], 3, np.uint8)
    np.testing.assert_array_equal(
        gapcam.read_image(saved(tmp_path / "a.png", np.dstack([PHOTOGRAPH, alpha]))), PHOTOGRAPH
    )


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_of_16_bits_the_upper_8_are_kept(tmp_path: Path, suffix: str) -> None:
    deep = PHOTOGRAPH.astype(np.uint16) * 257
    np.testing.assert_array_equal(gapcam.read_image(saved(tmp_path / f"a{suffix}", deep)), PHOTOGRAPH)
    np.testing.assert_array_equal(
        gapcam.read_image(saved(tmp_path / f"b{suffix}", deep[:, :, 1])), np.dstack([PHOTOGRAPH[:, :, 1]] * 3)
    )


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", PHOTOGRAPH)
    upright = gapcam.read_image(path)
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    np.testing.assert_array_equal(gapcam.read_image(path), np.rot90(upright, -1))


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 7, np.uint8)
    np.testing.assert_array_equal(gapcam.read_image(saved(tmp_path / "a.png", image)), image)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.95, "last byte"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, suffix: str, part: float | str) -> None:
    path = saved(tmp_path / f"a{suffix}", PHOTOGRAPH)
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 if part == "last byte" else int(len(whole) * float(part))])
    with pytest.raises(gapcam.DataError, match=r"a\.\w+ is .*(cut off|damaged)"):
        gapcam.read_image(path)


def test_damage_that_a_checksum_covers_is_refused_and_damage_that_decodes_is_not_noticed(tmp_path: Path) -> None:
    """The limit that the documentation states."""
    for suffix in (".png", ".jpg"):
        path = saved(tmp_path / f"a{suffix}", PHOTOGRAPH)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    with pytest.raises(gapcam.DataError, match="damaged"):
        gapcam.read_image(tmp_path / "a.png")
    assert gapcam.read_image(tmp_path / "a.jpg").shape == PHOTOGRAPH.shape


def test_a_progressive_jpeg_cut_off_between_its_scans_is_refused(tmp_path: Path) -> None:
    """What is left decodes as a blurred picture, which nobody asked for."""
    path = saved(tmp_path / "a.jpg", PHOTOGRAPH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    whole = path.read_bytes()
    assert jpeg_is_whole(whole)
    path.write_bytes(whole[: whole.rindex(b"\xff\xda")])
    with pytest.raises(gapcam.DataError, match="cut off"):
        gapcam.read_image(path)


def test_nothing_but_our_error_reports_a_cut_png(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.png", PHOTOGRAPH)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(gapcam.DataError, match="PNG file that is cut off"):
        gapcam.read_image(path)
    assert capfd.readouterr().err == ""


def test_a_thumbnails_end_is_not_the_pictures_end(tmp_path: Path) -> None:
    jpeg = saved(tmp_path / "a.jpg", PHOTOGRAPH).read_bytes()
    thumbnail = saved(tmp_path / "b.jpg", PHOTOGRAPH[::8, ::8]).read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert jpeg_is_whole(jpeg[:2] + segment + jpeg[2:])
    assert not jpeg_is_whole(jpeg[:2] + segment + jpeg[2:-2])


def test_what_a_phone_appends_to_a_jpeg_does_no_harm(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", PHOTOGRAPH)
    expected = gapcam.read_image(path)
    path.write_bytes(path.read_bytes() + b"\xff\xd8\xff\xda a film" + bytes(1000))
    np.testing.assert_array_equal(gapcam.read_image(path), expected)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_more_pixels_than_opencv_reads_are_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(100_000, 100_000))
    with pytest.raises(gapcam.DataError, match=r"more pixels than OpenCV reads \(2\^30"):
        gapcam.read_image(path)


@pytest.mark.parametrize("content", [b"", b"no image at all", bytes(5000), b"\xff\xd8", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(gapcam.DataError, match=r"a\.png is"):
        gapcam.read_image(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(gapcam.DataError, match="there is no file"):
        gapcam.read_image(tmp_path / "none.png")
    with pytest.raises(gapcam.DataError, match="is a folder"):
        gapcam.read_image(tmp_path)
