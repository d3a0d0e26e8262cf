"""Why a provider of ONNX Runtime does not load: messages of the system's own loader, and options of each provider."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from gapcam.backends.onnxruntime_gpu import gpu_options
from gapcam.backends.onnxruntime_providers import (
    PROVIDERS,
    GpuDevice,
    check_loads,
    explain_absent,
    explain_failure,
    explain_missing,
    rtx_devices,
)
from gapcam.backends.onnxruntime_session import one_line
from gapcam.cuda.presence import presence
from gapcam.cuda.wheels import load_from_wheels
from gapcam.doctor.elf import needed_libraries
from gapcam.errors import BackendError


def loader_message(folder: Path, missing: str) -> str:
    """What the system's loader says of a library that links another, which is not there.

    It is asked in a process of its own: in this one, other tests may have loaded a library of that name.
    """
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("needs a C compiler, on Linux")
    compile_it = ["cc", "-shared", "-x", "c", "-", "-x", "none"]
    subprocess.run([*compile_it, "-o", folder / missing, f"-Wl,-soname,{missing}"], input=b"int there;", check=True)
    provider = folder / "libprovider.so"
    subprocess.run(
        [*compile_it, "-o", provider, "-Wl,--no-as-needed", folder / missing],
        input=b"extern int there; int *used = &there;",
        check=True,
    )
    (folder / missing).unlink()
    load = f"import ctypes\ntry: ctypes.CDLL({str(provider)!r})\nexcept OSError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", load], check=True, capture_output=True, text=True).stdout.strip()
    assert "cannot open shared object" in said
    return said


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("libcublasLt.so.13", ("libcublasLt.so.13 is absent", "pip install 'onnxruntime-gpu[cuda,cudnn]'")),
        ("libcudnn.so.9", ("libcudnn.so.9 is absent", "pip install 'onnxruntime-gpu[cuda,cudnn]'")),
        ("libnvinfer.so.10", ("it links TensorRT 10", "'tensorrt-cu13<11'", "--device cuda", "gapcam build")),
        ("libcuda.so.1", ("there is no NVIDIA driver",)),
        ("libnvidia-ml.so.1", ("of NVIDIA's driver is absent", "NVIDIA_DRIVER_CAPABILITIES")),
    ],
)
def test_a_library_that_is_absent_is_named_with_the_command_that_brings_it(
    tmp_path: Path, library: str, said: tuple[str, ...]
) -> None:
    explained = explain_missing(loader_message(tmp_path, library))
    for text in said:
        assert text in explained


def test_what_is_no_absent_library_is_left_as_it_is(tmp_path: Path) -> None:
    broken = tmp_path / "libprovider.so"
    broken.write_bytes(b"no library")
    with pytest.raises(OSError, match=r"too short|invalid ELF") as caught:
        ctypes.CDLL(str(broken))
    assert explain_missing(str(caught.value)) == ""


def test_what_a_plugin_lacks_comes_with_the_plugin_and_what_the_driver_lacks_does_not(tmp_path: Path) -> None:
    mend = "Install the plugin again"
    assert explain_missing(loader_message(tmp_path, "libcudart.so.99"), mend=mend).endswith(mend)
    assert mend not in explain_missing(loader_message(tmp_path, "libnvidia-ml.so.1"), mend=mend)


def test_what_a_provider_links_is_loaded_from_any_of_python_s_folders(tmp_path: Path) -> None:
    loader_message(tmp_path, "libcugapcam.so.1")  # leaves a provider that links it
    folder = tmp_path / "site" / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    compile_it = ["cc", "-shared", "-x", "c", "-", "-Wl,-soname,libcugapcam.so.1", "-o"]
    subprocess.run([*compile_it, folder / "libcugapcam.so.1"], input=b"int there = 9;", check=True)
    linked = needed_libraries(tmp_path / "libprovider.so")
    assert "libcugapcam.so.1" in linked
    load_from_wheels(linked, [str(tmp_path / "elsewhere")])
    with pytest.raises(OSError, match="cannot open shared object"):
        ctypes.CDLL(str(tmp_path / "libprovider.so"))
    load_from_wheels(linked, [str(tmp_path / "elsewhere"), str(tmp_path / "site")])
    provider = ctypes.CDLL(str(tmp_path / "libprovider.so"))
    assert ctypes.POINTER(ctypes.c_int).in_dll(provider, "used")[0] == 9


@pytest.mark.parametrize(
    ("kind", "installed", "arm", "said"),
    [
        ("cuda", ["onnxruntime"], False, "is the one for CPUs, without providers for GPUs. Replace it: pip uninstall"),
        ("cuda", ["onnxruntime"], True, "PyPI's wheel does not run on a Jetson; jetson-containers builds one"),
        ("tensorrt", ["onnxruntime-gpu"], True, "the wheel of onnxruntime-gpu for Arm has no TensorRT provider"),
        ("tensorrt", ["onnxruntime-gpu"], False, "was built without the TensorRT provider"),
        ("cuda", ["onnxruntime", "onnxruntime-gpu"], False, "pip uninstall -y onnxruntime onnxruntime-gpu && pip"),
    ],
)
def test_a_provider_that_is_not_in_the_build_is_explained(
    kind: GpuDevice, installed: list[str], said: str, *, arm: bool
) -> None:
    assert said in explain_absent(kind, installed, arm=arm)


@pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here")
@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_without_a_gpu_that_is_what_is_said(kind: GpuDevice) -> None:
    with pytest.raises(BackendError, match="needs a GPU, and here is none"):
        check_loads(kind)


@pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here")
def test_without_a_gpu_no_plugin_is_registered() -> None:
    with pytest.raises(BackendError, match="needs a GPU, and here is none"):
        rtx_devices()
    assert {device.ep_name for device in onnxruntime.get_ep_devices()} == {"CPUExecutionProvider"}


def test_the_names_are_onnx_runtime_s() -> None:
    known = set(onnxruntime.get_all_providers())
    assert {PROVIDERS[kind].name for kind in ("cuda", "tensorrt", "tensorrt-rtx")} <= known


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CUDA error 209: no kernel image is available for execution on the device", r"architecture \(sm_87\)"),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "too old"),
        ("CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED", "cuDNN is absent"),
        ("Unable to load any of {libcudnn_graph.so.9}", "cuDNN is absent"),
        ("CUDA failure 2: out of memory", "memory is full"),
    ],
)
def test_known_failures_say_what_to_do(text: str, hint: str) -> None:
    import re

    explained = explain_failure(text, "sm_87")
    assert re.search(hint, explained)
    assert explained.startswith(". ")


def test_an_unknown_failure_is_not_explained() -> None:
    assert explain_failure("INVALID_ARGUMENT : Got invalid dimensions for input: image", "sm_87") == ""


def test_a_message_of_onnx_runtime_loses_the_places_in_its_source() -> None:
    # as onnxruntime-gpu 1.31.1 gave it, with a driver that answers every call with "not supported"
    message = (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
        "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const "
        "onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to "
        'parse provider option "device_id": CUDA failure 36: API call is not supported in the installed CUDA driver ; '
        "GPU=-1 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ;"
        " line=70 ; expr=cudaGetDeviceCount(&num_devices); \n"
    )
    assert one_line(RuntimeError(message)) == (
        'Failed to parse provider option "device_id": CUDA failure 36: API call is not supported in the installed CUDA '
        "driver"
    )
    assert one_line(RuntimeError("two\nlines")) == "two lines"


# Options.


def test_the_cuda_provider_gets_the_stream_and_graphs() -> None:
    assert gpu_options("cuda", 1, 4096, "fp16", Path("cache"), {}) == {
        "device_id": "1",
        "has_user_compute_stream": "1",
        "user_compute_stream": "4096",
        "enable_cuda_graph": "1",
    }


@pytest.mark.parametrize(
    ("precision", "switch"), [("fp16", "trt_fp16_enable"), ("bf16", "trt_bf16_enable"), ("int8", "trt_int8_enable")]
)
def test_tensorrt_is_told_the_precision_and_where_engines_and_timings_are_kept(precision: str, switch: str) -> None:
    options = gpu_options("tensorrt", 0, 1, precision, Path("cache"), {})  # type: ignore[arg-type]
    assert {name for name in options if name.endswith("_enable")} == {
        switch, "trt_engine_cache_enable", "trt_timing_cache_enable",
    }  # fmt: skip
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"]
    assert "enable_cuda_graph" not in options


@pytest.mark.parametrize("precision", ["fp32", None])
def test_tensorrt_is_told_no_precision_where_there_is_none_to_tell(precision: str | None) -> None:
    options = gpu_options("tensorrt", 0, 1, precision, Path("cache"), {})  # type: ignore[arg-type]
    assert not {"trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable"}.intersection(options)


def test_the_plugin_is_given_its_device_and_not_a_number() -> None:
    options = gpu_options("tensorrt-rtx", 1, 1, "fp16", Path("cache"), {})
    assert set(options) == {"has_user_compute_stream", "user_compute_stream", "nv_runtime_cache_path"}


def test_the_user_s_options_go_before() -> None:
    given = {"enable_cuda_graph": "0", "use_tf32": "0"}
    options = gpu_options("cuda", 0, 1, "fp32", Path("cache"), given)
    assert (options["enable_cuda_graph"], options["use_tf32"]) == ("0", "0")
