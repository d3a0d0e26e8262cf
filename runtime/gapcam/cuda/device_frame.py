"""A camera's frame in device memory, and whatever else may stand for one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from operator import index
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gapcam.cuda.device_array import LEGACY_DEFAULT_STREAM, DeviceArray, as_device_array
from gapcam.errors import FrameError
from gapcam.frame import FrameFormat as FrameFormat
from gapcam.frame import check_format

_SHAPES = {"bgr": "H x W x 3", "bgra": "H x W x 4", "nv12": "H * 3/2 x W"}
_CHANNELS = {"bgr": 3, "bgra": 4, "nv12": 1}
_UINT8 = 0
"""OpenCV's CV_8U."""
_MOST = (1 << 31) - 1
"""Bytes between two rows, that the kernels count."""


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
    """A frame in device memory. It converts to others' arrays without a copy: `__cuda_array_interface__`.

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

    @property
    def array(self) -> DeviceArray:
        """The same memory: H x W x 3 ("bgr"), H x W x 4 ("bgra") or H * 3/2 x W ("nv12") uint8, rows a pitch apart.

        Raises:
            FrameError: the planes of "nv12" do not follow each other at one pitch.
        """
        (pointer, pitch), layout = self.planes[0], self.layout
        if layout.format != "nv12":
            channels = _CHANNELS[layout.format]
            sides, strides = (layout.height, layout.width, channels), (pitch, channels, 1)
            return DeviceArray(pointer, sides, np.dtype(np.uint8), strides, self, self.stream)
        if self.planes[1] != (pointer + layout.height * pitch, pitch):
            raise FrameError(
                f"got a DeviceFrame of {layout}, planes {self.planes}; expected the second right behind the first, at "
                "its pitch. Use its planes one by one"
            )
        shape = (layout.height * 3 // 2, layout.width)
        return DeviceArray(pointer, shape, np.dtype(np.uint8), (pitch, 1), self, self.stream)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Of `array`: for `torch.as_tensor(frame)`, `cupy.asarray(frame)`, and so on."""
        return self.array.__cuda_array_interface__


@runtime_checkable
class _GpuMat(Protocol):
    """What is used of OpenCV's cv2.cuda.GpuMat."""

    step: int

    def cudaPtr(self) -> int: ...  # noqa: N802 - OpenCV's name

    def size(self) -> tuple[int, int]: ...

    def channels(self) -> int: ...

    def depth(self) -> int: ...


def as_device_frame(frame: object, frame_format: FrameFormat) -> DeviceFrame:
    """A frame of somebody else's, without a copy. It keeps the other alive; `as_device_array` has what is waited for.

    Args:
        frame: anything with `__cuda_array_interface__`, or OpenCV's GpuMat: H x W x 3 ("bgr"), H x W x 4 ("bgra") or
            H * 3/2 x W ("nv12") uint8, whose rows may be any pitch apart; or a `DeviceFrame`, the only one whose NV12
            planes may lie apart.
        frame_format: what it is, unless it is a `DeviceFrame`, which knows.

    Raises:
        FrameError: it has another type, dtype or layout; the message says what mends it.
        UsageError: there is no such format.
    """
    check_format(frame.layout.format if isinstance(frame, DeviceFrame) else frame_format)
    if isinstance(frame, DeviceFrame):
        return _checked_planes(frame)
    expected = f"expected {_SHAPES[frame_format]} uint8, for the format {frame_format!r}"
    array = _array_of_mat(frame, expected) if isinstance(frame, _GpuMat) else as_device_array(frame)
    got = f"got {type(frame).__name__} of shape {array.shape} and dtype {array.dtype}; {expected}"
    shape = array.shape[:2] if frame_format == "nv12" and array.shape[2:] == (1,) else array.shape
    if 0 in shape:
        raise FrameError(f"{got}. This one has no pixels")
    channels = () if frame_format == "nv12" else (_CHANNELS[frame_format],)
    if len(shape) != 2 + len(channels) or shape[2:] != channels:
        raise FrameError(f"{got}. {_cure_for_shape(shape)}")
    if array.dtype != np.uint8:
        raise FrameError(f"{got}. Bring the values to 0..255 and convert them to uint8")
    row_nbytes = shape[1] * _CHANNELS[frame_format]
    pitch = row_nbytes
    if array.strides is not None:
        pitch = array.strides[0] if shape[0] > 1 else max(array.strides[0], row_nbytes)
        inner = tuple(step for side, step in zip(shape[1:], array.strides[1:], strict=False) if side > 1)
        packed = tuple(step for side, step in zip(shape[1:], (*channels, 1), strict=True) if side > 1)
        if inner != packed or not row_nbytes <= pitch <= _MOST:
            raise FrameError(
                f"{got}. Its strides are {array.strides}, and the bytes of a row must follow each other, rows in their "
                "order: make it contiguous (tensor.contiguous(), cupy.ascontiguousarray(array))"
            )
    height, width = shape[0], shape[1]
    if frame_format == "nv12":
        if height % 3 or height * 2 // 3 % 2 or width % 2:
            raise FrameError(f"{got}. NV12 has even sides, and half as many rows of colours as of luma below it")
        height = height * 2 // 3
    planes = [(array.pointer, pitch)]
    if frame_format == "nv12":
        planes.append((array.pointer + height * pitch, pitch))
    return DeviceFrame(FrameLayout(frame_format, height, width), tuple(planes), frame, array.stream)


