"""ONNX Runtime's providers for NVIDIA's GPUs: whether they load here, and if not, why and what to do.

Asked for a provider that does not load, ONNX Runtime prints the reason to stderr, makes a session on the CPU all the
same and goes on listing the provider as available. So each is tried before: is it in this build, does the driver run
its CUDA, are the libraries there that it links.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

from gapcam.backends.onnxruntime_session import ORT_ERRORS, ORT_VERSION, one_line, onnxruntime
from gapcam.cuda.presence import presence
from gapcam.cuda.wheels import load_from_wheels
from gapcam.doctor.elf import needed_libraries
from gapcam.errors import BackendError

if TYPE_CHECKING:
    from onnxruntime import OrtEpDevice

GpuDevice = Literal["cuda", "tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, slots=True)
class Provider:
    """One of them.

    Attributes:
        name: ONNX Runtime's.
        title: what messages call it.
        library: the file that holds it, without what the system puts before and after.
    """

    name: str
    title: str
    library: str


PROVIDERS: dict[GpuDevice, Provider] = {
    "cuda": Provider("CUDAExecutionProvider", "the CUDA provider", "onnxruntime_providers_cuda"),
    "tensorrt": Provider("TensorrtExecutionProvider", "the TensorRT provider", "onnxruntime_providers_tensorrt"),
    "tensorrt-rtx": Provider("NvTensorRTRTXExecutionProvider", "the TensorRT-RTX provider", ""),
}

RTX_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx-cu{cuda}"
"""The provider's plugin, for 12 or 13. It goes with the CPU's onnxruntime as well as with onnxruntime-gpu."""
_RTX_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"

_CUDNN = "libcudnn.so.9"

ENGINE_INSTEAD = "or build an engine and run that: gapcam build MODEL.onnx -o model.engine"
_DOCTOR = "gapcam doctor tells what is installed and what fits together"

_REGISTERING_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, OSError)

_registering = Lock()


def check_loads(kind: GpuDevice) -> None:
    """Try a provider of this ONNX Runtime's own, which `tensorrt-rtx` is not: see `rtx_devices`.

    Raises:
        BackendError: it is not in this build, the driver is too old for its CUDA, or a library is absent.
    """
    provider = PROVIDERS[kind]
    _check_gpu(provider)
    if provider.name not in onnxruntime.get_available_providers():
        installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
        raise BackendError(f"{explain_absent(kind, installed, arm=_is_arm())}; {_DOCTOR}")
    _check_cuda_of_driver(provider)
    if kind == "tensorrt":
        with suppress(ImportError, OSError):
            import_module("tensorrt")  # pip's: its libraries are where only it looks for them
    problem = _load(provider)
    if problem:
        raise BackendError(f"{provider.title} of onnxruntime-gpu {ORT_VERSION} does not load: {problem}; {_DOCTOR}")


def rtx_devices() -> list[OrtEpDevice]:
    """The GPUs that TensorRT-RTX's plugin runs on, in the order of their numbers; the plugin is registered if need be.

    Raises:
        BackendError: the plugin is not installed, does not load, or runs on none of the GPUs.
    """
    provider = PROVIDERS["tensorrt-rtx"]
    _check_gpu(provider)
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise BackendError(
            f"{provider.title} is a plugin, which onnxruntime {ORT_VERSION} does not take; update it to 1.24 or later"
        )
    with _registering:
        if not _listed(provider):
            try:
                plugin = import_module(_RTX_MODULE)
            except ImportError as error:
                raise BackendError(
                    f"{provider.title} is not installed ({error}). Install it with: pip install {_rtx_package()}"
                ) from error
            try:
                onnxruntime.register_execution_provider_library(provider.name, plugin.get_library_path())
            except _REGISTERING_ERRORS as error:
                again = f"Install the plugin again, which brings it: pip install --force-reinstall {_rtx_package()}"
                why = explain_missing(str(error), mend=again) or one_line(error)
                raise BackendError(f"{provider.title} does not load: {why}; {_DOCTOR}") from error
        found = _listed(provider)
    if not found:
        raise BackendError(
            f"{provider.title} runs on none of the GPUs here; it wants compute capability 8.6, 8.9, or 12.0 and later "
            f"(GeForce RTX 30 and newer). Take --device cuda, {ENGINE_INSTEAD}"
        )
    return found


def explain_failure(text: str, architecture: str) -> str:
    """What a message of a session that failed on a GPU mostly means, as ". ..." to go behind it; "" if unknown."""
    if "no kernel image" in text or "cudaErrorNoKernelImageForDevice" in text:
        hint = (
            "; PyPI's wheel for Arm has code for SM 89, 90, 120 and 121 only, so that a Jetson needs one that was "
            "built for it (jetson-containers)"
            if _is_arm()
            else ""
        )
        return f". This onnxruntime-gpu has no code for the GPU's architecture ({architecture}){hint}, {ENGINE_INSTEAD}"
    if "insufficient" in text and "driver" in text.lower():
        return ". The GPU's driver is too old for the CUDA that onnxruntime-gpu was built with; update it"
    if re.search(r"cudnn", text, re.IGNORECASE) and re.search(r"load|open|not found|NOT_INITIALIZED", text):
        return f". cuDNN is absent or of another version. {_cuda_libraries()}"
    if re.search(r"out of memory|Failed to allocate memory|CUBLAS_STATUS_ALLOC_FAILED", text):
        return ". The GPU's memory is full; close other programs, or take a smaller batch"
    return ""


def _check_gpu(provider: Provider) -> None:
    if presence().problem:
        raise BackendError(f"{provider.title} needs a GPU, and here is none: {presence().problem}")


def _listed(provider: Provider) -> list[OrtEpDevice]:
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider.name]


def explain_absent(kind: GpuDevice, installed: Sequence[str], *, arm: bool) -> str:
    """Why a provider is not in this build of ONNX Runtime.

    Args:
        kind: which provider.
        installed: which of the distributions onnxruntime and onnxruntime-gpu are.
        arm: whether this is an Arm machine, such as a Jetson.
    """
    if len(installed) == 2:
        return (
            "onnxruntime and onnxruntime-gpu are both installed, into the same folder, and the one for CPUs was the "
            "last. Remove both, then install one: pip uninstall -y onnxruntime onnxruntime-gpu && pip install "
            "'gapcam[gpu]'"
        )
    if kind == "tensorrt" and arm and "onnxruntime-gpu" in installed:
        return f"the wheel of onnxruntime-gpu for Arm has no TensorRT provider; take --device cuda, {ENGINE_INSTEAD}"
    if "onnxruntime-gpu" in installed:
        return f"onnxruntime-gpu {ORT_VERSION} was built without {PROVIDERS[kind].title}; take another --device"
    jetson = (
        f". PyPI's wheel does not run on a Jetson; jetson-containers builds one that does, {ENGINE_INSTEAD}"
        if arm
        else ""
    )
    return (
        f"onnxruntime {ORT_VERSION} is the one for CPUs, without providers for GPUs. Replace it: pip uninstall -y "
        f"onnxruntime && pip install 'gapcam[gpu]'{jetson}"
    )


def _check_cuda_of_driver(provider: Provider) -> None:
    """Code for one major version of CUDA does not run under a driver for the one before."""
    built, here = _built_with(), presence().cuda
    if built and here and here[0] < built:
        raise BackendError(
            f"{provider.title} of onnxruntime-gpu {ORT_VERSION} is for CUDA {built}, and the GPU's driver runs CUDA "
            f"{here[0]}.{here[1]} at most; update the driver, or install an onnxruntime-gpu for CUDA {here[0]}"
        )


def _built_with() -> int | None:
    """The major version of the CUDA that this ONNX Runtime was built with; None for one without."""
    match = re.match(r"\d+", str(getattr(onnxruntime, "cuda_version", "")))
    return int(match[0]) if match else None


def _rtx_package() -> str:
    return RTX_PACKAGE.format(cuda=max(12, min(13, (presence().cuda or (13, 0))[0])))


def _load(provider: Provider) -> str:
    """Load the provider's library as ONNX Runtime would; why it cannot be loaded, or ""."""
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find, and what is needed of that is told below
            onnxruntime.preload_dlls()
    before, after = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    folder = Path(onnxruntime.__file__).parent / "capi"
    # It looks beside itself only. What it links, and cuDNN, which it opens by name, may be in another of sys.path's.
    linked = needed_libraries(folder / f"{before}{provider.library}{after}")
    load_from_wheels([soname for soname in (*linked, _CUDNN) if soname.startswith("libcu")])
    for name in ("onnxruntime_providers_shared", provider.library):
        file = folder / f"{before}{name}{after}"
        if not file.exists():
            return ""  # another way of building it: ONNX Runtime is to say
        try:
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL if name.endswith("shared") else ctypes.DEFAULT_MODE)
        except OSError as error:
            return explain_missing(str(error)) or one_line(error)
    return ""


