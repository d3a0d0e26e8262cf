"""The pictures that all subjects are given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import gapcam
from gapcam_bench.subjects.pictures import decode, fit, pictures, pictures_sha256
from gapcam_export.photographs import PHOTOGRAPHS, photograph


def test_they_are_the_installed_photographs_first_as_they_are_then_mirrored_then_again() -> None:
    found = pictures(None, (60, 80), 9)
    names = [picture.name for picture in found]
    assert names == [*PHOTOGRAPHS, *(f"{name}, mirrored" for name in PHOTOGRAPHS), PHOTOGRAPHS[0]]
    for name, one, mirrored in zip(PHOTOGRAPHS, found[:4], found[4:8], strict=True):
        assert one.frame.shape == (60, 80, 3)
        expected = fit(photograph(name), (60, 80))
        assert np.abs(one.frame.astype(int) - expected).mean() < 8, "a JPEG of quality 90"
        assert np.abs(mirrored.frame[:, ::-1].astype(int) - expected).mean() < 8
    assert found[8] is found[0]


def test_a_frame_is_what_its_jpeg_decodes_to() -> None:
    for picture in pictures(None, (50, 70), 5):
        np.testing.assert_array_equal(picture.frame, decode(picture.jpeg))
        assert picture.jpeg[:2] == b"\xff\xd8"


@pytest.mark.parametrize("frame", [(40, 40), (30, 90), (90, 30), (200, 100)])
def test_a_photograph_is_cut_and_not_distorted(frame: tuple[int, int]) -> None:
    """Of a picture whose red grows by one grey level a column and whose green does so by row, the slopes are equal."""
    rows, columns = np.mgrid[0:100, 0:160]
    photo = np.dstack([np.zeros_like(rows), rows, columns]).astype(np.uint8)
    fitted = fit(photo, frame).astype(np.float64)
    assert fitted.shape == (*frame, 3)
    inner = fitted[5:-5, 5:-5]
    down = np.polyfit(np.arange(inner.shape[0]), inner[:, :, 1].mean(axis=1), 1)[0]
    right = np.polyfit(np.arange(inner.shape[1]), inner[:, :, 2].mean(axis=0), 1)[0]
    assert down == pytest.approx(right, rel=0.05), "whole pixels are cut"
    assert inner[:, :, 1].mean() == pytest.approx(49.5, abs=1.5), "the middle of the photograph"
    assert inner[:, :, 2].mean() == pytest.approx(79.5, abs=1.5)


def test_they_are_those_of_a_folder(tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30, 3), 80 * index, np.uint8))
    found = pictures(str(tmp_path), (20, 30), 7)
    assert [picture.name for picture in found][:4] == ["0.png", "1.png", "2.png", "0.png, mirrored"]
    assert [int(picture.frame.mean().round()) for picture in found[:3]] == [0, 80, 160]
    assert found[6] is found[0]


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(gapcam.DataError, match="--images"):
        pictures(str(tmp_path), (20, 30), 1)


def test_their_hash_tells_other_pictures_and_no_other_processes() -> None:
    one = pictures(None, (20, 30), 8)
    assert pictures_sha256(one) == pictures_sha256(pictures(None, (20, 30), 8))
    others = [pictures(None, (20, 31), 8), pictures(None, (20, 30), 9), one[::-1], [*one[:7], one[0]]]
    assert len({pictures_sha256(each) for each in (one, *others)}) == 5