def _array_of_mat(mat: _GpuMat, expected: str) -> DeviceArray:
    """OpenCV works on the default stream unless told otherwise; who told it so waits for that stream first."""
    (width, height), channels = mat.size(), mat.channels()
    if mat.depth() != _UINT8:
        raise FrameError(f"got GpuMat of {width} x {height}, depth {mat.depth()}; {expected}. mat.convertTo(cv2.CV_8U)")
    if mat.cudaPtr() == 0 or 0 in (width, height):
        raise FrameError(f"got GpuMat of {width} x {height} without pixels; {expected}. Was it uploaded?")
    return DeviceArray(
        mat.cudaPtr(),
        (height, width) if channels == 1 else (height, width, channels),
        np.dtype(np.uint8),
        (mat.step, 1) if channels == 1 else (mat.step, channels, 1),
        mat,
        LEGACY_DEFAULT_STREAM,
    )


def _checked_planes(frame: DeviceFrame) -> DeviceFrame:
    """The frame, if it can be one; in plain integers."""
    layout = frame.layout
    got = f"got a DeviceFrame of {layout}, planes {frame.planes}"
    try:
        layout = FrameLayout(layout.format, index(layout.height), index(layout.width))
        planes = tuple((index(pointer), index(pitch)) for pointer, pitch in frame.planes)
    except (TypeError, ValueError):
        raise FrameError(f"{got}; expected integers: its sides, and of each plane (address, pitch)") from None
    wanted = 2 if layout.format == "nv12" else 1
    if layout.height < 1 or layout.width < 1:
        raise FrameError(f"{got}; expected at least one pixel")
    if layout.format == "nv12" and (layout.height % 2 or layout.width % 2):
        raise FrameError(f"{got}; expected even sides, which NV12 has")
    if len(planes) != wanted:
        raise FrameError(f"{got}; expected {wanted} of them, each with its address and pitch")
    row_nbytes = layout.width * _CHANNELS[layout.format]
    if any(pointer <= 0 or not row_nbytes <= pitch <= _MOST for pointer, pitch in planes):
        raise FrameError(f"{got}; expected addresses, and pitches of at least {row_nbytes} bytes, at most {_MOST}")
    given = (frame.layout.height, frame.layout.width, *chain.from_iterable(frame.planes))
    return frame if all(type(number) is int for number in given) else replace(frame, layout=layout, planes=planes)


def _cure_for_shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4):
        return "This looks like channels first: tensor.permute(1, 2, 0).contiguous()"
    if len(shape) == 4:
        return "This looks like a batch: hand in frame after frame"
    return "For another one give its format, 'bgr', 'bgra' or 'nv12'"