def explain_missing(text: str, *, mend: str | None = None) -> str:
    """What it means that a library was not found, from the loader's message; "" if it says something else.

    Args:
        text: the message.
        mend: what brings one that is neither the driver's nor TensorRT's; by default CUDA's libraries and cuDNN.
    """
    missing = re.search(r"(lib[\w.+-]+?\.so[.\d]*): cannot open shared object", text)
    if missing is None:
        return ""
    library = missing[1]
    if library.startswith("libnvinfer") or library.startswith("libnvonnxparser"):
        wanted = library.rpartition(".so.")[2] or "10"
        found = _version("tensorrt") or _version("tensorrt-cu13") or _version("tensorrt-cu12")
        here = f", and pip's tensorrt here is {found}" if found else ""
        return (
            f"it links TensorRT {wanted} ({library}){here}. Install it (pip install 'tensorrt-cu"
            f"{_built_with() or 13}<{int(wanted) + 1}'), take --device cuda, {ENGINE_INSTEAD}"
        )
    if library.startswith("libcuda."):
        return "there is no NVIDIA driver (libcuda.so.1)"
    if library.startswith("libnvidia-ml."):
        return f"{library} of NVIDIA's driver is absent; in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return f"{library} is absent. {mend or _cuda_libraries()}"


def _cuda_libraries() -> str:
    return "Install the CUDA libraries and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'"


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
