"""NVML's channels, through `nvidia-ml-py`, on a shared library that answers in its place: see host_nvml.c."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from gapcam_bench.telemetry.nvml import THROTTLE_REASONS, nvml, nvml_driver, nvml_gpus

CHILD = """
import ctypes, json, sys
import msgspec
from gapcam_bench.telemetry.nvml import nvml, nvml_driver, nvml_gpus
reader = nvml(json.loads(sys.argv[1]))
found = {
    "channels": [msgspec.to_builtins(channel) for channel in reader.channels],
    "readings": [reader.read(), reader.read()],
    "lacking": reader.lacking,
    "gpus": [msgspec.to_builtins(gpu) for gpu in nvml_gpus()],
    "driver": nvml_driver(),
}
reader.close()
found["opened"] = ctypes.CDLL("libnvidia-ml.so.1").host_nvml_opened()
print(json.dumps(found))
"""
LACKS_ON_A_JETSON = {
    "energy", "power", "temperature", "sm clock", "memory clock", "utilisation", "memory",
    *(f"throttle: {name}" for name in THROTTLE_REASONS),
}  # fmt: skip


@pytest.fixture(scope="session")
def library(shared_folder: Path) -> Path:
    """The folder of a libnvidia-ml that is no GPU's."""
    return compiled(shared_folder / "host_nvml", {"host_nvml.c": "libnvidia-ml.so.1"})


@pytest.fixture(scope="session")
def with_driver(shared_folder: Path) -> Path:
    """The same with a libcuda that numbers the devices the other way round."""
    sources = {"host_nvml.c": "libnvidia-ml.so.1", "host_cuda_order.c": "libcuda.so.1"}
    return compiled(shared_folder / "host_nvml_cuda", sources)


def compiled(folder: Path, libraries: dict[str, str]) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: cc compiles the libraries that answer in the driver's place")
    with FileLock(f"{folder}.lock"):
        folder.mkdir(exist_ok=True)
        for source, name in libraries.items():
            if not (folder / name).exists():
                command = [
                    compiler,
                    "-shared",
                    "-fPIC",
                    "-Wall",
                    "-Wextra",
                    "-Werror",
                    "-o",
                    str(folder / "unfinished"),
                ]
                subprocess.run([*command, str(Path(__file__).with_name(source))], check=True)
                (folder / "unfinished").rename(folder / name)
    return folder


