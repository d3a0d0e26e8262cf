"""`gapcam doctor` on machines that are folders: what it says of each, and the command that it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from recorded_machines import (
    ABSENT,
    KERNELS,
    RecordedMachine,
    container,
    desktop,
    driver,
    jetpack5,
    jetpack6,
    jetpack7_orin,
    new_desktop,
    nvrtc,
    thor,
    wsl,
)

from gapcam.doctor.facts import Answer, Facts
from gapcam.doctor.findings import Device, Finding, Level
from gapcam.doctor.gather import gather
from gapcam.doctor.judge import devices, judge
from gapcam.doctor.report import report

MACHINES = (jetpack5, jetpack6, thor, jetpack7_orin, desktop, new_desktop, wsl, container)


@dataclass
class Examined:
    """A machine with what the doctor made of it."""

    facts: Facts
    findings: list[Finding]
    devices: dict[str, Device]

    def one(self, subject: str, level: Level = Level.PROBLEM) -> Finding:
        """The only finding of a level on a subject."""
        found = [finding for finding in self.findings if finding.subject == subject and finding.level is level]
        assert len(found) == 1, self.findings
        return found[0]

    @property
    def problems(self) -> list[str]:
        return [finding.subject for finding in self.findings if finding.level is Level.PROBLEM]

    @property
    def works(self) -> list[str]:
        return [name for name, device in self.devices.items() if device.works]


def examine(machine: RecordedMachine) -> Examined:
    facts = gather(machine)
    findings = judge(facts)
    return Examined(facts, findings, {device.name: device for device in devices(facts, findings)})


def test_jetpack_5_is_refused_for_its_tensorrt_and_the_cpu_works(tmp_path: Path) -> None:
    found = examine(jetpack5(tmp_path))
    assert found.works == ["cpu"]
    assert found.facts.jetson is not None
    assert found.facts.jetson.l4t == (35, 4, 1)
    jetpack = found.one("JetPack")
    assert "JetPack 5.1" in jetpack.found
    assert jetpack.command == "flash JetPack 6.2 or 7.2 with NVIDIA's SDK Manager"
    assert "CUDA up to 11.4" in found.one("driver").found


def test_jetpack_6_with_a_venv_that_does_not_see_its_tensorrt(tmp_path: Path) -> None:
    found = examine(jetpack6(tmp_path))
    assert found.works == ["cpu"]
    assert found.one("JetPack", Level.OK).found == (
        "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3: JetPack 6.1 or 6.2, with CUDA 12.6, TensorRT 10.3"
    )
    tensorrt = found.one("TensorRT")
    assert tensorrt.found == "10.3.0 in /usr/lib/python3.10/dist-packages, which this Python does not see"
    assert tensorrt.command == "python3 -m venv --system-site-packages --upgrade .venv"
    assert found.devices["tensorrt"].says.startswith("TensorRT: 10.3.0 in /usr/lib")
    assert found.one("kernels", Level.NOTE).command == "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12"
    assert found.one("ONNX Runtime", Level.NOTE).command == "jetson-containers run $(autotag onnxruntime)"


def test_jetpacks_tensorrt_is_for_the_python_of_its_ubuntu(tmp_path: Path) -> None:
    found = examine(jetpack6(tmp_path, python=(3, 12, 3)))
    tensorrt = found.one("TensorRT")
    assert tensorrt.expected == "Python 3.10, which JetPack's TensorRT is built for; this is 3.12.3"
    assert tensorrt.command == "python3.10 -m venv --clear --system-site-packages .venv"


@pytest.mark.parametrize(("version", "fits"), [("12.9", True), ("13.2", False)])
def test_jetpack_6_takes_the_compiler_of_cuda_12(tmp_path: Path, version: str, fits: bool) -> None:
    machine = jetpack6(tmp_path, answers={"nvrtc": nvrtc(version), "kernels": KERNELS})
    machine.install("cuda-core", "1.2.2")
    machine.install("cuda-bindings", f"{version}.0")
    found = examine(machine)
    if fits:
        assert (
            "compile and load: cuda-core 1.2.2, cuda-bindings 12.9.0, NVRTC 12.9"
            in found.one("kernels", Level.OK).found
        )
    else:
        kernels = found.one("kernels")
        assert "the driver runs CUDA up to 12.6" in kernels.found
        assert kernels.command == "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12"


def test_engines_wait_for_what_drives_the_gpu(tmp_path: Path) -> None:
    machine = thor(tmp_path)
    for question in ("nvrtc", "kernels"):
        machine.answers[question] = ABSENT
    found = examine(machine)
    assert found.works == ["cpu"]
    assert found.one("kernels", Level.NOTE).command == "pip install 'gapcam[cuda]'"
    assert found.devices["tensorrt"].says.startswith("kernels: neither cuda-core nor PyCUDA is installed")


def test_kernels_that_do_not_load_keep_every_gpu_device_from_working(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"kernels": Answer(error="error 209: no kernel image")})
    found = examine(machine)
    assert found.works == ["cpu"]
    assert found.one("kernels").found.endswith("on the GPU: error 209: no kernel image")


def test_bindings_and_compiler_of_two_majors(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"nvrtc": nvrtc("12.9")})
    assert examine(machine).one("kernels").expected == "cuda-bindings and NVRTC of one major version"


def test_a_gpu_before_turing_needs_the_compiler_of_cuda_12(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"driver": driver((13, 0), ("NVIDIA TITAN V", (7, 0), 12))})
    kernels = examine(machine).one("kernels")
    assert "does not compile for NVIDIA TITAN V (SM 7.0)" in kernels.found
    assert kernels.command == "pip install 'cuda-core[cu12]' nvidia-cuda-nvrtc-cu12"


def test_thor_runs_engines_and_pypis_onnxruntime_gpu_is_not_for_it(tmp_path: Path) -> None:
    found = examine(thor(tmp_path))
    assert found.works == ["cpu", "tensorrt"]
    assert found.devices["tensorrt"].says == "engine files: TensorRT 10.13.3.9"
    runtime = found.one("ONNX Runtime")
    assert "neither CUDA code for NVIDIA Thor (SM 11.0) nor TensorRT" in runtime.found
    assert runtime.command == "jetson-containers run $(autotag onnxruntime)"
    assert found.problems == ["ONNX Runtime"]


def test_jetpack_7_2_on_an_orin_has_no_problem(tmp_path: Path) -> None:
    found = examine(jetpack7_orin(tmp_path))
    assert (found.problems, found.works) == ([], ["cpu", "tensorrt"])
    assert "JetPack 7.2, with CUDA 13.2, TensorRT 10.16" in found.one("JetPack", Level.OK).found


def test_a_driver_of_cuda_12_does_not_run_what_is_built_with_cuda_13(tmp_path: Path) -> None:
    found = examine(desktop(tmp_path))
    assert found.works == ["cpu"]
    assert found.problems == ["kernels", "ONNX Runtime"]
    runtime = found.one("ONNX Runtime")
    assert "built with CUDA 13.0; the driver runs CUDA up to 12.4" in runtime.found
    assert runtime.expected == "driver 580 or newer, or a package for CUDA 12"
    assert runtime.command == "pip install 'onnxruntime-gpu[cuda,cudnn]<1.27'"
    assert found.one("driver", Level.OK).found == (
        "driver 550.54.15, CUDA up to 12.4; NVIDIA GeForce RTX 3080, SM 8.6, 10.0 GiB"
    )


def test_under_a_driver_of_cuda_11_the_only_command_is_that_of_the_driver(tmp_path: Path) -> None:
    machine = new_desktop(
        tmp_path,
        answers={
            "driver": driver((11, 4), ("NVIDIA GeForce RTX 3080", (8, 6), 10)),
            "device cuda": Answer(error="CUDA failure 35"),
            "kernels": Answer(error="the driver is too old"),
            "tensorrt": ABSENT,
            "pycuda": Answer(values={"version": "2026.1", "cuda": "13.0"}),
        },
    )
    found = examine(machine)
    assert {"kernels", "ONNX Runtime", "PyCUDA"} <= set(found.problems)
    commands = {finding.subject: finding.command for finding in found.findings if finding.command}
    assert commands == {"driver": "sudo ubuntu-drivers install"}
    assert found.one("kernels").expected == "a newer driver, first"
    machine.install("onnxruntime", "1.31.1")
    two = [finding for finding in examine(machine).findings if "in one folder" in finding.found]
    assert [one.command for one in two] == ["pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"]


def test_a_broken_numpy_is_named_before_what_it_breaks(tmp_path: Path) -> None:
    broken = Answer(error="numpy/core is damaged")
    questions = ("numpy", "opencv", "onnxruntime", "nvrtc", "kernels", "device cpu", "device cuda")
    answers = {**dict.fromkeys(questions, broken), "onnxruntime": Answer(error="import numpy failed")}
    found = examine(new_desktop(tmp_path, answers=answers))
    assert found.problems[0] == "NumPy"
    assert set(found.problems) == {"NumPy", "OpenCV", "ONNX Runtime", "kernels"}
    assert [finding.command for finding in found.findings if finding.level is Level.PROBLEM] == [
        "pip install --force-reinstall numpy", None, None, None,
    ]  # fmt: skip
    assert found.devices["cuda"].says.startswith("NumPy: does not load")


def test_what_ran_lacks_no_library(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path)
    for library in (tmp_path / machine.site.lstrip("/") / "nvidia/cu13/lib").glob("libcublas*"):
        library.unlink()
    assert "ONNX Runtime" not in examine(machine).problems


def test_cudnn_is_named_though_the_cuda_provider_does_not_link_it(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"device cuda": Answer(error="cuDNN library was not found")})
    (tmp_path / machine.site.lstrip("/") / "nvidia/cudnn/lib/libcudnn.so.9").unlink()
    assert examine(machine).one("ONNX Runtime").found == "its CUDA provider lacks libcudnn.so.9"


def test_libraries_that_other_packages_bring_for_themselves_are_not_counted(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"device cuda": Answer(error="libcudart.so.13: cannot open")})
    site = tmp_path / machine.site.lstrip("/")
    (site / "nvidia/cu13/lib/libcudart.so.13").unlink()
    machine.libraries(f"{machine.site}/onnxruntime_ep_nv_tensorrt_rtx", ["libcudart.so.13.4.36"])
    machine.libraries(f"{machine.site}/torch/lib", ["libcudart.so.13"])
    assert examine(machine).one("ONNX Runtime").found == "its CUDA provider lacks libcudart.so.13"


def test_what_the_driver_brings_is_not_asked_of_pip(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"device cuda": Answer(error="a failure")})
    machine.install_onnxruntime(
        "onnxruntime-gpu", "1.31.1", cuda="13.0", providers={"cuda": ["libcudart.so.13", "libnvidia-ml.so.1"]}
    )
    assert "ONNX Runtime" not in examine(machine).problems


def test_the_tensorrt_provider_links_tensorrt_10_and_pips_newest_is_11(tmp_path: Path) -> None:
    found = examine(new_desktop(tmp_path))
    assert found.works == ["cpu", "cuda", "tensorrt"]
    runtime = found.one("ONNX Runtime", Level.NOTE)
    assert runtime.found == (
        "its TensorRT provider links libnvinfer.so.10, libnvonnxparser.so.10; here is libnvinfer.so.11"
    )
    assert runtime.command == "pip install 'tensorrt-cu13==10.*'"
    assert found.one("ONNX Runtime", Level.OK).found.endswith("libraries are there for: CPU, CUDA")


def test_missing_cuda_libraries_are_named_with_the_extra_that_brings_them(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"device cuda": Answer(error="libcublasLt.so.13: cannot open")})
    for library in (tmp_path / machine.site.lstrip("/") / "nvidia/cu13/lib").glob("libcublas*"):
        library.unlink()
    found = examine(machine)
    runtime = found.one("ONNX Runtime")
    assert runtime.found == "its CUDA provider lacks libcublasLt.so.13, libcublas.so.13"
    assert runtime.command == "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"
    assert found.devices["cuda"] == Device(name="cuda", works=False, says=f"ONNX Runtime: {runtime.found}")


def test_onnxruntime_and_onnxruntime_gpu_in_one_folder(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path)
    machine.install("onnxruntime", "1.31.1")
    runtime = examine(machine).one("ONNX Runtime")
    assert "its files are those of onnxruntime-gpu" in runtime.found
    assert runtime.command == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.28'"
    )


def test_both_opencvs_in_one_folder(tmp_path: Path) -> None:
    machine = wsl(tmp_path)
    for name in ("opencv-python", "opencv_python_headless"):
        machine.install(name, "4.12.0")
    opencv = examine(machine).one("OpenCV", Level.NOTE)
    assert opencv.found == "opencv-python and opencv-python-headless in one folder"


def test_wsl_needs_windows_driver_on_the_loaders_path(tmp_path: Path) -> None:
    found = examine(wsl(tmp_path / "a", environ={"LD_LIBRARY_PATH": "/usr/lib/wsl/lib"}))
    assert found.facts.platform.wsl
    assert found.one("driver").command == "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH"
    without = wsl(tmp_path / "b")
    (without.root / "usr/lib/wsl/lib/libcuda.so.1").unlink()
    assert examine(without).one("driver").command == "wsl.exe --shutdown"


def test_a_container_without_the_drivers_libraries(tmp_path: Path) -> None:
    found = examine(container(tmp_path))
    assert found.works == ["cpu"]
    assert found.one("driver").command == "docker run --gpus all ..."
    assert found.devices["cuda"].says.startswith("driver: in a container")


@pytest.mark.parametrize(
    ("file", "environ", "name"),
    [
        (".dockerenv", {}, "docker"),
        ("run/.containerenv", {}, "podman"),
        ("etc/hosts", {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ("etc/hosts", {}, None),
    ],
)
def test_containers_are_recognised(tmp_path: Path, file: str, environ: dict[str, str], name: str | None) -> None:
    machine = RecordedMachine(tmp_path, environ=environ)
    machine.write(file, "")
    assert gather(machine).platform.container == name


def test_a_distribution_without_metadata_is_left_out(tmp_path: Path) -> None:
    machine = RecordedMachine(tmp_path)
    machine.write(f"{machine.site}/tensorrt-10.0.dist-info/RECORD", "")
    machine.install("numpy", "2.2.6")
    assert list(gather(machine).distributions) == ["numpy"]


def test_a_gpu_without_a_driver(tmp_path: Path) -> None:
    machine = desktop(tmp_path, answers={"driver": Answer(error="libcuda.so.1: cannot open shared object file")})
    found = examine(machine).one("driver")
    assert found.found.startswith("an NVIDIA GPU and no driver for it")
    assert found.command == "sudo ubuntu-drivers install"


def test_no_gpu_at_all_is_no_problem(tmp_path: Path) -> None:
    machine = RecordedMachine(tmp_path)
    machine.install_onnxruntime("onnxruntime", "1.31.1")
    found = examine(machine)
    assert (found.problems, found.works) == ([], ["cpu"])
    assert found.devices["tensorrt"].says == "driver: no NVIDIA GPU and no driver here"


def test_device_files_that_may_not_be_opened(tmp_path: Path) -> None:
    machine = jetpack6(tmp_path, closed=["/dev/nvmap"], answers={"driver": driver((12, 6), code=999)})
    found = examine(machine).one("driver")
    assert found.found == "this user may not open /dev/nvmap"
    assert found.command == "sudo usermod -aG video,render $USER"


@pytest.mark.parametrize(
    ("code", "command"),
    [
        (35, "sudo reboot"),
        (100, "unset CUDA_VISIBLE_DEVICES"),
        (802, "sudo systemctl enable --now nvidia-fabricmanager"),
        (803, "sudo reboot"),
        (804, "sudo apt remove 'cuda-compat-*'"),
        (999, "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm"),
        (3, None),
    ],
)
def test_what_cuinit_answers_is_explained(tmp_path: Path, code: int, command: str | None) -> None:
    found = examine(desktop(tmp_path, answers={"driver": driver((12, 4), code=code)}))
    problem = found.one("driver")
    assert problem.found.startswith(f"cuInit answers {code}")
    assert problem.command == command
    assert "cuda" not in found.works


@pytest.mark.parametrize("code", [3, 35, 802, 803, 804, 999])
def test_a_driver_that_answers_with_an_error_is_a_problem_where_no_hardware_is_seen(tmp_path: Path, code: int) -> None:
    found = examine(RecordedMachine(tmp_path, answers={"driver": driver((12, 4), code=code)})).one("driver")
    assert found.found.startswith(f"cuInit answers {code}")
    assert found.expected


@pytest.mark.parametrize("code", [0, 100])
def test_a_driver_without_a_gpu_is_no_problem(tmp_path: Path, code: int) -> None:
    machine = RecordedMachine(tmp_path, answers={"driver": driver((12, 4), code=code)})
    assert examine(machine).one("driver", Level.NOTE).found == "libcuda is here and no NVIDIA GPU"


@pytest.mark.parametrize(
    ("answer", "found", "command"),
    [
        (
            Answer(values={"version": "8.6.1", "loads": False, "why": "TensorRT 8.6.1 is installed"}),
            "8.6.1, which gapcam does not use",
            "pip install --upgrade tensorrt-cu12",
        ),
        (
            Answer(error="libnvinfer.so.10: cannot open"),
            "does not load: libnvinfer.so.10: cannot open",
            "pip install --force-reinstall tensorrt-cu12",
        ),
    ],
)
def test_tensorrt_without_a_distribution_s_metadata(tmp_path: Path, answer: Answer, found: str, command: str) -> None:
    tensorrt = examine(desktop(tmp_path, answers={"tensorrt": answer})).one("TensorRT")
    assert (tensorrt.found, tensorrt.command) == (found, command)


def test_tensorrt_8_is_refused_on_a_desktop_too(tmp_path: Path) -> None:
    machine = new_desktop(tmp_path, answers={"tensorrt": Answer(error="TensorRT 8.6.1 is installed")})
    (old,) = tmp_path.glob(machine.site.lstrip("/") + "/tensorrt-11*")
    for file in old.iterdir():
        file.unlink()
    old.rmdir()
    machine.install("tensorrt", "8.6.1")
    found = examine(machine)
    assert found.one("TensorRT").command == "pip install --upgrade tensorrt"
    assert "tensorrt" not in found.works


@pytest.mark.parametrize(("capability", "level"), [((8, 6), Level.OK), ((9, 0), Level.NOTE)])
def test_tensorrt_rtx_is_for_some_cards(tmp_path: Path, capability: tuple[int, int], level: Level) -> None:
    ready = Answer(values={"version": "1.7.1.116", "loads": True, "why": None})
    answers = {"driver": driver((13, 0), ("a card", capability, 24)), "tensorrt-rtx": ready}
    machine = new_desktop(tmp_path, answers=answers)
    if capability == (8, 6):  # else its absence is noted, too
        plugin = examine(machine).one("TensorRT-RTX", Level.NOTE)
        assert plugin.command == "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13"
    found = examine(machine)
    assert found.one("TensorRT-RTX", level).found.startswith("1.7.1.116")


def test_modules_built_for_numpy_1_are_named_with_what_mends_them(tmp_path: Path) -> None:
    old = Answer(error="built for NumPy 1, and this is NumPy 2")
    numpy = examine(jetpack6(tmp_path, answers={"pycuda": old, "opencv": old})).one("NumPy")
    assert numpy.found == "2.2.6, and built for NumPy 1 are: opencv, pycuda"
    assert numpy.command == "pip install 'numpy<2'"


def test_pycuda_built_with_a_newer_cuda_than_the_drivers(tmp_path: Path) -> None:
    machine = jetpack6(tmp_path, answers={"pycuda": Answer(values={"version": "2026.1", "cuda": "13.0"})})
    machine.install("pycuda", "2026.1")
    assert examine(machine).one("PyCUDA").expected == "PyCUDA built with CUDA 12"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    machine = RecordedMachine(tmp_path, cache="/etc/passwd/gapcam")
    machine.write("etc/passwd", "")
    cache = examine(machine).one("cache", Level.NOTE)
    assert cache.found == "/etc/passwd/gapcam: /etc/passwd is no folder"


def test_little_memory_is_named_where_engines_could_be_built(tmp_path: Path) -> None:
    machine = jetpack6(tmp_path)
    machine.write("proc/meminfo", "MemAvailable:    1048576 kB\n")
    assert examine(machine).one("memory", Level.NOTE).found == "1.0 GiB available"


def test_nothing_that_runs_a_model(tmp_path: Path) -> None:
    machine = RecordedMachine(tmp_path, answers={"device cpu": ABSENT, "onnxruntime": ABSENT})
    found = examine(machine)
    assert found.works == []
    assert found.one("ONNX Runtime").command == "pip install 'gapcam[cpu]'"
    assert found.devices["cpu"].says == "ONNX Runtime: not installed: no .onnx model can be run"


@pytest.mark.parametrize("make", MACHINES, ids=lambda make: make.__name__)
def test_the_report_fits_80_columns_and_commands_are_whole(
    tmp_path: Path, make: Callable[[Path], RecordedMachine]
) -> None:
    found = examine(make(tmp_path))
    lines = list(report(found.facts, list(found.devices.values()), found.findings))
    commands = {finding.command for finding in found.findings if finding.command}
    assert commands <= {line.strip() for line in lines}
    long = [line for line in lines if len(line) > 80 and line.strip() not in commands]
    assert long == []
    below = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in below if line and not line.startswith(" ")][:4] == list(found.devices)


@pytest.mark.parametrize("make", MACHINES, ids=lambda make: make.__name__)
def test_facts_survive_json_and_give_the_same_findings(tmp_path: Path, make: Callable[[Path], RecordedMachine]) -> None:
    found = examine(make(tmp_path))
    text = msgspec.json.encode(found.facts)
    again = msgspec.json.decode(text, type=Facts)
    assert again == found.facts
    assert judge(again) == found.findings
    assert json.loads(text)["driver"]["error"] == found.facts.driver.error
