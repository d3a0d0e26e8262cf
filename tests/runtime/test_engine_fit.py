"""An engine runs where it was built for; elsewhere each difference is a line."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_headers import a_header
from msgspec.structs import replace as changed

from gapcam.engine_file import BuildOptions, EngineHeader
from gapcam.engine_fit import DeviceFacts, covers, differences, this_platform
from gapcam.tensorrt_module import version_numbers

ORIN = DeviceFacts(
    runtime="tensorrt",
    runtime_version="10.13.3.9",
    platform="linux-aarch64",
    architecture="sm_87",
    device="Orin",
    cuda_driver=(12, 6),
)
RTX = a_header(
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    platform="linux-x86_64",
    targets=("sm_86", "sm_89"),
    device="",
    cuda_driver=None,
)
DESKTOP = DeviceFacts(
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    platform="linux-x86_64",
    architecture="sm_89",
    cuda_driver=(13, 0),
)


def test_an_engine_fits_the_device_that_it_was_built_on() -> None:
    assert differences(a_header(), ORIN) == []
    assert differences(RTX, DESKTOP) == []


def test_packages_that_leave_the_build_number_out_are_the_same_version() -> None:
    assert differences(a_header(runtime_version="10.3.0"), replace(ORIN, runtime_version="10.3.0.26")) == []


def test_all_that_differs_is_named() -> None:
    other = DeviceFacts(
        runtime="tensorrt",
        runtime_version="10.3.0",
        platform="linux-x86_64",
        architecture="sm_110",
        cuda_driver=(11, 4),
    )
    assert differences(a_header(), other) == [
        "it was built with TensorRT 10.13.3.9, and here is 10.3.0",
        "it was built for linux-aarch64, and this is linux-x86_64",
        "it was built for sm_87 (on Orin), and this GPU is sm_110",
        "it was built under a driver for CUDA 12.6, and this driver runs CUDA 11.4 at most",
    ]


def test_the_other_runtime_is_one_difference_whatever_its_version() -> None:
    assert differences(a_header(), replace(ORIN, runtime="tensorrt-rtx", runtime_version="1.7.1")) == [
        "it is an engine of TensorRT, and TensorRT-RTX was to run it"
    ]


def compatible() -> EngineHeader:
    return changed(a_header(), options=BuildOptions(version_compatible=True))


@pytest.mark.parametrize(
    ("version", "runs"), [("10.13.3.9", True), ("10.14.1", True), ("10.3.0", False), ("11.0.0", False)]
)
def test_a_version_compatible_engine_runs_on_later_versions_of_the_same_major(version: str, runs: bool) -> None:
    assert (differences(compatible(), replace(ORIN, runtime_version=version)) == []) is runs


@pytest.mark.parametrize(
    ("target", "architecture", "runs"),
    [
        ("sm_87", "sm_87", True),
        ("sm_86", "sm_87", False),
        ("sm_80+", "sm_80", True),
        ("sm_80+", "sm_120", True),
        ("sm_80+", "sm_75", False),
        ("sm_120", "sm_12", False),
    ],
)
def test_a_target_is_one_architecture_or_that_and_all_later(target: str, architecture: str, runs: bool) -> None:
    assert covers(target, architecture) is runs


ADA = a_header(platform="linux-x86_64", targets=("sm_89",), device="NVIDIA GeForce RTX 4090", options=BuildOptions())
RTX_4090 = replace(ORIN, platform="linux-x86_64", architecture="sm_89", device="NVIDIA GeForce RTX 4090")


@pytest.mark.parametrize("other", ["NVIDIA L4", "NVIDIA GeForce RTX 4060", "NVIDIA GeForce RTX 4090 Laptop GPU"])
def test_another_gpu_of_the_same_architecture_needs_an_engine_that_was_built_for_both(other: str) -> None:
    here = replace(RTX_4090, device=other)
    assert differences(ADA, RTX_4090) == []
    (said,) = differences(ADA, here)
    assert said.startswith(f"it was built for NVIDIA GeForce RTX 4090, and this GPU is {other}, of the same arch")
    assert said.endswith("is built with --hardware-compatible same-compute-capability")
    for options in (
        BuildOptions(hardware_compatibility="same-compute-capability"),
        BuildOptions(hardware_compatibility="ampere-plus"),
        BuildOptions(targets=("89",)),
    ):
        assert differences(changed(ADA, options=options), here) == []
    assert differences(changed(ADA, device=""), here) == []
    assert differences(ADA, replace(here, device="")) == []


def test_another_architecture_is_one_difference_whatever_the_gpu_s_name() -> None:
    (said,) = differences(ADA, replace(RTX_4090, architecture="sm_86", device="NVIDIA GeForce RTX 3090"))
    assert said == "it was built for sm_89 (on NVIDIA GeForce RTX 4090), and this GPU is sm_86"


@pytest.mark.parametrize(
    ("built", "here"),
    [
        ("Orin", "Orin"),  # each of AGX Orin, Orin NX and Orin Nano
        ("Orin", "NVIDIA Orin (nvgpu)"),
        ("NVIDIA Thor", "Thor"),
        ("GeForce RTX 3090", "NVIDIA GeForce RTX 3090"),
    ],
)
def test_a_gpu_that_another_driver_names_otherwise_is_the_same(built: str, here: str) -> None:
    header = changed(a_header(options=BuildOptions()), device=built)
    assert differences(header, replace(ORIN, device=here)) == []


def test_engines_of_tensorrt_rtx_are_for_every_gpu_of_their_targets() -> None:
    assert differences(changed(RTX, device="NVIDIA L4"), replace(DESKTOP, device="NVIDIA GeForce RTX 4090")) == []


def test_an_engine_for_two_targets_runs_on_either_and_on_no_third() -> None:
    for architecture, runs in (("sm_86", True), ("sm_89", True), ("sm_120", False)):
        assert (differences(RTX, replace(DESKTOP, architecture=architecture)) == []) is runs
    (said,) = differences(RTX, replace(DESKTOP, architecture="sm_75"))
    assert said == "it was built for sm_86, sm_89, and this GPU is sm_75"


def test_what_is_not_known_of_a_device_is_not_compared() -> None:
    assert differences(a_header(), replace(ORIN, architecture="", cuda_driver=None)) == []


def test_engines_of_tensorrt_rtx_go_from_linux_to_windows_and_those_of_tensorrt_do_not() -> None:
    assert differences(RTX, replace(DESKTOP, platform="windows-x86_64")) == []
    header = a_header(platform="linux-x86_64")
    assert differences(header, replace(ORIN, platform="windows-x86_64")) == [
        "it was built for linux-x86_64, and this is windows-x86_64"
    ]


def test_this_platform_has_a_system_and_a_processor() -> None:
    system, processor = this_platform().split("-")
    assert system == platform.system().lower()
    assert processor in (platform.machine().lower(), "x86_64", "aarch64")


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.13.3.9", (10, 13, 3, 9)), ("10.3.0rc1", (10, 3, 0)), ("1.7", (1, 7)), ("", ())]
)
def test_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def imported(folder: Path, runtime: str, **modules: str) -> str:
    """What `import_tensorrt` says where these modules' files stand in for the real ones."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from gapcam.errors import GapcamError\nfrom gapcam.tensorrt_module import import_tensorrt\n"
        f"try: print('has', import_tensorrt({runtime!r}).__version__)\n"
        "except GapcamError as error: print(int(error.exit_code), error)\n"
    )
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("version", ["8.6.2", "8.5.2.2", "9.1.0.post12.dev4"])
def test_old_tensorrt_is_refused_with_the_reason(tmp_path: Path, version: str) -> None:
    said = imported(tmp_path, "tensorrt", tensorrt=f"__version__ = {version!r}")
    assert said.startswith(f"6 TensorRT {version} is installed; gapcam needs 10 or later, for networks whose types are")
    assert "8 before (JetPack 5 and 6.0)" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1.7"])