def asked(
    library: Path, inside: str | None = None, visible: str | None = None, order: str | None = "PCI_BUS_ID"
) -> dict[str, Any]:
    """What a process says that finds the library where the driver's would be."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    environment["LD_LIBRARY_PATH"] = str(library)
    if order is not None:
        environment["CUDA_DEVICE_ORDER"] = order
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    command = [sys.executable, "-c", CHILD, json.dumps(inside)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_card_is_read_in_watts_joules_degrees_and_megahertz(library: Path) -> None:
    found = asked(library, visible="0")
    names = [channel["name"] for channel in found["channels"]]
    first, second = (dict(zip(names, values, strict=True)) for values in found["readings"])
    assert second["nvml0/energy"] - first["nvml0/energy"] == pytest.approx(2.5)
    for values in (first, second):
        del values["nvml0/energy"]
        assert values == {
            "nvml0/power": 71.5,
            "nvml0/temperature": 63.0,
            "nvml0/graphics clock": 1000.0,
            "nvml0/sm clock": 1100.0,
            "nvml0/memory clock": 1200.0,
            "nvml0/utilisation": 87.0,
            "nvml0/throttle: power cap": 1.0,
            "nvml0/throttle: hardware slowdown": 0.0,
            "nvml0/throttle: thermal slowdown": 0.0,
            "nvml0/throttle: hardware thermal slowdown": 1.0,
            "nvml0/throttle: power brake": 0.0,
            "nvml0/memory": 4.0 * 2**30,
        }
    assert found["lacking"] == {}
    assert found["opened"] == 0


def test_the_power_is_part_of_the_counter_and_both_of_what_contains_them(library: Path) -> None:
    def parts(found: dict[str, Any]) -> dict[str, str]:
        return {channel["name"]: channel["part_of"] for channel in found["channels"] if channel["part_of"]}

    assert parts(asked(library, visible="0")) == {"nvml0/power": "nvml0/energy"}
    within = parts(asked(library, "jetson/VIN", visible="0"))
    assert within == {"nvml0/power": "nvml0/energy", "nvml0/energy": "jetson/VIN"}


def test_what_a_gpu_refuses_is_lacking_field_by_field_and_says_why(library: Path) -> None:
    found = asked(library, visible="1")
    assert [channel["name"] for channel in found["channels"]] == ["nvml1/graphics clock"]
    assert found["readings"] == [[306.0], [306.0]]
    assert found["lacking"] == {f"nvml1/{name}": "Not Supported" for name in LACKS_ON_A_JETSON}


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["a card", "Orin (nvgpu)"]),
        ("1", ["Orin (nvgpu)"]),
        ("1, 0", ["Orin (nvgpu)", "a card"]),
        ("GPU-1d5d", ["Orin (nvgpu)"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["Orin (nvgpu)"]),
        ("MIG-0d5d5ba0", []),
    ],
)
def test_only_gpus_that_cuda_programs_see_are_read(library: Path, visible: str | None, names: list[str]) -> None:
    found = asked(library, visible=visible)
    assert [gpu["name"] for gpu in found["gpus"]] == names
    assert {channel["name"].partition("/")[0] for channel in found["channels"]} <= {"nvml0", "nvml1"}
    assert ("nvml" in found["lacking"]) == (not names)


def test_cards_that_differ_have_the_numbers_that_cuda_gives_them(library: Path, with_driver: Path) -> None:
    """CUDA's first is the fastest, NVML's the first on the bus."""
    found = asked(with_driver, order=None)
    assert [gpu["name"] for gpu in found["gpus"]] == ["Orin (nvgpu)", "a card"]
    assert {(one["name"].partition("/")[0], one["gpu"]) for one in found["channels"]} == {("nvml1", 0), ("nvml0", 1)}
    by_uuid = asked(library, visible="GPU-1d5d,GPU-0d5d", order=None)
    assert [gpu["name"] for gpu in by_uuid["gpus"]] == ["Orin (nvgpu)", "a card"]


@pytest.mark.parametrize("visible", [None, "0", "1,0"])
def test_where_it_cannot_be_told_which_card_is_which_none_is_read(library: Path, visible: str | None) -> None:
    found = asked(library, visible=visible, order=None)
    assert (found["channels"], found["gpus"]) == ([], [])
    assert found["lacking"] == {
        "nvml": "the GPUs differ, and which of them is CUDA's first cannot be told: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
    }


def test_a_part_of_a_gpu_is_said_to_be_one(library: Path) -> None:
    found = asked(library, visible="MIG-0d5d5ba0")
    assert found["channels"] == []
    assert found["lacking"] == {
        "nvml": "CUDA_VISIBLE_DEVICES names a part of a GPU (MIG): what one part takes is not measured"
    }


def test_gpus_are_described_with_what_they_do_not_say_left_out(library: Path) -> None:
    found = asked(library)
    assert found["driver"] == "550.54.15"
    card, jetson = found["gpus"]
    assert card == {
        "index": 0,
        "name": "a card",
        "driver": "550.54.15",
        "capability": "8.9",
        "memory_bytes": 24 * 2**30,
        "clocks_mhz": {"graphics": 1000, "sm": 1100, "memory": 1200},
        "most_clocks_mhz": {"graphics": 2000, "sm": 2100, "memory": 2200},
        "power_limit_w": 300.0,
        "temperature_c": 63,
    }
    assert (jetson["clocks_mhz"], jetson["capability"]) == ({"graphics": 306}, "8.7")
    assert [jetson[name] for name in ("memory_bytes", "most_clocks_mhz", "power_limit_w", "temperature_c")] == 4 * [
        None
    ]


def test_the_gpus_own_benchmark_reads_the_same(library: Path) -> None:
    code = (
        "from gapcam_bench import gpu_environment as one\n"
        "import json; print(json.dumps([one._nvml(0), one._nvml(1), one._nvml(2)]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"LD_LIBRARY_PATH": str(library), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    card, jetson, beyond = json.loads(ran.stdout)
    assert (card["driver"], card["power_limit_w"], card["temperature_c"]) == ("550.54.15", 300.0, 63)
    assert jetson == {"driver": "550.54.15", "clocks_mhz": {"graphics": 306}}
    assert beyond == {}


def test_without_the_driver_or_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = nvml()
    if reader.channels:
        reader.close()
        pytest.skip("there is a GPU here")
    assert reader.lacking == {"nvml": "NVML: NVML Shared Library Not Found"}
    assert (nvml_gpus(), nvml_driver(), reader.read()) == ((), None, ())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml().lacking == {"nvml": "nvidia-ml-py is not installed: pip install 'gapcam[bench]'"}
