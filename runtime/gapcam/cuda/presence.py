"""Whether there is a GPU, asked of NVIDIA's driver library alone: it costs nothing where there is none."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

_NO_DEVICE = 100
_MEANINGS = {
    35: "its kernel driver is older than its library; restart the machine, or install NVIDIA's driver again",
    _NO_DEVICE: "it sees no device; check CUDA_VISIBLE_DEVICES, and in a container: docker run --gpus all",
    803: "its kernel driver is of another version than its library; restart the machine",
    804: "the CUDA libraries for older drivers (forward compatibility) do not run on this GPU; use the driver's own",
    999: "its kernel module does not answer; restart the machine",
}
"""What cuInit's errors mostly mean."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What NVIDIA's driver says.

    Attributes:
        devices: how many CUDA devices there are.
        cuda: the newest CUDA that the driver runs, such as (13, 0); None where there is no driver.
        problem: why there is no device, and what to do; "" where there is one.
    """

    devices: int
    cuda: tuple[int, int] | None
    problem: str


def driver_library() -> ctypes.CDLL:
    """NVIDIA's driver library, cuInit not yet called.

    Raises:
        OSError: it is not there, or cannot be loaded.
    """
    return ctypes.CDLL(_LIBRARY)


@lru_cache(maxsize=1)
def presence() -> Presence:
    """Asked once a process; the answer does not change in its life."""
    try:
        library = driver_library()
    except OSError:
        return Presence(
            0, None, f"there is no NVIDIA driver ({_LIBRARY}); install it, and in a container: docker run --gpus all"
        )
    number = ctypes.c_int(0)
    cuda = None
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        cuda = (number.value // 1000, number.value % 1000 // 10)
    code = library.cuInit(0)
    if code == 0:
        code = library.cuDeviceGetCount(ctypes.byref(number))
    if code != 0:
        return Presence(0, cuda, f"NVIDIA's driver gives error {code}: {_MEANINGS.get(code, 'see nvidia-smi')}")
    if number.value == 0:
        return Presence(0, cuda, f"NVIDIA's driver: {_MEANINGS[_NO_DEVICE]}")
    return Presence(number.value, cuda, "")
