"""What NVIDIA's driver keeps for each thread: the current context, and how far others' captures concern it.

Asked of the driver's library itself: PyCUDA has no names for it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import lru_cache

from gapcam.cuda.presence import driver_library


class CaptureMode(IntEnum):
    """CUDA's CUstreamCaptureMode of a thread: which captures keep it from calls such as cuMemAlloc and cuMemFree.

    Such a call is refused, and spoils the capture.
    """

    GLOBAL = 0
    """Its own, and those that any thread began in this mode: as threads begin, and ONNX Runtime and PyTorch capture."""
    THREAD_LOCAL = 1
    """Its own."""
    RELAXED = 2
    """None."""


@contextmanager
def capture_mode(mode: CaptureMode) -> Iterator[None]:
    """The mode of this thread for a `with` block, and then again what it was. The driver is initialised."""
    library, number = _library(), ctypes.c_int(mode)
    exchanged = library.cuThreadExchangeStreamCaptureMode(ctypes.byref(number)) == 0
    try:
        yield
    finally:
        if exchanged:
            library.cuThreadExchangeStreamCaptureMode(ctypes.byref(number))


def is_primary_current(device: int) -> bool:
    """Whether this thread's context is the device's primary one, which PyTorch and ONNX Runtime share.

    Args:
        device: its number. The driver is initialised.
    """
    library, handle, current = _library(), ctypes.c_int(), ctypes.c_void_p()
    if library.cuDeviceGet(ctypes.byref(handle), device) or library.cuCtxGetCurrent(ctypes.byref(current)):
        return False
    flags, is_made = ctypes.c_uint(), ctypes.c_int()
    if library.cuDevicePrimaryCtxGetState(handle, ctypes.byref(flags), ctypes.byref(is_made)) or not is_made.value:
        return False
    primary = ctypes.c_void_p()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(primary), handle):
        return False
    library.cuDevicePrimaryCtxRelease_v2(handle)
    return current.value == primary.value


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    return driver_library()
