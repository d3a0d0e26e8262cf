"""Which CUDA library drives the device, and why none does."""

from __future__ import annotations

import sys
from typing import Literal, TypeAlias, get_args

from gapcam.cuda.driver import Driver
from gapcam.cuda.presence import presence
from gapcam.cuda.thread_state import is_primary_current
from gapcam.errors import BackendError, MissingExtraError, UsageError

DriverName: TypeAlias = Literal["auto", "cuda-core", "pycuda"]


def open_driver(name: DriverName = "auto", device: int = 0) -> Driver:
    """A CUDA device.

    Args:
        name: "cuda-core" or "pycuda"; "auto" takes PyCUDA where the app has a context that PyCUDA made current on
            this thread, unless it is the device's primary one, in which cuda.core works, too; and else whichever is
            installed, cuda.core first.
        device: its number.

    Raises:
        BackendError: there is no driver of NVIDIA's, no GPU, or no such device.
        MissingExtraError: the library is not installed.
        UsageError: there is no library of this name, or no device of this number.
    """
    if name not in get_args(DriverName):
        raise UsageError(f"the CUDA driver is {name!r}; give one of {', '.join(get_args(DriverName))}")
    found = presence()
    if found.problem:
        raise BackendError(f"no CUDA device: {found.problem}")
    if not 0 <= device < found.devices:
        raise UsageError(f"device is {device}; there are {found.devices}, counted from 0")
    if name == "pycuda" or (name == "auto" and _is_pycuda_current() and not is_primary_current(device)):
        return _open_pycuda(device)
    try:
        return _open_cuda_core(device)
    except MissingExtraError:
        if name == "cuda-core":
            raise
        try:
            return _open_pycuda(device)
        except MissingExtraError:
            raise MissingExtraError("cuda-core", "cuda") from None


def _is_pycuda_current() -> bool:
    """Whether the app works with PyCUDA on this thread. It is not imported for this: who uses it has done so."""
    driver = sys.modules.get("pycuda.driver")
    return driver is not None and driver.Context.get_current() is not None


def _open_cuda_core(device: int) -> Driver:
    try:
        from gapcam.cuda.cuda_core_driver import CudaCoreDriver
    except ImportError as error:
        raise MissingExtraError("cuda-core", "cuda") from error
    return CudaCoreDriver(device)


def _open_pycuda(device: int) -> Driver:
    try:
        from gapcam.cuda.pycuda_driver import PyCudaDriver
    except ImportError as error:
        raise MissingExtraError("pycuda", "pycuda") from error
    return PyCudaDriver(device)
