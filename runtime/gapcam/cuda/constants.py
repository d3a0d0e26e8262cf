"""Tables that kernels read: computed on the host once, copied to the device once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver

_ALIGNMENT = 256


def device_constants(driver: Driver, *arrays: NDArray[Any]) -> list[DeviceArray]:
    """Copies of arrays in device memory that all of them own. They are there when this returns, for any stream.

    Raises:
        BackendError: there is not enough memory.
    """
    offsets = np.cumsum([0, *(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays)])
    packed = np.zeros(max(int(offsets[-1]), 1), np.uint8)
    for array, offset in zip(arrays, offsets[:-1], strict=True):
        packed[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    memory = driver.allocate(packed.nbytes)
    stream = driver.stream()
    driver.upload(packed, memory.pointer, stream)
    stream.synchronize()
    return [
        DeviceArray(memory.pointer + int(offset), array.shape, array.dtype, owner=memory)
        for array, offset in zip(arrays, offsets[:-1], strict=True)
    ]