def test_later_tensorrt_is_taken(tmp_path: Path, version: str) -> None:
    assert imported(tmp_path, "tensorrt", tensorrt=f"__version__ = {version!r}") == f"has {version}"


def test_tensorrt_whose_libraries_are_absent_says_which(tmp_path: Path) -> None:
    missing = "raise ImportError('libnvinfer.so.10: cannot open shared object file: No such file or directory')"
    said = imported(tmp_path, "tensorrt", tensorrt=missing)
    assert said.startswith("6 TensorRT's Python module tensorrt is installed and cannot be loaded: libnvinfer.so.10")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import something_else_that_is_absent", "No module named 'something_else_that_is_absent'"),
        (
            "raise RuntimeError('CUDA initialization failure with error:\\n 35')",
            "CUDA initialization failure with error: 35",
        ),
        ("raise SystemError", "SystemError"),
    ],
)
def test_whatever_tensorrts_module_raises_is_a_line(tmp_path: Path, text: str, reason: str) -> None:
    for runtime, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx_bindings")):
        said = imported(tmp_path, runtime, **{module: text})
        assert f"Python module {module} is installed and cannot be loaded: {reason}. Install its libraries" in said
        assert said.startswith("6 ")
        assert len(said.splitlines()) == 1


def test_tensorrt_rtx_of_nvidias_archive_has_another_name(tmp_path: Path) -> None:
    gone = "raise ModuleNotFoundError('no', name='tensorrt_rtx_bindings')"
    said = imported(tmp_path, "tensorrt-rtx", tensorrt_rtx_bindings=gone, tensorrt_rtx="__version__ = '1.0.0.21'")
    assert said == "has 1.0.0.21"


def test_absent_runtimes_say_how_they_are_installed(tmp_path: Path) -> None:
    gone = "raise ModuleNotFoundError('no', name=__name__)"
    said = imported(tmp_path, "tensorrt", tensorrt=gone)
    assert said.startswith("6 TensorRT's Python module tensorrt is not installed for this Python. On a Jetson:")
    said = imported(tmp_path, "tensorrt-rtx", tensorrt_rtx_bindings=gone, tensorrt_rtx=gone)
    assert said.endswith("Install it with: pip install 'gapcam[tensorrt-rtx]'")
