"""An array in device memory, and whatever else may stand for one.

Both ways by the CUDA Array Interface, version 3, which PyTorch, CuPy, Numba and PyCUDA's GPUArray have:
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gapcam.errors import FrameError

LEGACY_DEFAULT_STREAM = 1
"""CUDA's stream 0, by its number in the interface. It waits for all streams but the non-blocking ones."""

_EXPECTED = (
    "expected an array in device memory: one with __cuda_array_interface__, as PyTorch's CUDA tensors and CuPy's"
)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """An array in device memory. It converts to others' without a copy: `__cuda_array_interface__`.

    Attributes:
        pointer: the device address of the first element.
        shape: as NumPy's.
        dtype: NumPy's.
        strides: in bytes, or None for C order.
        owner: what must live as long as this does.
        stream: on which it is being written, for `Driver.wait_for`; None if there is nothing to wait for.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None = None
    owner: object = None
    stream: int | None = None

    @property
    def nbytes(self) -> int:
        """The size of its elements, without what lies between rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For `torch.as_tensor(array)`, `cupy.asarray(array)`, and so on: the same memory, which may be written to.

        Who takes it waits for `stream`, unless told not to, and keeps this object.
        """
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.nbytes else 0, False),
            "strides": self.strides,
            "stream": self.stream,
        }


def as_device_array(array: object) -> DeviceArray:
    """An array of somebody else's, without a copy. It keeps the other alive.

    Nothing waits here for the stream on which the array is being written: it is in `stream`, for `Driver.wait_for`. An
    interface that does not speak of streams (PyTorch's) gets the legacy default stream, on which such libraries work
    unless told otherwise; who wrote the array on a stream of his own synchronises it first.

    Args:
        array: a `DeviceArray`, or anything with `__cuda_array_interface__`.

    Raises:
        FrameError: it has none, or one that does not keep the specification, is masked, or has no plain dtype.
    """
    if isinstance(array, DeviceArray):
        return array
    kind = type(array).__name__
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
    except RuntimeError as error:  # PyTorch's, of a tensor that requires a gradient
        raise FrameError(f"got {kind}, which gives no device memory: {_first_line(error)}") from error
    if interface is None:
        raise FrameError(f"got {kind}; {_EXPECTED}. {_cure_for_type(array)}")
    if not isinstance(interface, Mapping):
        raise FrameError(f"got {kind} whose __cuda_array_interface__ is {type(interface).__name__}; expected a dict")
    got = f"got {kind} with a __cuda_array_interface__"
    try:
        shape = tuple(int(side) for side in interface["shape"])
        pointer = int(interface["data"][0])
        dtype = np.dtype(interface["typestr"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FrameError(
            f"{got} that does not keep its specification: {error!r}; expected 'shape', 'typestr' and 'data'"
        ) from error
    if interface.get("mask") is not None:
        raise FrameError(f"{got} with a mask; expected none. Fill what is masked")
    if dtype.kind not in "biuf":
        raise FrameError(f"{got} of dtype {interface['typestr']!r}; expected booleans, integers or floats")
    strides = interface.get("strides")
    if strides is not None:
        strides = tuple(int(stride) for stride in strides)
        if len(strides) != len(shape):
            raise FrameError(f"{got} of shape {shape} and strides {strides}; expected as many of one as of the other")
    if any(side < 0 for side in shape) or (pointer == 0 and 0 not in shape):
        raise FrameError(f"{got} of shape {shape} at address {pointer:#x}; expected memory. Was it freed?")
    stream = interface.get("stream", LEGACY_DEFAULT_STREAM)
    if stream == 0:
        raise FrameError(f"{got} on stream 0, which may be two streams; expected 1 or 2 for a default stream")
    return DeviceArray(pointer, shape, dtype, strides, array, None if stream is None else int(stream))


def _cure_for_type(array: object) -> str:
    if isinstance(array, np.ndarray):
        return "This is a NumPy array, on the host: frames may be such, other arrays are copied to the device first"
    if hasattr(array, "is_cuda"):
        return "This tensor is on the CPU: tensor.cuda()"
    return "A pointer alone says too little: gapcam.cuda.device_array.DeviceArray(pointer, shape, dtype, strides)"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
