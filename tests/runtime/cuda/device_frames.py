"""Frames of every format on a device, made from NumPy arrays: with rows apart, and addresses that are not aligned."""

from __future__ import annotations

import cv2
import numpy as np

from gapcam.cuda.device_frame import DeviceFrame, FrameFormat, FrameLayout
from gapcam.cuda.driver import Driver, Stream


def random_frame(rng: np.random.Generator, layout: FrameLayout) -> np.ndarray:
    """Noise: [H,W,3] or [H,W,4] uint8, or as OpenCV has NV12, [3H/2,W]."""
    height, width = layout.height, layout.width
    shapes = {"bgr": (height, width, 3), "bgra": (height, width, 4), "nv12": (height * 3 // 2, width)}
    return rng.integers(0, 256, shapes[layout.format], np.uint8)


def layout_of(frame: np.ndarray, frame_format: FrameFormat) -> FrameLayout:
    height, width = frame.shape[:2]
    return FrameLayout(frame_format, height * 2 // 3 if frame_format == "nv12" else height, width)


def as_bgr(frame: np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """As OpenCV converts it."""
    codes = {"bgra": cv2.COLOR_BGRA2BGR, "nv12": cv2.COLOR_YUV2BGR_NV12}
    return frame if frame_format == "bgr" else np.asarray(cv2.cvtColor(frame, codes[frame_format]), np.uint8)


def upload_frame(
    driver: Driver,
    stream: Stream,
    frame: np.ndarray,
    frame_format: FrameFormat,
    *,
    extra_pitch: int = 0,
    misaligned: int = 0,
) -> DeviceFrame:
    """A frame on the device, with so many bytes between rows, so many bytes past an aligned address."""
    layout = layout_of(frame, frame_format)
    rows = frame.reshape(len(frame), -1)
    planes = [rows[: layout.height], rows[layout.height :]] if frame_format == "nv12" else [rows]
    pitch = rows.shape[1] + extra_pitch
    memories = [driver.allocate(misaligned + (len(plane) - 1) * pitch + plane.shape[1]) for plane in planes]
    for memory, plane in zip(memories, planes, strict=True):
        driver.upload_rows(plane, memory.pointer + misaligned, pitch, stream)
    addresses = tuple((memory.pointer + misaligned, pitch) for memory in memories)
    return DeviceFrame(layout, addresses, owner=memories)
