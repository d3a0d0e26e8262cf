"""Imports TensorRT or TensorRT-RTX, whose Python modules are alike, and refuses versions that lack what gapcam uses."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from gapcam.engine_file import EngineRuntime
from gapcam.errors import BackendError, MissingExtraError

OLDEST_MAJOR = 10
"""Of TensorRT. TensorRT-RTX counts from 1, and every version of it will do."""

TITLES: dict[EngineRuntime, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""How messages call the two."""

_MODULES: dict[EngineRuntime, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx"),  # the first from PyPI, the second NVIDIA's archive's
}


class TensorRTAbsentError(BackendError):
    """The Python module `tensorrt` is not there; one that is there and does not work is another error."""


def import_tensorrt(runtime: EngineRuntime) -> ModuleType:
    """The Python module of a runtime.

    Raises:
        MissingExtraError: TensorRT-RTX is not installed.
        TensorRTAbsentError: TensorRT is not installed.
        BackendError: its libraries cannot be loaded, or it is too old.
    """
    for name in _MODULES[runtime]:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a library is absent or of another version, and a binding may raise anything
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue
            said = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(
                f"{TITLES[runtime]}'s Python module {name} is installed and cannot be loaded: {said}. Install its "
                "libraries in the same version; docs/gpu.md says how"
            ) from error
        _check_version(runtime, module)
        return module
    if runtime == "tensorrt-rtx":
        raise MissingExtraError("tensorrt_rtx_bindings", runtime)
    raise TensorRTAbsentError(
        "TensorRT's Python module tensorrt is not installed for this Python. On a Jetson: sudo apt install "
        "python3-libnvinfer, and a virtual environment made with --system-site-packages; elsewhere: pip install "
        "tensorrt-cu13; docs/gpu.md has more"
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """(10, 13, 3, 9) of "10.13.3.9"; what follows the numbers is left out."""
    match = re.match(r"[0-9]{1,9}(\.[0-9]{1,9})*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _check_version(runtime: EngineRuntime, module: ModuleType) -> None:
    version = str(module.__version__)
    if runtime == "tensorrt" and version_numbers(version)[:1] < (OLDEST_MAJOR,):
        raise BackendError(
            f"TensorRT {version} is installed; gapcam needs {OLDEST_MAJOR} or later, for networks whose types are "
            "those of the model (strongly typed). Jetsons have it from JetPack 6.1 on, and 8 before (JetPack 5 and "
            "6.0): there, run the ONNX model with ONNX Runtime"
        )
