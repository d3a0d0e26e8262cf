"""Questions that only a loaded library answers, each asked in a process of its own.

A library that does not fit may print, hang or kill its process: `ask` turns all of that into an `Answer`. The child
prints its answer as the last line of its output, behind a mark.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from gapcam.child_python import child_code
from gapcam.doctor.facts import Answer

if TYPE_CHECKING:
    from gapcam.engine_file import EngineRuntime

TIMEOUT_S = 120.0
"""The TensorRT provider builds an engine for its trial, which takes a weak machine half a minute."""

_MARK = "gapcam doctor: "
_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from gapcam.doctor.native import answer_in_child; "
    "answer_in_child(sys.argv[2])"
)
_LONGEST_ERROR = 600


def ask(question: str, *, timeout_s: float = TIMEOUT_S) -> Answer:
    """Start a process that answers one of `QUESTIONS` with this Python's own search path.

    Args:
        question: its name.
        timeout_s: when to give up, in seconds.
    """
    command = child_code(_CHILD, json.dumps(sys.path), question)
    try:
        done = subprocess.run(  # noqa: S603 - this Python
            command, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {timeout_s:.0f} s")
    except OSError as error:
        return Answer(error=f"a process to ask in cannot be started: {error.strerror}")
    output, errors = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    for line in reversed(output.splitlines()):
        if line.startswith(_MARK):
            answer = msgspec.json.decode(line.removeprefix(_MARK).encode(), type=Answer)
            return _with_numpy_trap(answer, errors)
    return Answer(error=f"its process {_end(done.returncode)}{_last_line(errors)}")


def answer_in_child(question: str) -> None:
    """Answer on standard output, whatever the library does."""
    try:
        answer = Answer(values=QUESTIONS[question]())
    except BaseException as error:  # noqa: BLE001 - a library that does not fit may raise anything
        answer = Answer(error=_short(error), absent=not any(map(_is_there, _MODULES[question])))
    print(f"\n{_MARK}{msgspec.json.encode(answer).decode()}", flush=True)  # noqa: T201 - to the parent


def _driver() -> dict[str, Any]:
    """libcuda by ctypes: cuInit, cuDriverGetVersion, the devices."""
    import ctypes
    from uuid import UUID

    cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    found: dict[str, Any] = {"version": number.value, "code": cuda.cuInit(0)}
    names, capabilities, memories, uuids = [], [], [], []
    ask_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or getattr(
        cuda, "cuDeviceGetUuid", None
    )  # the newer knows MIG
    if found["code"] == 0 and cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
        for device in range(number.value):
            name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
            major, minor = ctypes.c_int(), ctypes.c_int()
            cuda.cuDeviceGetName(name, 256, device)
            cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
            cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
            cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
            names.append(name.value.decode("utf-8", "replace"))
            capabilities += [major.value, minor.value]
            memories.append(memory.value)
            uuid = ctypes.create_string_buffer(16)
            is_known = ask_uuid is not None and ask_uuid(uuid, device) == 0
            uuids.append(f"GPU-{UUID(bytes=uuid.raw)}" if is_known else "")
    return {**found, "names": names, "capabilities": capabilities, "memories": memories, "uuids": uuids}


def _nvrtc() -> dict[str, Any]:
    """The compiler that cuda.core would use, and what it compiles for."""
    import_module("cuda.core")
    from gapcam.cuda.nvrtc import nvrtc_version

    major, minor = nvrtc_version()
    _, architectures = import_module("cuda.bindings.nvrtc").nvrtcGetSupportedArchs()
    return {"version": f"{major}.{minor}", "architectures": list(architectures)}


def _numpy() -> dict[str, Any]:
    import numpy

    return {"version": numpy.__version__}


def _opencv() -> dict[str, Any]:
    """Its version, and whether it was built with CUDA and with GStreamer."""
    import cv2

    lines = [line.strip() for line in cv2.getBuildInformation().splitlines()]

    def has(feature: str) -> bool:
        return any(line.startswith(f"{feature}:") and "YES" in line for line in lines)

    return {"version": cv2.__version__, "cuda": has("NVIDIA CUDA"), "gstreamer": has("GStreamer")}


def _onnxruntime() -> dict[str, Any]:
    import onnxruntime

    return {"version": onnxruntime.__version__, "providers": list(onnxruntime.get_available_providers())}


def _tensorrt(runtime: EngineRuntime) -> dict[str, Any]:
    """Its version, and whether it can load engines: that needs the driver, and a version that gapcam uses."""
    from gapcam.errors import BackendError
    from gapcam.tensorrt_module import import_tensorrt

    try:
        trt = import_tensorrt(runtime)
    except BackendError as error:
        refused = getattr(sys.modules.get(runtime), "__version__", None)  # of what loads and is refused
        if refused is None:
            raise
        return {"version": str(refused), "loads": False, "why": _short(error)}
    version = str(trt.__version__)
    try:
        loads = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)) is not None
    except (RuntimeError, TypeError) as error:  # how the binding says that C++ gave it a null pointer
        return {"version": version, "loads": False, "why": _short(error)}
    return {"version": version, "loads": loads, "why": None}


def _pycuda() -> dict[str, Any]:
    """Its version, and the CUDA that it was built with."""
    version, driver = import_module("pycuda").VERSION_TEXT, import_module("pycuda.driver")
    return {"version": str(version), "cuda": ".".join(map(str, driver.get_version()[:2]))}


def _kernels() -> dict[str, Any]:
    """Open the GPU as `gapcam.load` would, and load gapcam's kernels into it."""
    from gapcam.cuda.kernel_cache import load_kernels
    from gapcam.cuda.open_driver import open_driver

    with _own_cache():
        driver = open_driver()
        with driver.active():
            load_kernels(driver)
        name = driver.name
        driver.close()
    return {"driver": name}


