"""Frames between the host, somebody else's device memory, and memory of gapcam's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, Memory, Stream
from gapcam.frame import Frame

_ALIGNMENT = 128
"""Of rows in gapcam's own memory, in bytes: what a warp reads at once."""


def host_shape(layout: FrameLayout) -> tuple[int, ...]:
    """Of the array that holds such a frame on the host: H x W x 3, H x W x 4, or for "nv12" H * 3/2 x W."""
    if layout.format == "nv12":
        return (layout.height * 3 // 2, layout.width)
    return (layout.height, layout.width, 3 if layout.format == "bgr" else 4)


def plane_shapes(layout: FrameLayout) -> tuple[tuple[int, int], ...]:
    """(rows, bytes of a row) of each plane."""
    if layout.format == "nv12":
        return ((layout.height, layout.width), (layout.height // 2, layout.width))
    return ((layout.height, layout.width * (3 if layout.format == "bgr" else 4)),)


def empty_frame(layout: FrameLayout, allocate: Callable[[int], Memory]) -> DeviceFrame:
    """An uninitialised frame in one piece of memory, which it owns; a second plane follows the first at its pitch."""
    shapes = plane_shapes(layout)
    pitch = -(-shapes[0][1] // _ALIGNMENT) * _ALIGNMENT
    memory = allocate(pitch * sum(rows for rows, _ in shapes))
    planes, row = [], 0
    for rows, _ in shapes:
        planes.append((memory.pointer + row * pitch, pitch))
        row += rows
    return DeviceFrame(layout, tuple(planes), memory)


def upload_frame(source: Frame, target: DeviceFrame, driver: Driver, stream: Stream) -> None:
    """Queue a copy to the device of an array of `host_shape`. Its rows may lie any stride apart."""
    for rows, (pointer, pitch) in zip(_planes(source, target.layout), target.planes, strict=True):
        if rows.flags.c_contiguous and pitch == rows.shape[1]:
            driver.upload(rows, pointer, stream)
        else:
            driver.upload_rows(rows, pointer, pitch, stream)


def download_frame(source: DeviceFrame, out: Frame, driver: Driver, stream: Stream) -> None:
    """Queue a copy from the device into a C-contiguous array of `host_shape`."""
    for rows, (pointer, pitch) in zip(_planes(out, source.layout), source.planes, strict=True):
        if pitch == rows.shape[1]:
            driver.download(pointer, rows, stream)
        else:
            driver.download_rows(pointer, pitch, rows, stream)


def copy_frame(source: DeviceFrame, target: DeviceFrame, driver: Driver, stream: Stream) -> None:
    """Queue a copy on the device between two frames of one layout."""
    for shape, (start, start_pitch), (end, end_pitch) in zip(
        plane_shapes(source.layout), source.planes, target.planes, strict=True
    ):
        if start_pitch == end_pitch == shape[1]:
            driver.copy(start, end, shape[0] * shape[1], stream)
        else:
            driver.copy_rows(start, start_pitch, end, end_pitch, shape, stream)


def _planes(frame: Frame, layout: FrameLayout) -> list[NDArray[Any]]:
    """[rows, bytes of a row] of each plane: views, or a copy of an array whose rows are not contiguous."""
    shapes = plane_shapes(layout)
    flat_rows = sum(rows for rows, _ in shapes)
    inner = frame.strides[1:] == np.empty(frame.shape[1:], np.uint8).strides
    if not inner or frame.strides[0] < shapes[0][1]:
        frame = np.ascontiguousarray(frame)
    # Rows keep their stride: only axes that are contiguous are joined.
    flat = np.lib.stride_tricks.as_strided(frame, (flat_rows, shapes[0][1]), (frame.strides[0], 1))
    starts = np.cumsum([0, *(rows for rows, _ in shapes)])
    return [flat[start : start + rows] for start, (rows, _) in zip(starts, shapes, strict=False)]
