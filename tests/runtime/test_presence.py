"""Whether there is a GPU, asked of a driver library that is compiled here and answers as NVIDIA's does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
int cuDriverGetVersion(int *version) { *version = %(version)d; return 0; }
int cuInit(unsigned flags) { return flags ? 1 : %(init)d; }
int cuDeviceGetCount(int *count) { *count = %(count)d; return 0; }
"""
ASK = """
import json, sys
from gapcam.cuda.presence import presence
found = presence()
print(json.dumps([found.devices, found.cuda, found.problem, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs a C compiler, on Linux"
)


def ask(folder: Path, **driver: int) -> list[Any]:
    """What a new process finds with such a driver, or with none."""
    folder.mkdir(exist_ok=True)
    if driver:
        library = folder / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-x", "c", "-", "-o", library], input=(SOURCE % driver).encode(), check=True)
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout))


def test_devices_and_the_driver_s_cuda_are_told(tmp_path: Path) -> None:
    assert ask(tmp_path, version=13020, init=0, count=2)[:3] == [2, [13, 2], ""]


@pytest.mark.parametrize(
    ("code", "hint"),
    [(100, "CUDA_VISIBLE_DEVICES"), (803, "another version"), (999, "kernel module"), (35, "older"), (7, "nvidia-smi")],
)
def test_each_error_of_the_driver_says_what_to_do(tmp_path: Path, code: int, hint: str) -> None:
    devices, cuda, problem, _ = ask(tmp_path, version=12040, init=code, count=1)
    assert (devices, cuda) == (0, [12, 4])
    assert str(code) in problem
    assert hint in problem


def test_no_device_is_told_from_no_driver(tmp_path: Path) -> None:
    assert "sees no device" in ask(tmp_path, version=13000, init=0, count=0)[2]


def test_without_a_driver_nothing_but_the_standard_library_is_imported(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver here")
    devices, cuda, problem, modules = ask(tmp_path)
    assert (devices, cuda) == (0, None)
    assert "no NVIDIA driver" in problem
    assert not {"numpy", "onnxruntime", "cuda", "tensorrt"}.intersection(modules)
