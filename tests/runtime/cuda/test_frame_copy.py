"""Frames on their way between host and device."""

from __future__ import annotations

import numpy as np
import pytest
from host_driver import HostDriver
from numpy.typing import NDArray

from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.frame_copy import copy_frame, download_frame, empty_frame, host_shape, upload_frame
from gapcam.cuda.frame_input import checked_input
from gapcam.frame import FrameFormat

LAYOUTS = [
    FrameLayout("bgr", 5, 7), FrameLayout("bgr", 4, 16), FrameLayout("bgr", 1, 1), FrameLayout("bgra", 3, 5),
    FrameLayout("bgra", 2, 4), FrameLayout("nv12", 6, 10), FrameLayout("nv12", 4, 16), FrameLayout("nv12", 2, 2),
]  # fmt: skip


def noise(layout: FrameLayout) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, host_shape(layout), np.uint8)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_frame_comes_back_from_the_device_as_it_went(host: HostDriver, layout: FrameLayout) -> None:
    frame, stream = noise(layout), host.stream()
    there = empty_frame(layout, host.allocate)
    upload_frame(frame, there, host, stream)
    back = np.zeros_like(frame)
    download_frame(there, back, host, stream)
    np.testing.assert_array_equal(back, frame)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_copy_on_the_device_may_have_another_pitch_and_planes_elsewhere(
    host: HostDriver, layout: FrameLayout
) -> None:
    frame, stream = noise(layout), host.stream()
    there = empty_frame(layout, host.allocate)
    upload_frame(frame, there, host, stream)
    planes, memories = [], []
    for rows, (_, pitch) in zip((layout.height, layout.height // 2), there.planes, strict=False):
        memories.append(host.allocate(rows * (pitch + 5)))
        planes.append((memories[-1].pointer, pitch + 5))
    apart = DeviceFrame(layout, tuple(planes), memories)
    copy_frame(there, apart, host, stream)
    again = empty_frame(layout, host.allocate)
    copy_frame(apart, again, host, stream)
    back = np.zeros_like(frame)
    download_frame(again, back, host, stream)
    np.testing.assert_array_equal(back, frame)


@pytest.mark.parametrize(
    "view",
    [
        lambda frame: frame[2:9, 3:11],
        lambda frame: frame[::-1],
        lambda frame: frame[:, ::-1],
        lambda frame: frame[..., ::-1],
        lambda frame: frame[::2, ::3],
        lambda frame: np.broadcast_to(frame[:1], frame.shape),
        lambda frame: np.asfortranarray(frame),
    ],
    ids=["part", "upside down", "mirrored", "other colours", "each second", "one row again and again", "Fortran order"],
)
def test_views_of_whatever_strides_are_uploaded_as_what_they_show(host: HostDriver, view: object) -> None:
    frame = view(np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8))  # type: ignore[operator]
    layout, stream = FrameLayout("bgr", *frame.shape[:2]), host.stream()
    there = empty_frame(layout, host.allocate)
    upload_frame(frame, there, host, stream)
    back = np.zeros(frame.shape, np.uint8)
    download_frame(there, back, host, stream)
    np.testing.assert_array_equal(back, frame)


@pytest.mark.parametrize("frame_format", ["bgr", "bgra", "nv12"])
def test_an_input_from_the_host_and_one_from_the_device_give_the_same_frame(
    host: HostDriver, frame_format: FrameFormat
) -> None:
    frame, stream = noise(FrameLayout(frame_format, 6, 8)), host.stream()
    from_host = checked_input(frame, frame_format)
    assert from_host.layout == FrameLayout(frame_format, 6, 8)
    there, again = (empty_frame(from_host.layout, host.allocate) for _ in range(2))
    from_host.copy_to(there, host, stream)
    checked_input(there, "bgr").copy_to(again, host, stream)  # a device frame knows its format
    back = np.zeros_like(frame)
    download_frame(again, back, host, stream)
    np.testing.assert_array_equal(back, frame)
