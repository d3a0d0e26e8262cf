"""A USB or built-in camera by Linux's driver interface, V4L2, read through OpenCV."""

# ruff: noqa: PTH110 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import struct
from contextlib import suppress
from pathlib import Path

import cv2

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.opencv_camera import OpenCvCamera, checked_capture
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.turned import turned
from gapcam.errors import DataError
from gapcam.frame import Frame

_MJPG = float(cv2.VideoWriter.fourcc(*"MJPG"))
_RAW_BYTES_PER_S = 30_000_000
"""More than this of raw pixels (two bytes each) does not fit through USB 2: the camera is asked for JPEGs."""

_VIDIOC_QUERYCAP = 0x80685600
_HAS_DEVICE_CAPS = 0x80000000
_GIVES_FRAMES = 0x00000001 | 0x00001000  # by one plane, or by several


class V4l2Camera(OpenCvCamera):
    """`/dev/videoN`. What it is asked for, it may refuse: its driver then takes the nearest that it has.

    A device that is not there may come: it is lost, not wrong.

    Args:
        device: its path.
        name: see `Source`.
        options: see `SourceOptions`.
    """

    def __init__(self, device: str, *, name: str, options: SourceOptions) -> None:
        super().__init__(name=name, uri=device)
        self._options = options

    def _opened(self) -> cv2.VideoCapture:
        _check_device(self.uri)
        # The only way to tell OpenCV, in whole seconds, once a process, before the first camera; else it waits for 10.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(self._options.timeout_s)))
        capture = checked_capture(
            cv2.VideoCapture(self.uri, cv2.CAP_V4L2),
            f"{self.uri} does not open; another program uses it, or it refuses what it is asked for",
        )
        for prop, value in wishes(self._options):
            capture.set(prop, value)  # False where it has none: it stays as it is
        return capture

    def _why_no_frame(self) -> str:
        """OpenCV does not say it: unplugged, or nothing within the time-out."""
        return "gave no frame" if os.path.exists(self.uri) else "was unplugged"

    def _frame(self, capture: cv2.VideoCapture, image: Frame, now: float) -> SourceFrame:
        taken_at = driver_time(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, now)
        return SourceFrame(turned(image, self._options.rotate), taken_at)


def wishes(options: SourceOptions) -> list[tuple[int, float]]:
    """What a camera is asked for once it is open, in this order: pairs of OpenCV's property and its value."""
    width, height = options.size or (0, 0)
    pairs: list[tuple[int, float]] = []
    if width * height * 2 * (options.fps or 30) > _RAW_BYTES_PER_S:
        pairs.append((cv2.CAP_PROP_FOURCC, _MJPG))  # before the size: drivers list sizes by format
    if options.size is not None:
        pairs += [(cv2.CAP_PROP_FRAME_WIDTH, width), (cv2.CAP_PROP_FRAME_HEIGHT, height)]
    if options.fps is not None:
        pairs.append((cv2.CAP_PROP_FPS, options.fps))
    # One is filled while the other is read. With more, a frame could wait there while nobody looks.
    pairs.append((cv2.CAP_PROP_BUFFERSIZE, 2))
    return pairs


def driver_time(stamp_s: float, now: float) -> float:
    """`time.monotonic()` seconds at which the driver got a frame.

    Args:
        stamp_s: the driver's time stamp in seconds; nearly all use the same clock as `time.monotonic()`.
        now: `time.monotonic()` when it was read; the answer where the stamp is of another clock.
    """
    return stamp_s if now - 10 < stamp_s <= now else now


def devices() -> list[str]:
    """The devices here that give frames, by number, each with its name: "/dev/video0 (HD Webcam)"."""
    found = []
    for path in sorted((str(path) for path in Path("/dev").glob("video[0-9]*")), key=_number):
        with suppress(OSError):
            gives_frames, card = query(path)
            if gives_frames:
                found.append(f"{path} ({card})")
    return found


def query(device: str) -> tuple[bool, str]:
    """Whether a video device gives frames, and its name, as its driver says.

    Source: the Linux kernel's media API, VIDIOC_QUERYCAP.

    Raises:
        OSError: it cannot be opened, or is no video device (ENOTTY, EINVAL).
    """
    capability = bytearray(104)  # struct v4l2_capability
    file = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(file, _VIDIOC_QUERYCAP, capability)
    finally:
        os.close(file)
    of_driver, of_device = struct.unpack_from("II", capability, 84)
    capabilities = of_device if of_driver & _HAS_DEVICE_CAPS else of_driver
    return bool(capabilities & _GIVES_FRAMES), capability[16:48].split(b"\0")[0].decode(errors="replace")


def _number(device: str) -> int:
    found = re.search(r"(\d+)$", device)
    return int(found.group(1)) if found else -1


def _here() -> str:
    return f"cameras here: {', '.join(devices()) or 'none'}"


def _check_device(device: str) -> None:
    """Say why it cannot be opened, which OpenCV does not."""
    if not os.path.exists(device):
        raise SourceLostError(f"there is no device {device}; {_here()}")
    if not Path(device).is_char_device():
        raise DataError(f"{device} is no device; expected one such as /dev/video0; {_here()}")
    try:
        gives_frames, card = query(device)
    except PermissionError:
        raise DataError(
            f"no permission to read {device}; add the user to the group that owns it: sudo usermod -aG video $USER, "
            "then log in again"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise DataError(f"{device} is no video device; {_here()}") from None
        raise SourceLostError(f"{device} cannot be opened: {error.strerror}") from None
    if not gives_frames:  # many cameras have a second device, for metadata
        raise DataError(f"{device} ({card}) gives no frames; {_here()}")