def _device(device: str) -> dict[str, Any]:
    """Run a model of two nodes through what `gapcam.load(..., device=...)` would use, and check the result."""
    import numpy as np

    from gapcam.devices import open_backend
    from gapcam.doctor.tiny_model import SIDE, tiny_model

    with _own_cache() as folder:
        model = folder / "tiny.onnx"
        model.write_bytes(tiny_model())
        backend = open_backend(model, device=device)
        try:
            (result,) = backend.run(["y"], np.ones((1, 3, SIDE, SIDE), np.float32))
        finally:
            backend.close()
    if result.shape != (1, 4, SIDE, SIDE) or abs(float(result[0, 0, 1, 1]) - 26) > 0.1:
        raise RuntimeError("a convolution gave a wrong result")
    return {"engine": backend.engine}


@contextmanager
def _own_cache() -> Iterator[Path]:
    """A folder in the place of the user's cache, so that asking changes nothing."""
    with TemporaryDirectory() as folder:
        os.environ["GAPCAM_CACHE_DIR"] = folder
        yield Path(folder)


QUESTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "driver": _driver,
    "nvrtc": _nvrtc,
    "kernels": _kernels,
    "numpy": _numpy,
    "opencv": _opencv,
    "onnxruntime": _onnxruntime,
    "tensorrt": lambda: _tensorrt("tensorrt"),
    "tensorrt-rtx": lambda: _tensorrt("tensorrt-rtx"),
    "pycuda": _pycuda,
    "device cpu": lambda: _device("cpu"),
    "device cuda": lambda: _device("cuda"),
    "device tensorrt": lambda: _device("tensorrt"),
    "device tensorrt-rtx": lambda: _device("tensorrt-rtx"),
}
"""What can be asked, by name."""

_MODULES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(QUESTIONS, ("onnxruntime",)),
    "driver": ("sys",),
    "nvrtc": ("cuda.core", "cuda.bindings"),
    "kernels": ("cuda.core", "pycuda"),
    "numpy": ("numpy",),
    "opencv": ("cv2",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx"),
    "pycuda": ("pycuda",),
}
"""Where none of a question's modules is there, what it asks about is not installed."""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is absent, or cannot be imported
        return False


def _with_numpy_trap(answer: Answer, errors: str) -> Answer:
    """Modules built for NumPy 1 print pages on NumPy 2 and then fail with something else, or with nothing at all."""
    if "compiled using NumPy 1.x" in errors and (answer.error is None or "NumPy 1" not in answer.error):
        return Answer(values=answer.values, error="built for NumPy 1, and this is NumPy 2")
    return answer


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed by {known.get(-code, f'signal {-code}')}"


def _last_line(errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    return f": {lines[-1].strip()[:200]}" if lines else ""


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."
