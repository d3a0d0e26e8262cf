"""What cameras that OpenCV reads have in common, on a film: there is no camera here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.opencv_camera import OpenCvCamera, checked_capture

GREYS = (40, 120, 200)


class FilmCamera(OpenCvCamera):
    def __init__(self, path: Path) -> None:
        super().__init__(name="film", uri=str(path))

    def _opened(self) -> cv2.VideoCapture:
        return checked_capture(cv2.VideoCapture(self.uri), f"{self.uri} does not open")


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[FilmCamera]:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for grey in GREYS:
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    camera = FilmCamera(path)
    yield camera
    camera.close()


def greys(camera: FilmCamera, count: int) -> list[int]:
    frames = [camera.read() for _ in range(count)]
    assert all(frame is not None and frame.image.shape == (48, 64, 3) for frame in frames)
    return [round(float(frame.image.mean()) / 40) * 40 for frame in frames if frame is not None]


def test_frames_come_in_their_order_and_the_last_one_is_followed_by_a_loss(camera: FilmCamera) -> None:
    camera.open()
    assert greys(camera, 3) == list(GREYS)
    with pytest.raises(SourceLostError, match=r"film\.avi gave no frame"):
        camera.read()


def test_it_is_opened_anew_whether_it_was_closed_or_not(camera: FilmCamera) -> None:
    for _ in range(2):
        camera.open()
        assert greys(camera, 2) == list(GREYS[:2])
    camera.close()
    camera.close()
    with pytest.raises(SourceLostError, match="is not open"):
        camera.read()
    camera.open()
    assert greys(camera, 1) == [GREYS[0]]


def test_one_that_was_interrupted_gives_no_frame(camera: FilmCamera) -> None:
    camera.open()
    camera.interrupt()
    with pytest.raises(SourceLostError, match="was interrupted"):
        camera.read()


def test_what_does_not_open_is_lost(tmp_path: Path) -> None:
    with pytest.raises(SourceLostError, match=r"nothing\.avi does not open"):
        FilmCamera(tmp_path / "nothing.avi").open()
