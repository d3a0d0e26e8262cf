"""Whatever a caller hands in as a frame: an array on the host, or something in device memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gapcam.cuda.device_frame import DeviceFrame, FrameLayout, as_device_frame
from gapcam.cuda.driver import Driver, Stream
from gapcam.cuda.frame_copy import copy_frame, upload_frame
from gapcam.errors import FrameError
from gapcam.frame import Frame, FrameFormat, check_format, check_frame_of, on_device


@dataclass(frozen=True, slots=True, eq=False)
class FrameInput:
    """A checked frame.

    Attributes:
        layout: its format and size.
        host: where it lies on the host, or None.
        device: where it lies on the device, or None.
    """

    layout: FrameLayout
    host: Frame | None
    device: DeviceFrame | None

    def copy_to(self, target: DeviceFrame, driver: Driver, stream: Stream) -> None:
        """Queue the copy into a frame of the same layout, behind what its owner's stream was given.

        From the host it goes directly, not through pinned memory: the CUDA driver stages it, in parts while the first
        are on their way, and the array may be changed at once.
        """
        if self.host is not None:
            upload_frame(self.host, target, driver, stream)
        if self.device is not None:
            if self.device.stream is not None:
                driver.wait_for(self.device.stream, stream)
            copy_frame(self.device, target, driver, stream)


def checked_input(frame: object, frame_format: FrameFormat, where: str = "") -> FrameInput:
    """What was handed in, if it is a frame of this format.

    Args:
        frame: a NumPy array, a DeviceFrame, a cv2.cuda.GpuMat, or anything with `__cuda_array_interface__`.
        frame_format: of arrays; a DeviceFrame knows its own.
        where: what the message begins with.

    Raises:
        FrameError: it is none; the message says what it seems to be.
        UsageError: there is no such format.
    """
    check_format(frame_format)
    if not isinstance(frame, DeviceFrame) and not on_device(frame):
        height, width = check_frame_of(frame, frame_format, where)
        assert isinstance(frame, np.ndarray)  # noqa: S101 - just checked
        return FrameInput(FrameLayout(frame_format, height, width), frame, None)
    try:
        found = as_device_frame(frame, frame_format)
    except FrameError as error:
        raise FrameError(f"{where}{error}") from error
    return FrameInput(found.layout, None, found)
