"""Choosing a device: names, what "auto" passes over on a machine with a GPU, and what is said of it.

A GPU's presence comes from a driver library that is compiled here and says that there is one; everything else, ONNX
Runtime above all, is what is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from engine_headers import PLAN, a_header
from small_models import a_contract, in_bfloat16, red_and_blue

import gapcam
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.cli.device_options import device_line
from gapcam.cuda.presence import presence
from gapcam.devices import Device, choose_backend, open_backend, parse_device
from gapcam.engine_file import write_engine

WITHOUT_A_GPU = pytest.mark.skipif(bool(presence().devices), reason="there is a GPU here")
WITH_A_COMPILER = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler, on Linux"
)
DRIVER = """
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
"""


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("auto", Device("auto")),
        ("auto:1", Device("auto", 1, numbered=True)),
        ("cpu", Device("cpu")),
        ("cuda", Device("cuda", 0)),
        ("cuda:3", Device("cuda", 3, numbered=True)),
        ("tensorrt:1", Device("tensorrt", 1, numbered=True)),
        ("tensorrt-rtx", Device("tensorrt-rtx")),
        ("tensorrt-rtx:12", Device("tensorrt-rtx", 12, numbered=True)),
    ],
)
def test_a_device_is_a_name_and_a_number(text: str, device: Device) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1000", "cuda:300", "cpu:0", " cuda", "cuda:\u0661"]
)
def test_other_names_are_refused_with_all_that_there_are(text: str) -> None:
    with pytest.raises(gapcam.UsageError, match="auto, cpu, cuda, tensorrt, tensorrt-rtx") as caught:
        parse_device(text)
    assert repr(text) in str(caught.value)


@WITHOUT_A_GPU
@pytest.mark.parametrize("device", ["cuda", "tensorrt", "tensorrt-rtx", "cuda:1"])
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_is_missing(tmp_path: Path, device: str) -> None:
    with pytest.raises(gapcam.BackendError, match=r"needs an NVIDIA GPU: .*gapcam doctor") as caught:
        open_backend(red_and_blue(tmp_path / "m.onnx"), device=device)
    assert "\n" not in str(caught.value)


@WITHOUT_A_GPU
@pytest.mark.parametrize("device", ["auto:0", "auto:9"])
def test_a_gpu_that_auto_was_given_by_number_is_not_replaced_by_the_cpu(tmp_path: Path, device: str) -> None:
    with pytest.raises(gapcam.BackendError, match="needs an NVIDIA GPU"):
        open_backend(red_and_blue(tmp_path / "m.onnx"), device=device)


@WITHOUT_A_GPU
def test_auto_without_a_gpu_is_the_cpu_and_passes_over_nothing(tmp_path: Path) -> None:
    choice = choose_backend(red_and_blue(tmp_path / "m.onnx"), threads=1)
    assert isinstance(choice.backend, OnnxRuntimeBackend)
    assert choice.passed_over == ()


@WITHOUT_A_GPU
def test_auto_without_a_gpu_imports_nothing_of_cuda_s_and_prints_nothing(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx")
    script = (
        "import sys, gapcam\n"
        f"gapcam.load({str(path)!r}, threads=1)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'cuda', 'pycuda', 'tensorrt',"
        " 'tensorrt_rtx_bindings', 'onnxruntime_ep_nv_tensorrt_rtx', 'torch'}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('gapcam.backends.onnxruntime_')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "\ngapcam.backends.onnxruntime_session\n"
    assert done.stderr == ""


# Engines.


def test_an_engine_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_engine(path, a_header(), {}, PLAN)
    for device in ("cpu", "cuda", "tensorrt-rtx"):
        with pytest.raises(gapcam.BackendError, match="is an engine, which TensorRT runs on an NVIDIA GPU"):
            open_backend(path, device=device)


def test_an_engine_of_the_other_tensorrt_is_told_from_a_model(tmp_path: Path) -> None:
    write_engine(tmp_path / "m.engine", a_header(), {}, PLAN)
    with pytest.raises(gapcam.BackendError, match="device 'tensorrt-rtx' runs engines of TensorRT-RTX"):
        open_backend(tmp_path / "m.engine", device="tensorrt-rtx")


@pytest.mark.parametrize(("provider", "session"), [({"a": "1"}, {}), ({}, {"a.b": "1"})])
def test_an_engine_takes_no_options_of_onnx_runtime(
    tmp_path: Path, provider: dict[str, str], session: dict[str, str]
) -> None:
    path = tmp_path / "model.engine"
    write_engine(path, a_header(), {}, PLAN)
    with pytest.raises(gapcam.UsageError, match="are ONNX Runtime's"):
        open_backend(path, provider_options=provider, session_options=session)


@pytest.mark.parametrize("name", ["model.engine", "model.plan", "MODEL.TRT"])
def test_what_has_an_engine_s_name_is_read_as_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"ftrt" + bytes(100))
    with pytest.raises(gapcam.ModelError, match="is a bare TensorRT plan"):
        open_backend(tmp_path / name)


# A machine with a GPU, on which nothing that uses it is installed.


@pytest.fixture
def with_gpu(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds a GPU's driver."""
    if presence().devices:
        pytest.skip("there is a GPU here, and what uses it may be")
    for package in ("onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13"):
        try:
            version(package)
        except PackageNotFoundError:
            continue
        pytest.skip(f"{package} is installed: it would be tried on a GPU that is none")
    folder = tmp_path / "driver"
    folder.mkdir()
    compile_it = ["cc", "-shared", "-x", "c", "-", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(compile_it, input=DRIVER.encode(), check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "COLUMNS": "200"}


def command(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "gapcam.cli.main", *map(str, arguments)]
    return subprocess.run(run, env=environment, check=False, capture_output=True, text=True)


@WITH_A_COMPILER
def test_a_run_that_leaves_the_gpu_idle_says_so_once_and_why(tmp_path: Path, with_gpu: dict[str, str]) -> None:
    model = red_and_blue(tmp_path / "m.onnx")
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    done = command(with_gpu, "run", model, tmp_path / "a.png", tmp_path / "b.png", "--json", "--threads", "1")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    (line,) = done.stderr.splitlines()
    runtime = f"onnxruntime {version('onnxruntime')}"
    assert line == (
        f"on {runtime}, CPUExecutionProvider; the GPU is not used; not taken: tensorrt-rtx (the TensorRT-RTX provider "
        f"is not installed); tensorrt and cuda ({runtime} is the one for CPUs, without providers for GPUs); gapcam "
        "doctor tells more"
    )
    assert {json.loads(row)["engine"] for row in done.stdout.splitlines()} == {f"{runtime}, CPUExecutionProvider"}
    assert command(with_gpu, "run", model, tmp_path / "a.png", "--device", "cpu").stderr == ""


def test_the_line_of_a_gpu_that_is_used_names_it_and_cuts_long_reasons_off() -> None:
    engine = "onnxruntime 1.31.1, CUDAExecutionProvider, Orin"
    assert device_line(engine, ()) == f"on {engine}"
    line = device_line(engine, ("tensorrt: " + 80 * "many words ", "tensorrt-rtx: it is (too) old"))
    assert line.startswith(f"on {engine}; not taken: tensorrt (many words many")
    assert line.endswith("words ...); tensorrt-rtx (it is); gapcam doctor tells more")
    assert len(line) < 250


@WITH_A_COMPILER
def test_inspect_shows_what_auto_passed_over(tmp_path: Path, with_gpu: dict[str, str]) -> None:
    model = red_and_blue(tmp_path / "m.onnx")
    facts = json.loads(command(with_gpu, "inspect", model, "--json").stdout)
    assert [reason.partition(":")[0] for reason in facts["passed_over"]] == ["tensorrt-rtx", "tensorrt", "cuda"]
    assert facts["identity"]["holds"]
    shown = command(with_gpu, "inspect", model).stdout
    assert shown.count("not taken") == 3


@WITH_A_COMPILER
def test_a_model_for_gpus_that_no_provider_took_says_why_not(tmp_path: Path, with_gpu: dict[str, str]) -> None:
    contract = msgspec.structs.replace(a_contract(), precision="bf16")
    model = red_and_blue(tmp_path / "m.onnx", contract=contract, change=in_bfloat16)
    done = command(with_gpu, "run", model, tmp_path / "a.png")
    assert done.returncode == 3
    assert "computes in bfloat16, which ONNX Runtime does not on a CPU" in done.stderr
    assert "The GPU was tried: tensorrt-rtx: the TensorRT-RTX provider is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@WITH_A_COMPILER
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_asked_for_by_name_a_provider_that_is_not_installed_is_an_error(
    tmp_path: Path, with_gpu: dict[str, str], device: str
) -> None:
    done = command(with_gpu, "inspect", red_and_blue(tmp_path / "m.onnx"), "--device", device)
    assert done.returncode == 6
    assert "is the one for CPUs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@WITH_A_COMPILER
def test_a_gpu_s_number_that_is_too_great_says_how_many_there_are(tmp_path: Path, with_gpu: dict[str, str]) -> None:
    done = command(with_gpu, "inspect", red_and_blue(tmp_path / "m.onnx"), "--device", "cuda:1")
    assert done.returncode == 6
    assert "device 1 was asked for, and here is one GPU, number 0" in done.stderr
    assert command(with_gpu, "inspect", tmp_path / "m.onnx", "--device", "auto:9").returncode == 6
    assert command(with_gpu, "inspect", tmp_path / "m.onnx", "--device", "gpu").returncode == 2
