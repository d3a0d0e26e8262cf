"""V4L2 cameras, as far as that goes without one: what is asked for, and what is said where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.v4l2 import V4l2Camera, devices, driver_time, wishes
from gapcam.errors import DataError

MJPG = cv2.VideoWriter.fourcc(*"MJPG")


def camera(device: str) -> V4l2Camera:
    return V4l2Camera(device, name="door", options=SourceOptions())


def test_a_camera_is_asked_for_size_rate_and_a_short_queue() -> None:
    assert wishes(SourceOptions(size=(640, 480), fps=15)) == [
        (cv2.CAP_PROP_FRAME_WIDTH, 640),
        (cv2.CAP_PROP_FRAME_HEIGHT, 480),
        (cv2.CAP_PROP_FPS, 15),
        (cv2.CAP_PROP_BUFFERSIZE, 2),
    ]
    assert wishes(SourceOptions()) == [(cv2.CAP_PROP_BUFFERSIZE, 2)]


@pytest.mark.parametrize(
    ("size", "fps", "jpeg"),
    [((640, 480), 30, False), ((640, 480), 60, True), ((1280, 720), 30, True), ((1280, 720), 10, False)],
)
def test_jpegs_are_asked_for_first_where_raw_pixels_do_not_fit_through_usb_2(
    size: tuple[int, int], fps: float, jpeg: bool
) -> None:
    first = wishes(SourceOptions(size=size, fps=fps))[0]
    assert (first == (cv2.CAP_PROP_FOURCC, MJPG)) == jpeg


@pytest.mark.parametrize(("stamp", "taken_at"), [(99.95, 99.95), (100.0, 100.0), (0.0, 100.0), (1.7e9, 100.0)])
def test_the_drivers_time_stamp_is_used_where_it_is_of_the_same_clock(stamp: float, taken_at: float) -> None:
    assert driver_time(stamp, 100.0) == taken_at


def test_a_device_that_is_not_there_may_come() -> None:
    with pytest.raises(SourceLostError, match="there is no device /dev/video987; cameras here: ") as raised:
        camera("/dev/video987").open()
    assert ", ".join(devices()) in str(raised.value)


def test_what_is_no_device_is_said(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    with pytest.raises(DataError, match="is no device; expected one such as /dev/video0; cameras here: "):
        camera(str(tmp_path / "video0")).open()


def test_a_device_that_is_no_camera_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="/dev/null is no video device; cameras here: "):
        camera("/dev/null").open()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every device")
def test_a_device_that_may_not_be_read_names_the_group() -> None:
    with pytest.raises(DataError, match=r"no permission to read /dev/kmsg; .*usermod -aG video"):
        camera("/dev/kmsg").open()


def test_reading_what_is_not_open_says_so() -> None:
    with pytest.raises(SourceLostError, match="is not open"):
        camera("/dev/video987").read()
