"""What the GPU's figures were measured on: its clocks and limits as NVML says, where it does.

NVML (libnvidia-ml) comes with the desktop driver and with JetPack 7; where it is absent the fields are None. Source:
NVML API Reference.
"""

from __future__ import annotations

import ctypes
import re
import sys

import msgspec

from gapcam.cuda.driver import Driver
from gapcam.environment import Environment, environment, installed_versions

DISTRIBUTIONS = (
    "onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt", "tensorrt-cu13", "tensorrt-cu12",
    "tensorrt-rtx-cu13-libs", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "pycuda",
)  # fmt: skip
"""Beside those of every environment."""

_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2}
_NAME_BYTES = 96


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU and its software.

    Attributes:
        name: such as "NVIDIA H100 80GB HBM3".
        architecture: such as "sm_90".
        cuda: the newest CUDA that the driver runs, such as "13.0".
        driver: the driver's version; None where NVML does not say.
        clocks_mhz: now, by domain; None where NVML does not say.
        most_clocks_mhz: the highest.
        power_limit_w: that is enforced.
        temperature_c: of the chip.
    """

    name: str
    architecture: str
    cuda: str
    driver: str | None = None
    clocks_mhz: dict[str, int] | None = None
    most_clocks_mhz: dict[str, int] | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None


def gpu_environment(driver: Driver) -> tuple[Gpu, Environment]:
    """Of a driver's device, and of the machine. Ask it under load: idle clocks say little."""
    known = {
        "name": driver.device_name,
        "architecture": driver.architecture,
        "cuda": ".".join(map(str, driver.driver_version)),
    }
    gpu = msgspec.convert({**known, **_nvml(driver.device)}, Gpu)
    ground = environment()
    return gpu, msgspec.structs.replace(ground, versions={**ground.versions, **installed_versions(DISTRIBUTIONS)})


def file_name(gpu_name: str) -> str:
    """The name of a GPU's results: "NVIDIA H100 80GB HBM3" gives "nvidia-h100-80gb-hbm3.json"."""
    return (re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-") or "gpu") + ".json"


def _nvml(device: int) -> dict[str, object]:
    """What NVML says of a device. Its numbers count all devices, CUDA's those of CUDA_VISIBLE_DEVICES: close enough for
    machines whose GPUs are alike.
    """
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return {}
    except (OSError, AttributeError):
        return {}
    try:
        return _asked(nvml, device)
    except AttributeError:  # a stub, or older than what is asked
        return {}
    finally:
        nvml.nvmlShutdown()


def _asked(nvml: ctypes.CDLL, device: int) -> dict[str, object]:
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(_NAME_BYTES)
    number = ctypes.c_uint()
    found: dict[str, object] = {}
    if nvml.nvmlSystemGetDriverVersion(text, _NAME_BYTES) == 0:
        found["driver"] = text.value.decode("utf-8", "replace")
    if nvml.nvmlDeviceGetHandleByIndex_v2(device, ctypes.byref(handle)) != 0:
        return found
    for field, function in (("clocks_mhz", "nvmlDeviceGetClockInfo"), ("most_clocks_mhz", "nvmlDeviceGetMaxClockInfo")):
        clocks = {
            name: number.value
            for name, domain in _CLOCKS.items()
            if getattr(nvml, function)(handle, domain, ctypes.byref(number)) == 0
        }
        found[field] = clocks or None
    if nvml.nvmlDeviceGetEnforcedPowerLimit(handle, ctypes.byref(number)) == 0:
        found["power_limit_w"] = number.value / 1000
    if nvml.nvmlDeviceGetTemperature(handle, 0, ctypes.byref(number)) == 0:
        found["temperature_c"] = number.value
    return found
