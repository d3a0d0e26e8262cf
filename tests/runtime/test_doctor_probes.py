"""What `gapcam doctor` asks libraries and files, for real: processes that die, hang and print, ELF files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# A libcuda that is no GPU, and the kernels behind it, lie beside the tests of the drivers.
sys.path.insert(0, str(Path(__file__).parent / "cuda"))
sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

import numpy as np
import onnx
import onnxruntime
import pytest
from host_libcuda import cuda_headers, host_environment, host_libcuda
from host_library import compiler, host_library
from recorded_machines import elf

from gapcam.doctor.elf import needed_libraries
from gapcam.doctor.gather import gather
from gapcam.doctor.machine import ThisMachine
from gapcam.doctor.native import ask
from gapcam.doctor.tiny_model import SIDE, tiny_model


def shadow(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """Put a module of one's own before the real one, in processes that are asked, too."""
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))


def test_a_library_that_kills_its_process_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, monkeypatch, "cv2", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    answer = ask("opencv")
    assert answer.error == "its process was killed by SIGSEGV"
    assert not answer.absent


def test_a_library_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, monkeypatch, "cv2", "import time\ntime.sleep(60)\n")
    assert ask("opencv", timeout_s=1).error == "no answer within 1 s"


def test_a_library_that_ends_the_process_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(
        tmp_path, monkeypatch, "cv2", "import os, sys\nprint('no licence', file=sys.stderr, flush=True)\nos._exit(3)\n"
    )
    assert ask("opencv").error == "its process ended with exit code 3: no licence"


def test_what_a_library_prints_is_not_taken_for_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('{}', end='')\n__version__ = '9'\ndef getBuildInformation(): return '  GStreamer:  YES (1.20)'\n"
    shadow(tmp_path, monkeypatch, "cv2", code)
    assert ask("opencv").values == {"version": "9", "cuda": False, "gstreamer": True}


def test_numpys_trap_is_recognised_though_the_module_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys\nprint('A module that was compiled using NumPy 1.x cannot be run in', file=sys.stderr)\n"
        "__version__ = '4'\ndef getBuildInformation(): return ''\n"
    )
    shadow(tmp_path, monkeypatch, "cv2", code)
    assert ask("opencv").error == "built for NumPy 1, and this is NumPy 2"


def test_what_is_absent_is_told_from_what_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("pycuda") is not None:
        pytest.skip("PyCUDA is installed here")
    assert ask("pycuda").absent
    shadow(tmp_path, monkeypatch, "pycuda", "import no_such_module_of_its_own\n")
    answer = ask("pycuda")
    assert not answer.absent
    assert answer.error == "No module named 'no_such_module_of_its_own'"


def test_a_tensorrt_that_is_too_old_answers_with_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, monkeypatch, "tensorrt", "__version__ = '8.6.1'\n")
    values = ask("tensorrt").values
    assert (values["version"], values["loads"]) == ("8.6.1", False)
    assert str(values["why"]).startswith("TensorRT 8.6.1 is installed")
    shadow(tmp_path, monkeypatch, "tensorrt", "raise ImportError('libnvinfer.so.10: cannot open')\n")
    answer = ask("tensorrt")
    assert answer.values == {}
    assert "libnvinfer.so.10" in str(answer.error)


def test_libraries_of_this_python_answer_with_their_versions() -> None:
    assert ask("numpy").values == {"version": np.__version__}
    assert ask("onnxruntime").values == {
        "version": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
    }
    nvrtc = ask("nvrtc").values
    assert re.fullmatch(r"1\d\.\d", str(nvrtc["version"]))
    architectures = nvrtc["architectures"]
    assert isinstance(architectures, list)
    assert {75, 87, 110} <= set(architectures)


def test_the_tiny_model_is_valid_and_computes_what_it_says() -> None:
    model = onnx.load_from_string(tiny_model())
    onnx.checker.check_model(model, full_check=True)
    image = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(tiny_model(), providers=["CPUExecutionProvider"])
    padded = np.pad(image[0].sum(axis=0), 1)
    expected = sum(padded[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)) - 1
    np.testing.assert_allclose(session.run(None, {"x": image})[0][0, 2], np.maximum(expected, 0), atol=1e-4)


def test_the_libraries_that_a_file_needs_are_those_that_readelf_names() -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    library = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    said = subprocess.run([readelf, "--dynamic", "--wide", library], check=True, capture_output=True, text=True).stdout
    expected = re.findall(r"\(NEEDED\).*\[(.+)\]", said)
    assert expected
    assert needed_libraries(library) == tuple(expected)


@pytest.mark.parametrize("length", [0, 5, 63, 64, 100, 175, 200])
def test_a_damaged_library_needs_nothing(tmp_path: Path, length: int) -> None:
    file = tmp_path / "lib.so"
    file.write_bytes(elf(["libcudart.so.13", "libc.so.6"])[:length])
    assert needed_libraries(file) == ()
    file.write_bytes(elf(["libcudart.so.13", "libc.so.6"]))
    assert needed_libraries(file) == ("libcudart.so.13", "libc.so.6")


def test_this_machines_facts_are_those_that_python_knows() -> None:
    facts = gather(ThisMachine())
    assert facts.platform.python == sys.version_info[:3]
    assert facts.distributions["numpy"].version == version("numpy")
    assert facts.onnxruntime is not None
    assert facts.onnxruntime.version == onnxruntime.__version__
    assert facts.answers["device cpu"].error is None


def run_doctor(*arguments: str, path: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gapcam.cli.main", "doctor", *arguments]
    environment = {**os.environ, **settings, **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_command_says_that_the_cpu_works_and_ends_with_0() -> None:
    ran = run_doctor()
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("gapcam ")
    assert any(re.match(r"cpu +works  onnxruntime .*CPUExecutionProvider", line) for line in lines)
    assert ran.stderr == ""


def test_json_has_devices_findings_and_facts() -> None:
    ran = run_doctor("--json")
    found = json.loads(ran.stdout)
    assert list(found) == ["devices", "findings", "facts"]
    assert [device["name"] for device in found["devices"]] == ["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
    assert found["devices"][0]["works"] is True
    assert {"level", "subject", "found", "expected", "command", "devices"} == set(found["findings"][0])


def test_where_nothing_works_the_exit_code_is_6(tmp_path: Path) -> None:
    package = tmp_path / "onnxruntime"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libonnxruntime.so: wrong ELF class')\n", encoding="utf-8")
    ran = run_doctor(path=tmp_path)
    assert ran.returncode == 6, ran.stdout
    assert "wrong ELF class" in ran.stdout
    assert ran.stderr == ""


def test_a_libcuda_is_asked_for_its_devices_and_takes_the_kernels(shared_folder: Path) -> None:
    """That libcuda runs kernels on the CPU. It is the real cuda.core and NVRTC that answer."""
    if compiler() is None or cuda_headers() is None:
        pytest.skip("no C++ compiler, or no cuda.h: the libcuda that is no GPU cannot be made")
    ran = run_doctor("--json", **host_environment(host_libcuda(shared_folder), [host_library(shared_folder)]))
    found = json.loads(ran.stdout)
    assert found["facts"]["driver"]["cuda"] == [13, 0]
    (gpu,) = found["facts"]["driver"]["gpus"]
    assert "not a GPU" in gpu["name"]
    assert gpu["capability"] == [8, 0]
    assert found["facts"]["answers"]["kernels"]["values"]["driver"].startswith("cuda.core")
    (kernels,) = [one for one in found["findings"] if one["subject"] == "kernels"]
    assert kernels["level"] == "ok"
    assert kernels["found"].startswith("compile and load")
