"""The suite for GPUs, on a libcuda of our own, which is no GPU: gapcam's code and the CUDA libraries are the real ones.

It says nothing of what a GPU computes, or how fast. The libcuda is strict, and that is tested first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gpu"))  # for host_libcuda

import pytest
from host_libcuda import cuda_headers, host_environment, host_libcuda
from host_library import compiler
from host_library import host_library as compiled_library

REPOSITORY = Path(__file__).resolve().parents[3]
GPU_TESTS = REPOSITORY / "tests" / "gpu"


@pytest.fixture(scope="session")
def libcuda(shared_folder: Path) -> Path:
    """The folder with libcuda.so.1, compiled once for all test processes."""
    if sys.platform != "linux" or compiler() is None or cuda_headers() is None:
        pytest.skip("the host's libcuda needs Linux, g++ and CUDA's headers (nvidia-cuda-runtime)")
    return host_libcuda(shared_folder)


@pytest.fixture(scope="session")
def driver_kernels(libcuda: Path) -> Path:
    """driver_kernels.cu for the host."""
    return compiled_library(libcuda, GPU_TESTS / "driver_kernels.cu")


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, cwd=REPOSITORY
    )


def test_the_suite_for_gpus_passes_on_the_host(libcuda: Path, driver_kernels: Path, host_library: Path) -> None:
    # Those of inference engines, which need a GPU, are left out.
    names = ("drivers", "frames", "exit", "lost_device", "pycuda_app", "onnxruntime_context")
    files = [str(GPU_TESTS / f"test_{name}.py") for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    environment = host_environment(libcuda, [driver_kernels, host_library], DEVICES="2") | {"PYTEST_ADDOPTS": ""}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    passed = int(run.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= (80 if find_spec("pycuda") else 30), run.stdout[-2000:]
    assert "no CUDA device" not in run.stdout


STRICT = """
import threading
import numpy as np
from cuda.bindings import driver as cu

def name(result):
    return result[0].name.removeprefix("CUDA_ERROR_")

def expect(wanted, result):
    assert name(result) == wanted, (wanted, name(result))

expect("NOT_INITIALIZED", cu.cuDeviceGet(0))
cu.cuInit(0)
expect("INVALID_DEVICE", cu.cuDeviceGet(1))
expect("INVALID_CONTEXT", cu.cuMemAlloc(16))
expect("INVALID_CONTEXT", cu.cuStreamCreate(1))
context = cu.cuDevicePrimaryCtxRetain(0)[1]
cu.cuCtxPushCurrent(context)

# Memory.
expect("OUT_OF_MEMORY", cu.cuMemAlloc(1 << 40))
expect("INVALID_VALUE", cu.cuMemAlloc(0))
pointer = int(cu.cuMemAlloc(1000)[1])
host = np.zeros(1001, np.uint8)
expect("INVALID_VALUE", cu.cuMemcpyHtoD(pointer, host.ctypes.data, 1001))
expect("INVALID_VALUE", cu.cuMemcpyDtoH(host.ctypes.data, pointer + 1, 1000))
expect("INVALID_VALUE", cu.cuMemFree(pointer + 256))
cu.cuMemcpyDtoH(host.ctypes.data, pointer, 1000)
assert (host[:1000] == 0xCD).all()  # nobody wrote to it
cu.cuMemFree(pointer)
expect("INVALID_VALUE", cu.cuMemFree(pointer))
expect("INVALID_VALUE", cu.cuMemcpyHtoD(pointer, host.ctypes.data, 10))
expect("INVALID_VALUE", cu.cuMemFreeHost(host.ctypes.data))
assert int(cu.cuMemAlloc(1000)[1]) != pointer

