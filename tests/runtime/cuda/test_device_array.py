"""Arrays and frames on a device, from and to other libraries, by the CUDA Array Interface and OpenCV's GpuMat.

The dictionaries are written out as the specification has them, and as the libraries give them.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gapcam.cuda.device_array import LEGACY_DEFAULT_STREAM, DeviceArray, as_device_array
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout, as_device_frame
from gapcam.errors import FrameError, UsageError


class Exported:
    """Somebody else's array: what it says of itself."""

    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = {"version": 3, "typestr": "|u1", "strides": None, "stream": None} | interface


def like(array: np.ndarray, **interface: Any) -> Exported:
    """What a library would say of an array that lies like this one."""
    address = array.__array_interface__["data"][0]
    strides = None if array.flags.c_contiguous else array.strides
    described = {"shape": array.shape, "typestr": array.dtype.str, "data": (address, False), "strides": strides}
    return Exported(**described | interface)


class Mat:
    """A cv2.cuda.GpuMat with pixels; OpenCV's own wheels make none without CUDA."""

    def __init__(
        self, width: int, height: int, channels: int, step: int, pointer: int = 0x7000, depth: int = cv2.CV_8U
    ) -> None:
        self._size, self._channels, self._depth = (width, height), channels, depth
        self.step, self._pointer = step, pointer

    def cudaPtr(self) -> int:  # noqa: N802 - OpenCV's name
        return self._pointer

    def size(self) -> tuple[int, int]:
        return self._size

    def channels(self) -> int:
        return self._channels

    def depth(self) -> int:
        return self._depth


def test_an_array_says_what_the_specification_asks_for() -> None:
    array = DeviceArray(0x1000, (2, 3), np.dtype(np.float32), None, None, 5)
    assert array.__cuda_array_interface__ == {
        "version": 3,
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (0x1000, False),
        "strides": None,
        "stream": 5,
    }
    assert array.nbytes == 24
    pitched = DeviceArray(0x1000, (2, 3), np.dtype(np.uint8), (512, 1))
    assert pitched.__cuda_array_interface__["strides"] == (512, 1)
    assert pitched.__cuda_array_interface__["stream"] is None
    assert DeviceArray(0x1000, (0, 3), np.dtype(np.uint8)).__cuda_array_interface__["data"] == (0, False)


@given(
    st.lists(st.integers(1, 5), min_size=0, max_size=4),
    st.sampled_from(["|u1", "<f4", "<f2", "<i8", "|b1"]),
    st.sampled_from([None, 1, 2, 0x55AA]),
    st.booleans(),
)
def test_an_array_survives_the_interface_both_ways(
    shape: list[int], typestr: str, stream: int | None, transposed: bool
) -> None:
    base = np.zeros(shape, typestr)
    base = base.T if transposed else base
    array = as_device_array(like(base, stream=stream))
    again = as_device_array(Exported(**array.__cuda_array_interface__))
    for one in (array, again):
        assert one.pointer == base.__array_interface__["data"][0]
        assert (one.shape, one.dtype, one.stream, one.nbytes) == (base.shape, base.dtype, stream, base.nbytes)
        assert one.strides == (None if base.flags.c_contiguous else base.strides)


def test_an_array_keeps_its_owner_alive() -> None:
    owner = Exported(shape=(4,), data=(0x1000, True))
    alive = weakref.ref(owner)
    array = as_device_array(owner)
    del owner
    gc.collect()
    assert alive() is not None
    assert as_device_array(array) is array
    del array
    gc.collect()
    assert alive() is None


def test_an_interface_that_does_not_speak_of_streams_is_the_default_streams() -> None:
    """PyTorch's is of version 2, and PyTorch works on the legacy default stream."""
    interface = {"shape": (4,), "typestr": "|u1", "data": (0x1000, False), "strides": None, "version": 2}
    owner = Exported()
    owner.__cuda_array_interface__ = interface
    assert as_device_array(owner).stream == LEGACY_DEFAULT_STREAM
    assert as_device_array(Exported(shape=(4,), data=(0x1000, False))).stream is None


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        ({"shape": (4,)}, "does not keep its specification"),
        ({"data": (0x1000, False)}, "does not keep its specification"),
        ({"shape": 4, "data": (0x1000, False)}, "does not keep its specification"),
        ({"shape": (4,), "data": 0x1000}, "does not keep its specification"),
        ({"shape": (4,), "data": (0x1000, False), "typestr": "nonsense"}, "does not keep its specification"),
        ({"shape": (4,), "data": (0x1000, False), "typestr": "<c8"}, "expected booleans, integers or floats"),
        ({"shape": (4,), "data": (0x1000, False), "typestr": "|V12"}, "expected booleans, integers or floats"),
        ({"shape": (4,), "data": (0x1000, False), "mask": object()}, "with a mask; expected none"),
        ({"shape": (4, 2), "data": (0x1000, False), "strides": (2,)}, "as many of one as of the other"),
        ({"shape": (4,), "data": (0, False)}, "Was it freed"),
        ({"shape": (4,), "data": (0x1000, False), "stream": 0}, "stream 0"),
    ],
)
def test_an_interface_that_is_wrong_is_refused_in_a_line(interface: dict[str, Any], message: str) -> None:
    with pytest.raises(FrameError, match=message) as caught:
        as_device_array(Exported(**interface))
    assert "\n" not in str(caught.value)


