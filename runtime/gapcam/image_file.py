"""Reading an image file as a frame, or saying why it cannot be read."""

# ruff: noqa: PTH110, PTH112, PTH113 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np

from gapcam.errors import DataError
from gapcam.frame import Frame

SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image when a folder is read."""


def read_image(path: str | os.PathLike[str]) -> Frame:
    """Read an image file.

    Grey becomes three equal channels, an alpha channel is dropped, 16 bits become the upper 8, the first picture of
    an animation is taken, and the camera's orientation (EXIF) is applied.

    Returns:
        H x W x 3 uint8 BGR.

    Damage in the middle of a file is noticed where the decoder notices it: in PNG, which has checksums, nearly always;
    in JPEG, WebP, JPEG 2000 and TIFF it may decode to a wrong picture without a word.

    Raises:
        DataError: the file is missing, unreadable, no regular file, no image, cut off, damaged so that it cannot be
            decoded, or has more pixels than OpenCV allows (2^30, or 2^20 along a side; its environment variables
            OPENCV_IO_MAX_IMAGE_* change that).

    Example:
        >>> frame = read_image("cat.jpg")  # doctest: +SKIP
    """
    path = Path(path)
    data = _read_bytes(path)
    if not data:
        raise DataError(f"{path} is empty; expected an image file")
    for name, signature, is_whole in (("JPEG", b"\xff\xd8\xff", jpeg_is_whole), ("PNG", _PNG, png_is_whole)):
        if data.startswith(signature) and not is_whole(data):
            raise DataError(f"{path} is a {name} file that is cut off ({len(data)} bytes); copy it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error) or "validateInputImageSize" in str(error):
            raise DataError(
                f"{path} has more pixels than OpenCV reads (2^30, and 2^20 along a side); scale it down, or raise the "
                "environment variables OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH, _HEIGHT"
            ) from error
        raise DataError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from error
    except MemoryError as error:
        raise DataError(f"{path} has more pixels than memory holds; scale it down") from error
    if image is None:
        raise DataError(f"{path} is not an image that OpenCV {cv2.__version__} can read, or it is cut off or damaged")
    return np.asarray(image, np.uint8)


def _read_bytes(path: Path) -> bytes:
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; expected an image file")
    if os.path.exists(path) and not os.path.isfile(path):  # to read a pipe or a device may never end
        raise DataError(f"{path} is a pipe or a device; expected an image file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; check the name") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


_PNG = b"\x89PNG\r\n\x1a\n"

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In a scan's data 0xFF is followed by 0 (a stuffed byte) or D0..D7 (a restart); anything else is a marker."""


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG stream reaches its end-of-image marker. OpenCV may fill what is missing with grey, unasked.

    The markers are followed from the front, since a thumbnail in the EXIF data has an end of its own, and a phone may
    append a film.
    """
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        kind, at = data[found.end() - 1], found.end()
        if kind == 0xD9:
            return True
        if kind != 0x01:  # every other marker but TEM brings its segment's length
            at += int.from_bytes(data[at : at + 2], "big")
    return False


def png_is_whole(data: bytes) -> bool:
    """Whether a PNG stream's chunks reach the last one, IEND; else libpng would write to stderr itself."""
    at = len(_PNG)
    while at + 12 <= len(data):  # a chunk: length, kind, that many bytes, checksum
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
        if kind == b"IEND":
            return at <= len(data)
    return False