# What is queued has not run before it is waited for; nothing waits for a query alone.
stream = cu.cuStreamCreate(1)[1]
pointer = int(cu.cuMemAlloc(1000)[1])
pinned = int(cu.cuMemAllocHost(1000)[1])
view = np.asarray(memoryview((__import__("ctypes").c_uint8 * 1000).from_address(pinned)))
view[:] = 1
cu.cuMemcpyHtoDAsync(pointer, pinned, 1000, stream)
view[:] = 2  # too early: the copy reads this
expect("NOT_READY", cu.cuStreamQuery(stream))
cu.cuStreamSynchronize(stream)
cu.cuMemcpyDtoH(host.ctypes.data, pointer, 1000)
assert (host[:1000] == 2).all()

# Handles.
event = cu.cuEventCreate(0)[1]
cu.cuEventDestroy(event)
expect("INVALID_HANDLE", cu.cuEventRecord(event, stream))
other = cu.cuStreamCreate(1)[1]
cu.cuStreamDestroy(other)
expect("INVALID_HANDLE", cu.cuMemcpyHtoDAsync(pointer, pinned, 10, other))
expect("INVALID_IMAGE", cu.cuModuleLoadData(b"text" * 20))

# Captures.
mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
def spoilt(act):
    assert name(cu.cuStreamBeginCapture(stream, mode)) == "CUDA_SUCCESS"
    act()
    return name(cu.cuStreamEndCapture(stream))
assert spoilt(lambda: expect("STREAM_CAPTURE_UNSUPPORTED", cu.cuMemAlloc(10))) == "STREAM_CAPTURE_INVALIDATED"
assert spoilt(lambda: expect("STREAM_CAPTURE_UNSUPPORTED", cu.cuMemFree(pointer))) == "STREAM_CAPTURE_INVALIDATED"
assert spoilt(lambda: expect("STREAM_CAPTURE_UNSUPPORTED", cu.cuCtxSynchronize())) == "STREAM_CAPTURE_INVALIDATED"
assert spoilt(
    lambda: expect("STREAM_CAPTURE_UNSUPPORTED", cu.cuStreamSynchronize(stream))
) == "STREAM_CAPTURE_INVALIDATED"
assert spoilt(
    lambda: expect("STREAM_CAPTURE_UNSUPPORTED", cu.cuMemcpyHtoDAsync(pointer, host.ctypes.data, 10, stream))
) == "STREAM_CAPTURE_INVALIDATED"
outside = cu.cuEventCreate(0)[1]
second = cu.cuStreamCreate(1)[1]
cu.cuEventRecord(outside, second)
assert spoilt(
    lambda: expect("STREAM_CAPTURE_ISOLATION", cu.cuStreamWaitEvent(stream, outside, 0))
) == "STREAM_CAPTURE_INVALIDATED"
expect("ILLEGAL_STATE", cu.cuStreamEndCapture(stream))
def end_elsewhere():
    found = []
    def run():
        cu.cuCtxPushCurrent(context)
        found.append(name(cu.cuStreamEndCapture(stream)))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["STREAM_CAPTURE_WRONG_THREAD"], found
assert spoilt(end_elsewhere) == "CUDA_SUCCESS"

# A copy whose memory went in the meantime.
cu.cuMemcpyHtoDAsync(pointer, pinned, 1000, stream)
cu.cuMemFreeAsync(pointer, second)
cu.cuStreamSynchronize(second)
expect("ILLEGAL_ADDRESS", cu.cuStreamSynchronize(stream))
expect("ILLEGAL_ADDRESS", cu.cuMemAlloc(10))
print("strict")
"""


def test_the_hosts_libcuda_refuses_what_is_wrong(libcuda: Path) -> None:
    run = python(STRICT, host_environment(libcuda, []))
    assert run.stdout == "strict\n", run.stderr


def test_device_memory_cannot_be_touched_by_the_host(libcuda: Path) -> None:
    code = """