def test_what_is_no_device_array_is_said() -> None:
    with pytest.raises(FrameError, match=r"got ndarray; .*on the host"):
        as_device_array(np.zeros(4))
    with pytest.raises(FrameError, match=r"tensor\.cuda\(\)"):
        as_device_array(torch.zeros(4))
    with pytest.raises(FrameError, match=r"got int; .*A pointer alone"):
        as_device_array(0x1000)


class Refusing:
    """As PyTorch does, of a tensor on the GPU that requires a gradient."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad. use var.detach()\nmore")


def test_a_library_that_refuses_is_quoted() -> None:
    with pytest.raises(FrameError, match=r"use var\.detach\(\)$"):
        as_device_array(Refusing())


@given(
    st.sampled_from(["bgr", "bgra", "nv12"]),
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_frames_bytes_are_found_where_they_are(
    frame_format: str, half_height: int, half_width: int, extra: int, as_mat: bool
) -> None:
    """The planes' addresses and pitches, against a NumPy array that lies in memory like the frame."""
    height, width = 2 * half_height, 2 * half_width
    channels = {"bgr": 3, "bgra": 4, "nv12": 1}[frame_format]
    rows = height * 3 // 2 if frame_format == "nv12" else height
    wide = np.random.default_rng(0).integers(0, 256, (rows, width * channels + extra), np.uint8)
    array = wide[:, : width * channels]
    shaped = (
        array
        if channels == 1
        else np.lib.stride_tricks.as_strided(array, (rows, width, channels), (wide.strides[0], channels, 1))
    )
    if as_mat:
        address = wide.__array_interface__["data"][0]
        given_frame: Any = Mat(width, rows, channels, wide.strides[0], address)
    else:
        given_frame = like(shaped, stream=9)
    frame = as_device_frame(given_frame, frame_format)  # type: ignore[arg-type]
    assert frame.layout == FrameLayout(frame_format, height, width)  # type: ignore[arg-type]
    assert frame.stream == (LEGACY_DEFAULT_STREAM if as_mat else 9)
    assert frame.owner is given_frame
    plane_rows = [height] if channels > 1 else [height, height // 2]
    base, first = wide.__array_interface__["data"][0], 0
    assert len(frame.planes) == len(plane_rows)
    for (pointer, pitch), count in zip(frame.planes, plane_rows, strict=True):
        start = pointer - base
        found = np.lib.stride_tricks.as_strided(wide.ravel()[start:], (count, width * channels), (pitch, 1))
        assert np.array_equal(found, array[first : first + count])
        first += count
    assert as_device_frame(frame, "bgr") is frame


@pytest.mark.parametrize(
    ("array", "frame_format", "message"),
    [
        (np.zeros((3, 8, 6), np.uint8), "bgr", "channels first"),
        (np.zeros((2, 8, 6, 3), np.uint8), "bgr", "batch"),
        (np.zeros((8, 6), np.uint8), "bgr", "expected H x W x 3 uint8"),
        (np.zeros((8, 6, 4), np.uint8), "bgr", "'bgr', 'bgra' or 'nv12'"),
        (np.zeros((8, 6, 3), np.uint8), "bgra", "expected H x W x 4 uint8"),
        (np.zeros((8, 6, 3), np.float32), "bgr", "convert them to uint8"),
        (np.zeros((0, 6, 3), np.uint8), "bgr", "no pixels"),
        (np.zeros((8, 6, 3), np.uint8)[::-1], "bgr", "make it contiguous"),
        (np.zeros((8, 6, 3), np.uint8)[..., ::-1], "bgr", "make it contiguous"),
        (np.zeros((8, 12, 3), np.uint8)[:, ::2], "bgr", "make it contiguous"),
        (np.broadcast_to(np.zeros((1, 6, 3), np.uint8), (8, 6, 3)), "bgr", "make it contiguous"),
        (np.zeros((3, 8, 6), np.uint8).transpose(1, 2, 0), "bgr", "make it contiguous"),
        (np.zeros((8, 6), np.uint8), "nv12", "even sides"),
        (np.zeros((9, 7), np.uint8), "nv12", "even sides"),
        (np.zeros((9, 6), np.uint8), "nv12", None),
    ],
)
def test_arrays_of_another_layout_are_refused_in_a_line(
    array: np.ndarray, frame_format: str, message: str | None
) -> None:
    if message is None:
        assert as_device_frame(like(array), frame_format).layout.height == 6  # type: ignore[arg-type]
        return
    with pytest.raises(FrameError, match=message) as caught:
        as_device_frame(like(array), frame_format)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_frame_of_one_row_or_column_has_a_pitch() -> None:
    """NumPy gives axes of one element any stride."""
    one = np.lib.stride_tricks.as_strided(np.zeros(100, np.uint8), (1, 5, 3), (7, 3, 1))
    assert as_device_frame(like(one, strides=(7, 3, 1)), "bgr").planes[0][1] == 15
    column = np.zeros((5, 1, 3), np.uint8)
    assert as_device_frame(like(column, strides=(64, 99, 1)), "bgr").planes[0][1] == 64


def test_a_gpumat_without_pixels_or_of_another_type_is_refused() -> None:
    with pytest.raises(FrameError, match="without pixels"):
        as_device_frame(cv2.cuda.GpuMat(), "bgr")  # a real one, of a build without CUDA
    with pytest.raises(FrameError, match="convertTo"):
        as_device_frame(Mat(4, 4, 3, 48, depth=cv2.CV_32F), "bgr")
    with pytest.raises(FrameError, match="expected H x W x 3 uint8"):
        as_device_frame(Mat(4, 4, 1, 4), "bgr")


@pytest.mark.parametrize(
    ("layout", "planes", "message"),
    [
        (FrameLayout("bgr", 0, 4), ((0x1000, 12),), "at least one pixel"),
        (FrameLayout("nv12", 3, 4), ((0x1000, 4), (0x2000, 4)), "even sides"),
        (FrameLayout("nv12", 2, 4), ((0x1000, 4),), "expected 2 of them"),
        (FrameLayout("bgr", 2, 4), ((0x1000, 12), (0x2000, 12)), "expected 1 of them"),
        (FrameLayout("bgr", 2, 4), ((0x1000, 11),), "pitches of at least 12 bytes"),
        (FrameLayout("bgr", 2, 4), ((0x1000, 1 << 31),), "at most 2147483647"),
        (FrameLayout("bgra", 2, 4), ((0, 16),), "expected addresses"),
        (FrameLayout("bgr", 2.0, 4), ((0x1000, 12),), "expected integers"),
        (FrameLayout("bgr", 2, "4"), ((0x1000, 12),), "expected integers"),
        (FrameLayout("bgr", 2, 4), ((0x1000, 12.0),), "expected integers"),
        (FrameLayout("bgr", 2, 4), (0x1000, 12), "expected integers"),
        (FrameLayout("bgr", 2, 4), ((0x1000,),), "expected integers"),
    ],
)
def test_a_device_frame_that_cannot_be_is_refused(
    layout: FrameLayout, planes: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        as_device_frame(DeviceFrame(layout, planes), "bgr")


def test_a_device_frame_of_no_format_is_refused() -> None:
    with pytest.raises(UsageError, match="frame format is 'rgb'; give one of bgr, bgra, nv12"):
        as_device_frame(DeviceFrame(FrameLayout("rgb", 2, 4), ((0x1000, 12),)), "bgr")  # type: ignore[arg-type]


def test_a_device_frame_of_numpys_integers_becomes_one_of_plain_ones() -> None:
    owner = object()
    frame = DeviceFrame(FrameLayout("bgr", np.int32(2), np.uint8(4)), ((np.uint64(1 << 40), np.int16(12)),), owner, 7)
    found = as_device_frame(frame, "bgr")
    assert (found.layout, found.planes) == (FrameLayout("bgr", 2, 4), ((1 << 40, 12),))
    assert {type(number) for number in (found.layout.height, found.layout.width, *found.planes[0])} == {int}
    assert (found.owner, found.stream) == (owner, 7)


def test_two_planes_may_lie_apart() -> None:
    frame = DeviceFrame(FrameLayout("nv12", 4, 6), ((0x1000, 64), (0x9000, 32)))
    assert as_device_frame(frame, "nv12") is frame
