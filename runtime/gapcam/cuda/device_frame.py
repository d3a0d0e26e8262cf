"""A camera's frame in device memory."""

from __future__ import annotations

from dataclasses import dataclass

from gapcam.frame import FrameFormat as FrameFormat


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """What all frames of a camera have in common.

    Attributes:
        format: "bgr" and "bgra" are H x W x 3 and H x W x 4 uint8. "nv12" is a plane of H x W luma and one of
            H/2 x W/2 pairs (U, V), limited range of BT.601, as OpenCV converts it; both sides are even.
        height: in pixels.
        width: in pixels.
    """

    format: FrameFormat
    height: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class DeviceFrame:
    """A frame in device memory.

    Attributes:
        layout: its format and size.
        planes: (device address, pitch in bytes) of its one plane, or of the two of "nv12".
        owner: what must live as long as this does.
        stream: on which it is being written, for `Driver.wait_for`; None if there is nothing to wait for.
    """

    layout: FrameLayout
    planes: tuple[tuple[int, int], ...]
    owner: object = None
    stream: int | None = None
