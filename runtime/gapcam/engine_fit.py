"""What differs between what an engine was built for and the device that is to run it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from gapcam.engine_file import EngineHeader, EngineRuntime
from gapcam.tensorrt_module import TITLES, version_numbers


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What an engine must fit.

    Attributes:
        runtime: which library is to run it.
        runtime_version: its version, such as "10.13.3.9".
        platform: as `this_platform` says it.
        architecture: of the GPU, such as "sm_87"; "" where it is not known, which is then not compared.
        device: the GPU's name, such as "NVIDIA GeForce RTX 4090", or "Orin" of each Orin module; "" likewise.
        cuda_driver: the newest CUDA that the GPU's driver runs, such as (13, 0); None likewise.
    """

    runtime: EngineRuntime
    runtime_version: str
    platform: str
    architecture: str = ""
    device: str = ""
    cuda_driver: tuple[int, int] | None = None


def this_platform() -> str:
    """Operating system and processor, such as "linux-x86_64" or "linux-aarch64"."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def differences(header: EngineHeader, device: DeviceFacts) -> list[str]:
    """Why an engine does not run on a device, each as a part of a sentence; none where it fits.

    Sources: NVIDIA, TensorRT documentation, "Version Compatibility" and "Hardware Compatibility"; TensorRT-RTX
    documentation, "CPU-Only AOT" and "Engine Validity".
    """
    found = [
        _runtime(header, device),
        _platform(header, device),
        _architecture(header, device) or _model(header, device),
        _driver(header, device),
    ]
    return [difference for difference in found if difference]


def _runtime(header: EngineHeader, device: DeviceFacts) -> str:
    built, here = header.runtime_version, device.runtime_version
    if header.runtime != device.runtime:
        return f"it is an engine of {TITLES[header.runtime]}, and {TITLES[device.runtime]} was to run it"
    ours, theirs = version_numbers(here), version_numbers(built)
    length = min(len(ours), len(theirs))
    if ours[:length] == theirs[:length]:  # Jetson's packages leave the build number out
        return ""
    title = TITLES[header.runtime]
    if not header.options.version_compatible:
        return f"it was built with {title} {built}, and here is {here}"
    if ours[:1] == theirs[:1] and ours >= theirs:
        return ""
    return (
        f"it was built with {title} {built} for this and later versions {theirs[0] if theirs else ''}.x, and here is "
        f"{here}"
    )


def _platform(header: EngineHeader, device: DeviceFacts) -> str:
    if header.platform == device.platform:
        return ""
    if header.runtime == "tensorrt-rtx" and header.platform.endswith("x86_64") and device.platform.endswith("x86_64"):
        return ""  # its engines run on Linux and Windows alike
    return f"it was built for {header.platform}, and this is {device.platform}"


def _architecture(header: EngineHeader, device: DeviceFacts) -> str:
    if not device.architecture or any(covers(target, device.architecture) for target in header.targets):
        return ""
    targets = ", ".join(target.replace("+", " and later") for target in header.targets)
    on = f" (on {header.device})" if header.device else ""
    return f"it was built for {targets}{on}, and this GPU is {device.architecture}"


def _model(header: EngineHeader, device: DeviceFacts) -> str:
    """TensorRT tunes for the very GPU, its multiprocessors and memory, unless it is told to leave them open.

    It loads the engine on others of the same architecture with a warning, that it may be slow or fail. The modules of a
    Jetson share a name; of them, TensorRT's own warning is all there is.
    """
    if header.runtime != "tensorrt" or header.options.hardware_compatibility != "none" or header.options.targets:
        return ""
    built, here = _plain(header.device), _plain(device.device)
    if not built or not here or built == here:
        return ""
    return (
        f"it was built for {header.device}, and this GPU is {device.device}, of the same architecture; an engine for "
        "both is built with --hardware-compatible same-compute-capability"
    )


def _plain(name: str) -> str:
    """A GPU's name without what some drivers put before and behind it: "NVIDIA Orin (nvgpu)" is "orin"."""
    return re.sub(r"^nvidia |\s*\(nvgpu\)$", "", name.strip().lower())


def covers(target: str, architecture: str) -> bool:
    """Whether a GPU architecture such as "sm_87" is that of a target, or, for "sm_80+", that or a later one."""
    if target.endswith("+"):
        return _number(architecture) >= _number(target)
    return target == architecture


def _number(architecture: str) -> int:
    match = re.search(r"\d+", architecture)
    return int(match[0]) if match else 0


def _driver(header: EngineHeader, device: DeviceFacts) -> str:
    """Code for one major version of CUDA does not run under a driver for the one before."""
    if header.cuda_driver is None or device.cuda_driver is None or device.cuda_driver[0] >= header.cuda_driver[0]:
        return ""
    built, here = (".".join(map(str, version)) for version in (header.cuda_driver, device.cuda_driver))
    return f"it was built under a driver for CUDA {built}, and this driver runs CUDA {here} at most"
