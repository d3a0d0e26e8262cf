"""The GPU that an engine is built on, asked of NVIDIA's driver library alone."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        name: such as "Orin" or "NVIDIA GeForce RTX 4090".
        architecture: such as "sm_87".
        cuda_driver: the newest CUDA that its driver runs, such as (13, 0).
    """

    name: str
    architecture: str
    cuda_driver: tuple[int, int]


def first_gpu() -> Gpu | None:
    """The device that TensorRT builds on, the first that CUDA_VISIBLE_DEVICES leaves; None where there is none."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    device, value, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    text = ctypes.create_string_buffer(256)
    if library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), 0):
        return None
    if library.cuDeviceGetName(text, len(text), device) or library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        if library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        numbers.append(value.value)
    return Gpu(
        text.value.decode(errors="replace"),
        f"sm_{numbers[0]}{numbers[1]}",
        (version.value // 1000, version.value % 1000 // 10),
    )
