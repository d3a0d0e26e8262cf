"""What a benchmark says that it ran on: machines' files, and this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import gapcam
from gapcam.doctor.facts import Driver, Gpu
from gapcam.environment import environment
from gapcam_bench.machine import CpuClocks, GpuFacts, JetsonFacts, Machine, cpu_clocks, gpu_facts, machine
from gapcam_bench.telemetry.nvml import NvmlGpu
from gapcam_bench.telemetry.nvpmodel import power_mode

Trees = Callable[[str], Path]

JETSONS = {
    "orin_nano": JetsonFacts(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        l4t="36.4.4",
        jetpack="6.1 or 6.2",
        power_mode="15W",
        jetson_clocks=False,
    ),
    "agx_orin": JetsonFacts(
        model="NVIDIA Jetson AGX Orin Developer Kit",
        l4t="35.4.1",
        jetpack="5.1",
        power_mode="MAXN",
        jetson_clocks=True,
    ),
    "xavier_nx": JetsonFacts(
        model="NVIDIA Jetson Xavier NX Developer Kit",
        l4t="32.7.1",
        jetpack="4",
        power_mode="MODE_15W_6CORE",
        jetson_clocks=False,
    ),
    "nano": JetsonFacts(
        model="NVIDIA Jetson Nano Developer Kit", l4t="32.7.1", jetpack="4", power_mode=None, jetson_clocks=False
    ),
    "thor": JetsonFacts(
        model="NVIDIA Jetson AGX Thor Developer Kit",
        l4t="38.4.0",
        jetpack="7.0 or 7.1",
        power_mode="120W",
        jetson_clocks=False,
    ),
}

CLOCKS = {
    "orin_nano": CpuClocks(
        governor="schedutil", now_mhz=(1190.4, 1344.0), range_mhz=(729.6, 1510.4), locked=False, boost=None
    ),
    "agx_orin": CpuClocks(
        governor="schedutil", now_mhz=(2201.6, 2201.6), range_mhz=(2201.6, 2201.6), locked=True, boost=None
    ),
    "intel_laptop": CpuClocks(
        governor="powersave", now_mhz=(800.021, 2900.123), range_mhz=(400.0, 3500.0), locked=False, boost=True
    ),
    "amd_desktop": CpuClocks(
        governor="schedutil", now_mhz=(3700.0, 3700.0), range_mhz=(2200.0, 3700.0), locked=False, boost=True
    ),
    "virtual_machine": CpuClocks(),
}


@pytest.mark.parametrize("name", sorted(JETSONS))
def test_a_jetson_is_told_with_its_software_and_its_power_mode(recorded_tree: Trees, name: str) -> None:
    assert machine(recorded_tree(name)).jetson == JETSONS[name]


@pytest.mark.parametrize("name", sorted(CLOCKS))
def test_governor_clocks_and_boost_are_those_of_cpufreq(recorded_tree: Trees, name: str) -> None:
    assert cpu_clocks(recorded_tree(name)) == CLOCKS[name]


def test_other_machines_are_no_jetsons(recorded_tree: Trees) -> None:
    for name in ("intel_laptop", "amd_desktop", "raspberry_pi_5", "virtual_machine"):
        found = machine(recorded_tree(name))
        assert (found.jetson, found.gpus, found.driver, found.cuda, found.tensorrt) == (None, (), None, None, None)
    assert found.memory_bytes == 24684084 * 1024
    assert found.distribution == "Debian GNU/Linux 12 (bookworm)"


def test_governors_that_differ_are_all_named(recorded_tree: Trees) -> None:
    root = recorded_tree("orin_nano")
    (root / "sys/devices/system/cpu/cpufreq/policy4/scaling_governor").write_text("performance\n")
    assert cpu_clocks(root).governor == "performance, schedutil"


def test_clocks_are_locked_only_where_all_are(recorded_tree: Trees) -> None:
    root = recorded_tree("orin_nano")
    (root / "sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq").write_text("1510400\n")
    assert cpu_clocks(root).locked is False
    (root / "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq").write_text("1510400\n")
    assert cpu_clocks(root).locked is True
    found = machine(root).jetson
    assert found is not None
    assert found.jetson_clocks is False  # the GPU's clock still moves
    (root / "sys/class/devfreq/17000000.gpu/min_freq").write_text("624750000\n")
    assert getattr(machine(root).jetson, "jetson_clocks", None) is True
    (root / "sys/class/devfreq/17000000.gpu/min_freq").unlink()
    assert getattr(machine(root).jetson, "jetson_clocks", False) is None  # the processor's alone do not tell


@pytest.mark.parametrize(
    ("status", "listed", "mode"),
    [
        ("pmode:0002\n", "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=20 NAME=x >\n", "MAXN_SUPER"),
        ("pmode:0002\n", "< POWER_MODEL ID=20 NAME=x >\n", "mode 2"),
        ("pmode:0002\n", None, "mode 2"),
        (None, "< POWER_MODEL ID=1 NAME=25W >\n< PM_CONFIG DEFAULT=1 >\n", "25W"),
        (None, "# < PM_CONFIG DEFAULT=1 >\n", None),
        (None, None, None),
    ],
)
def test_the_power_mode_is_the_one_that_nvpmodel_wrote(
    tmp_path: Path, status: str | None, listed: str | None, mode: str | None
) -> None:
    for path, text in {"var/lib/nvpmodel/status": status, "etc/nvpmodel.conf": listed}.items():
        if text is not None:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
    assert power_mode(tmp_path) == mode


def test_this_machine_is_told_with_its_engines() -> None:
    found = machine()
    here = environment()
    assert (found.environment.cpu, found.environment.cores) == (here.cpu, here.cores)
    assert found.environment.versions["gapcam"] == gapcam.__version__
    assert found.environment.versions.items() >= here.versions.items()
    assert {"scipy", "torch", "openvino"} <= set(found.environment.versions)
    assert "CPUExecutionProvider" in found.providers
    assert found.memory_bytes == pytest.approx(
        int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Machine) == found


def test_gpus_are_cudas_with_what_nvml_adds(tmp_path: Path) -> None:
    driver = Driver(gpus=tuple(Gpu(name=name, capability=(8, 9), memory=2**34) for name in ("B", "A", "B")))
    known = tuple(NvmlGpu(index=n, name=name, power_limit_w=100.0 + n) for n, name in enumerate(("A", "B", "B")))
    found = gpu_facts(tmp_path, driver, known, is_jetson=False)
    assert [(gpu.name, gpu.capability, gpu.power_limit_w) for gpu in found] == [
        ("B", "8.9", 101.0),
        ("A", "8.9", 100.0),
        ("B", "8.9", 102.0),
    ]
    alone = gpu_facts(tmp_path, Driver(), known[:1], is_jetson=False)
    assert alone == (GpuFacts(name="A", power_limit_w=100.0),)
    assert gpu_facts(tmp_path, driver, (), is_jetson=False)[1] == GpuFacts(
        name="A", capability="8.9", memory_bytes=2**34
    )


def test_a_jetsons_gpu_has_the_clocks_of_devfreq(recorded_tree: Trees) -> None:
    driver = Driver(gpus=(Gpu(name="Orin", capability=(8, 7), memory=2**33),))
    known = (NvmlGpu(index=0, name="Orin (nvgpu)", driver="540.4.0"),)
    (found,) = gpu_facts(recorded_tree("orin_nano"), driver, known, is_jetson=True)
    assert (found.name, found.clocks_mhz, found.most_clocks_mhz) == ("Orin", {"graphics": 306.0}, {"graphics": 624.75})
    assert found.locked is False
    (locked,) = gpu_facts(recorded_tree("agx_orin"), driver, (), is_jetson=True)
    assert locked.locked is True
