"""What the GPU's figures were measured on: its clocks and limits as NVML says, where it does.

NVML (libnvidia-ml) comes with the desktop driver and with JetPack 7, and `nvidia-ml-py` calls it; where either is
absent the fields are None.
"""

from __future__ import annotations

import re

import msgspec

from gapcam.cuda.driver import Driver
from gapcam.environment import Environment, environment, installed_versions
from gapcam_bench.telemetry.nvml import nvml_gpus

DISTRIBUTIONS = (
    "onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt", "tensorrt-cu13", "tensorrt-cu12",
    "tensorrt-rtx-cu13-libs", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "pycuda",
)  # fmt: skip
"""Beside those of every environment."""

_FROM_NVML = ("driver", "clocks_mhz", "most_clocks_mhz", "power_limit_w", "temperature_c")


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
    """What NVML says of the device of that number, as CUDA numbers them; nothing where it is absent."""
    gpus = nvml_gpus()
    if device >= len(gpus):
        return {}
    found = gpus[device]
    return {name: getattr(found, name) for name in _FROM_NVML if getattr(found, name) is not None}