import ctypes
from cuda.bindings import driver as cu
cu.cuInit(0)
cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])
pointer = int(cu.cuMemAlloc(16)[1])
print("made", flush=True)
ctypes.c_uint8.from_address(pointer).value
"""
    run = python(code, host_environment(libcuda, []))
    assert run.stdout == "made\n"
    assert run.returncode < 0  # by a signal


OPEN = """
from gapcam.cuda.open_driver import open_driver
from gapcam.errors import GapcamError
try:
    print(open_driver({arguments}).device_name)
except GapcamError as error:
    print(f"{{type(error).__name__}} {{error.exit_code}}: {{error}}")
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("100", "it sees no device"),
        ("35", "older than its library"),
        ("803", "of another version than its library"),
        ("804", "forward compatibility"),
        ("999", "does not answer"),
        ("46", "see nvidia-smi"),
    ],
)
def test_why_there_is_no_device_is_told_apart(libcuda: Path, code: str, said: str) -> None:
    run = python(OPEN.format(arguments=""), host_environment(libcuda, [], INIT=code))
    assert run.stdout.startswith("BackendError 6: no CUDA device: "), run.stderr
    assert said in run.stdout
    assert run.stdout.count("\n") == 1


def test_a_machine_without_nvidias_driver_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    if "OK" in python("import ctypes; ctypes.CDLL('libcuda.so.1'); print('OK')", environment).stdout:
        pytest.skip("this machine has NVIDIA's driver")
    run = python(OPEN.format(arguments=""), environment)
    assert run.stdout.startswith("BackendError 6: no CUDA device: there is no NVIDIA driver"), run.stderr


@pytest.mark.parametrize(
    ("driver", "cuda", "command"),
    [("12060", "12.6", "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12"), ("11040", "11.4", None)],
)
def test_a_driver_that_is_too_old_for_the_library_is_refused(
    libcuda: Path, driver: str, cuda: str, command: str | None
) -> None:
    run = python(OPEN.format(arguments=""), host_environment(libcuda, [], DRIVER=driver))
    assert run.stdout.startswith(f"BackendError 6: NVIDIA's driver runs CUDA {cuda}, and cuda-bindings "), run.stderr
    end = run.stdout.strip().partition(" wants 13: ")[2]
    assert end == "update the driver (580 or newer)" + (f", or {command}" if command else "")


def test_a_driver_that_is_too_old_for_nvrtc_is_refused_with_pycuda_too(libcuda: Path) -> None:
    if find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed")
    run = python(OPEN.format(arguments="'pycuda'"), host_environment(libcuda, [], DRIVER="12060"))
    assert run.stdout.startswith("BackendError 6: NVIDIA's driver runs CUDA 12.6, and NVRTC 13."), run.stderr
    assert "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12" in run.stdout


def test_a_wrong_choice_is_a_line(libcuda: Path) -> None:
    environment = host_environment(libcuda, [])
    assert python(OPEN.format(arguments="device=3"), environment).stdout == (
        "UsageError 2: device is 3; there are 1, counted from 0\n"
    )
    assert python(OPEN.format(arguments="'cupy'"), environment).stdout == (
        "UsageError 2: the CUDA driver is 'cupy'; give one of auto, cuda-core, pycuda\n"
    )


def test_a_library_that_is_not_installed_is_named_with_its_extra(libcuda: Path) -> None:
    absent = "import sys; sys.modules['{0}'] = None\n"
    environment = host_environment(libcuda, [])
    run = python(absent.format("pycuda") + OPEN.format(arguments="'pycuda'"), environment)
    assert run.stdout.startswith("MissingExtraError 6: pycuda is not installed"), run.stderr
    assert "pip install 'gapcam[pycuda]'" in run.stdout
    neither = absent.format("pycuda") + absent.format("cuda.core") + OPEN.format(arguments="")
    run = python(neither, environment)
    assert run.stdout.startswith("MissingExtraError 6: cuda-core is not installed"), run.stderr
    assert "pip install 'gapcam[cuda]'" in run.stdout
