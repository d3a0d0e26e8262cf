"""What is read on machines whose files were put together after public documentation: see tests/benchmarks/sysfs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gapcam_bench.telemetry.jetson_stats import jetson_stats, jtop_gauges
from gapcam_bench.telemetry.jetson_sysfs import jetson_sysfs, part_of
from gapcam_bench.telemetry.kernel_file import read_number, read_text, why_not
from gapcam_bench.telemetry.rapl import rapl
from gapcam_bench.telemetry.readers import containing_gpus, open_readers
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader, Reader
from gapcam_bench.telemetry.thermal import thermal

Trees = Callable[[str], Path]

READ = {
    "orin_nano": {
        "cpu0/clock": 1344.0,
        "cpu4/clock": 1190.4,
        "memory/used": 1024.0 * 2_000_000,
        "thermal/cpu-thermal": 50.125,
        "thermal/gpu-thermal": 50.562,
        "thermal/tj-thermal": 50.562,
        "cooling/cpufreq-cpu0": 0.0,
        "cooling/devfreq-17000000.gpu": 0.0,
        "cooling/cpu-throttle-alert": 0.0,
        "jetson/VDD_IN": 6.62112,
        "jetson/VDD_CPU_GPU_CV": 1.241984,
        "jetson/VDD_SOC": 2.363776,
        "jetson/gpu clock": 306.0,
        "jetson/gpu utilisation": 14.3,
        "jetson/oc1 over-current": 0.0,
        "jetson/oc2 over-current": 0.0,
        "jetson/oc3 over-current": 3.0,
    },
    "agx_orin": {
        "cpu0/clock": 2201.6,
        "memory/used": 1024.0 * 2_000_000,
        "thermal/CPU-therm": 47.5,
        "thermal/GPU-therm": 44.156,
        "thermal/CV0-therm": None,
        "jetson/VDD_GPU_SOC": 3.36224,
        "jetson/VDD_CPU_CV": 0.48032,
        "jetson/VIN_SYS_5V0": 4.86864,
        "jetson/VDDQ_VDD2_1V8AO": 0.39744,
        "jetson/gpu clock": 1300.5,
        "jetson/gpu utilisation": 0.0,
    },
    "xavier_nx": {
        "cpu0/clock": 1190.4,
        "memory/used": 1024.0 * 2_000_000,
        "thermal/AO-therm": 35.0,
        "thermal/GPU-therm": 33.0,
        "jetson/VDD_IN": 3.902,
        "jetson/VDD_CPU_GPU_CV": 1.331,
        "jetson/VDD_SOC": 0.997,
        "jetson/gpu clock": 114.75,
        "jetson/gpu utilisation": 33.0,
    },
    "nano": {
        "cpu0/clock": 1479.0,
        "memory/used": 1024.0 * 2_659_268,
        "thermal/AO-therm": 45.5,
        "thermal/CPU-therm": 41.0,
        "thermal/GPU-therm": 38.0,
        "jetson/POM_5V_IN": 2.532,
        "jetson/POM_5V_GPU": 0.123,
        "jetson/POM_5V_CPU": 0.401,
        "jetson/gpu clock": 76.8,
        "jetson/gpu utilisation": 37.0,
    },
    "thor": {
        "cpu0/clock": 972.0,
        "memory/used": 1024.0 * 8_000_000,
        "thermal/cpu-thermal": 53.7,
        "jetson/VIN": 24.975,
        "jetson/VDD_GPU": 1.996,
        "jetson/VDD_CPU_SOC_MSS": 6.50696,
        "jetson/VIN_SYS_5V0": 6.5208,
        "jetson/gpu clock": 1575.0,
        "jetson/oc3 over-current": 1.0,
    },
    "intel_laptop": {
        "cpu0/clock": 2900.123,
        "cpu1/clock": 800.021,
        "package0/throttle": 34.0,
        "package0/core0/throttle": 12.0,
        "memory/used": 1024.0 * 4_000_000,
        "thermal/acpitz": 27.8,
        "thermal/acpitz (thermal_zone1)": 29.8,
        "thermal/x86_pkg_temp": 51.0,
        "coretemp/Package id 0": 51.0,
        "cooling/Processor": 0.0,
        "rapl/package-0": 9000.0,
        "rapl/package-0/core": 1000.0,
        "rapl/package-0/uncore": 500.0,
        "rapl/package-0/dram": 200.0,
        "rapl/psys": 20000.0,
    },
    "amd_desktop": {
        "cpu0/clock": 3700.0,
        "memory/used": 1024.0 * 2_000_000,
        "k10temp/Tctl": 47.875,
        "k10temp/Tccd1": 40.25,
        "rapl/package-0": 65532.0,
        "rapl/package-0/core": 12.345678,
    },
    "raspberry_pi_5": {
        "cpu0/clock": 2400.0,
        "memory/used": 1024.0 * 1_000_000,
        "thermal/cpu-thermal": 50.45,
        "rpi_volt/under-voltage": 1.0,
    },
    "virtual_machine": {"memory/used": 1024.0 * 505_576},
}

PARTS = {
    "orin_nano": {"jetson/VDD_CPU_GPU_CV": "jetson/VDD_IN", "jetson/VDD_SOC": "jetson/VDD_IN"},
    "agx_orin": {"jetson/VDDQ_VDD2_1V8AO": "jetson/VIN_SYS_5V0"},
    "xavier_nx": {"jetson/VDD_CPU_GPU_CV": "jetson/VDD_IN", "jetson/VDD_SOC": "jetson/VDD_IN"},
    "nano": {"jetson/POM_5V_GPU": "jetson/POM_5V_IN", "jetson/POM_5V_CPU": "jetson/POM_5V_IN"},
    "thor": dict.fromkeys(("jetson/VDD_GPU", "jetson/VDD_CPU_SOC_MSS", "jetson/VIN_SYS_5V0"), "jetson/VIN"),
    "intel_laptop": {
        "rapl/package-0": "rapl/psys",
        "rapl/package-0/core": "rapl/package-0",
        "rapl/package-0/uncore": "rapl/package-0",
        "rapl/package-0/dram": "rapl/psys",
    },
    "amd_desktop": {"rapl/package-0/core": "rapl/package-0"},
    "raspberry_pi_5": {},
    "virtual_machine": {},
}

LACKING = {
    "orin_nano": {"thermal/cv0-thermal": "not there"},
    "agx_orin": {},
    "xavier_nx": {"thermal/PMIC-Die": "always shows the same"},
    "nano": {"thermal/PMIC-Die": "always shows the same"},
    "thor": {"jetson/gpu utilisation": "not there"},
    "intel_laptop": {},
    "amd_desktop": {},
    "raspberry_pi_5": {"rapl": "no energy counters in /sys/class/powercap"},
    "virtual_machine": {
        "cpu/clock": "no cpufreq: the system does not say how its processors are clocked",
        "thermal": "the system shows no temperature",
        "rapl": "no energy counters in /sys/class/powercap",
    },
}


def channels_of(readers: list[Reader]) -> dict[str, Channel]:
    return {channel.name: channel for reader in readers for channel in reader.channels}


def values_of(readers: list[Reader]) -> dict[str, float | None]:
    return {
        channel.name: value for reader in readers for channel, value in zip(reader.channels, reader.read(), strict=True)
    }


@pytest.mark.parametrize("name", sorted(READ))
def test_every_channel_is_read_in_its_unit_and_nothing_else(recorded_tree: Trees, name: str) -> None:
    readers = open_readers(recorded_tree(name))
    found = values_of(readers)
    expected = {**READ[name], "cpu/utilisation": None, "cpu/steal": None}  # shares of time need two readings
    assert set(found) == set(expected)
    assert {name for name, value in found.items() if value is None} == {n for n, v in expected.items() if v is None}
    numbers = {name: value for name, value in expected.items() if value is not None}
    assert {name: found[name] for name in numbers} == pytest.approx(numbers, rel=1e-9)
    assert sum(len(reader.channels) for reader in readers) == len(found)  # no name twice


@pytest.mark.parametrize("name", sorted(PARTS))
def test_what_contains_what_is_known(recorded_tree: Trees, name: str) -> None:
    channels = channels_of(open_readers(recorded_tree(name)))
    assert {one.name: one.part_of for one in channels.values() if one.part_of is not None} == PARTS[name]
    assert set(PARTS[name].values()) <= set(channels)


@pytest.mark.parametrize("name", sorted(LACKING))
def test_what_is_lacking_says_why(recorded_tree: Trees, name: str) -> None:
    lacking = {name: why for reader in open_readers(recorded_tree(name)) for name, why in reader.lacking.items()}
    assert lacking == LACKING[name]


def test_rails_beside_each_other_are_part_of_nothing() -> None:
    xavier = ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]
    assert [part_of(rail, xavier) for rail in xavier] == 6 * [None]
    tx2 = ["VDD_SYS_GPU", "VDD_IN", "VDD_SYS_CPU", "VDD_MUX", "VDD_3V3_SYS"]
    assert [part_of(rail, tx2) for rail in tx2] == ["jetson/VDD_IN", None, "jetson/VDD_IN", None, "jetson/VDD_MUX"]


def test_shares_of_time_are_those_between_two_readings(recorded_tree: Trees) -> None:
    root = recorded_tree("virtual_machine")
    readers = open_readers(root)
    values_of(readers)
    stat = root / "proc/stat"
    times = [int(part) for part in stat.read_text().split()[1:9]]
    for place, more in enumerate((30, 0, 10, 40, 10, 0, 5, 5)):  # user, nice, system, idle, iowait, irq, softirq, steal
        times[place] += more
    stat.write_text("cpu  " + " ".join(map(str, times)) + " 0 0\n")
    found = values_of(readers)
    assert found["cpu/utilisation"] == pytest.approx(50.0)
    assert found["cpu/steal"] == pytest.approx(5.0)
    assert values_of(readers)["cpu/utilisation"] is None  # no time has passed


def test_a_rail_that_goes_away_is_nothing_and_not_zero_and_the_others_stay(recorded_tree: Trees) -> None:
    root = recorded_tree("orin_nano")
    reader = jetson_sysfs(root)
    (root / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    (root / "sys/class/hwmon/hwmon1/in3_input").write_text("")
    found = values_of([reader])
    assert found["jetson/VDD_CPU_GPU_CV"] is None
    assert found["jetson/VDD_SOC"] is None
    assert found["jetson/VDD_IN"] == pytest.approx(6.62112)
    (root / "sys/class/hwmon/hwmon1/curr2_input").write_text("248\n")
    assert values_of([reader])["jetson/VDD_CPU_GPU_CV"] == pytest.approx(1.241984)


def test_a_switched_off_zone_is_read_again_when_its_unit_runs(recorded_tree: Trees) -> None:
    zone = recorded_tree("orin_nano") / "sys/class/thermal/thermal_zone2/temp"
    os.mkfifo(zone)  # a pipe with a writer and no data answers EAGAIN, as such a zone does
    writer = os.open(zone, os.O_RDWR)
    try:
        assert why_not(zone) == "switched off"
        reader = thermal(zone.parents[4])
        assert "thermal/cv0-thermal" not in reader.lacking
        assert values_of([reader])["thermal/cv0-thermal"] is None
    finally:
        os.close(writer)
    zone.unlink()
    zone.write_text("48312\n")
    assert values_of([reader])["thermal/cv0-thermal"] == pytest.approx(48.312)


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Gives root's rights away where the tests run as root."""
    before = os.geteuid()
    try:
        yield lambda: os.seteuid(65534) if before == 0 else None
    finally:
        os.seteuid(before)


def test_a_counter_that_only_root_may_read_is_lacking_with_what_to_do(
    recorded_tree: Trees, as_nobody: Callable[[], None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (recorded_tree("amd_desktop") / "sys").rename(root / "sys")
        (root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
        as_nobody()
        reader = rapl(root)
        os.seteuid(os.getuid())
        assert [channel.name for channel in reader.channels] == ["rapl/package-0/core"]
        assert reader.lacking == {
            "rapl/package-0": "not permitted; as root: chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        }


def test_a_counter_knows_where_it_begins_anew(recorded_tree: Trees) -> None:
    (package, core) = rapl(recorded_tree("amd_desktop")).channels
    assert package.wraps_at == core.wraps_at == pytest.approx(65532.610987)
    assert package.counts
    assert core.counts


def test_a_laptops_cards_lie_within_its_platform_and_a_jetsons_within_its_board(recorded_tree: Trees) -> None:
    assert containing_gpus(recorded_tree("intel_laptop"), rapl(recorded_tree("intel_laptop"))) == "rapl/psys"
    assert containing_gpus(recorded_tree("amd_desktop"), rapl(recorded_tree("amd_desktop"))) is None
    laptop = recorded_tree("intel_laptop")
    (laptop / "sys/class/power_supply/BAT0/type").write_text("Mains\n")
    assert containing_gpus(laptop, rapl(laptop)) is None
    assert containing_gpus(recorded_tree("thor"), jetson_sysfs(recorded_tree("thor"))) == "jetson/VIN"
    agx = recorded_tree("agx_orin")
    assert containing_gpus(agx, jetson_sysfs(agx)) == "jetson/VDD_GPU_SOC"


def test_a_wireless_mouse_makes_no_laptop(recorded_tree: Trees) -> None:
    desktop = recorded_tree("intel_laptop")
    battery = desktop / "sys/class/power_supply/BAT0"
    (battery / "scope").write_text("System\n")
    assert containing_gpus(desktop, rapl(desktop)) == "rapl/psys"
    (battery / "scope").write_text("Device\n")
    assert containing_gpus(desktop, rapl(desktop)) is None


def test_of_many_clocks_some_are_read_and_the_rest_is_named(tmp_path: Path) -> None:
    for number in range(40):
        at = tmp_path / f"sys/devices/system/cpu/cpufreq/policy{number}"
        at.mkdir(parents=True)
        (at / "scaling_cur_freq").write_text(f"{1_000_000 + number}\n")
    (reader, *_) = open_readers(tmp_path)
    clocks = [channel.name for channel in reader.channels if channel.quantity == "clock"]
    assert clocks == [f"cpu{number}/clock" for number in range(0, 40, 3)]
    assert reader.lacking["cpu/other clocks"] == "of 40 clocks one in 3 is read"


@pytest.mark.parametrize(
    ("content", "value"), [("12 ma\n", 12.0), ("-256000\n", -256000.0), ("", None), ("N/A\n", None), ("\n", None)]
)
def test_a_number_is_what_the_file_begins_with(tmp_path: Path, content: str, value: float | None) -> None:
    at = tmp_path / "x"
    at.write_text(content)
    assert read_number(at) == value
    assert read_text(tmp_path / "y") is None
    assert why_not(tmp_path / "y") == "not there"


class JtopAnswers:
    """What `jtop` of jetson-stats 4 answers on an Orin Nano, as its documentation shows it: milliwatts, kHz."""

    def __init__(self) -> None:
        self.power = {
            "rail": {
                "VDD_CPU_GPU_CV": {"volt": 5008, "curr": 248, "power": 1241, "avg": 1240, "online": True},
                "VDD_SOC": {"volt": 5008, "curr": 472, "power": 2363, "avg": 2360, "online": True},
                "1-00081": {"volt": 5000, "curr": 0, "power": 0, "avg": 0, "online": True},
            },
            "tot": {"volt": 5016, "curr": 1320, "power": 6621, "avg": 6600, "name": "VDD_IN"},
        }
        self.temperature = {"cpu": {"temp": 50.1, "online": True}, "cv0": {"temp": -256, "online": False}}
        self.gpu = {"gpu": {"status": {"load": 14.3}, "freq": {"cur": 306000, "min": 306000, "max": 624750}}}


def test_the_service_of_jetson_stats_gives_the_same_channels_as_the_files() -> None:
    client = JtopAnswers()
    gauges = jtop_gauges(client)
    values = {one.channel.name: one.read() for one in gauges}
    assert values.pop("jetson/cv0 temperature") is None
    assert values == pytest.approx(
        {
            "jetson/VDD_IN": 6.621,
            "jetson/VDD_CPU_GPU_CV": 1.241,
            "jetson/VDD_SOC": 2.363,
            "jetson/cpu temperature": 50.1,
            "jetson/gpu utilisation": 14.3,
            "jetson/gpu clock": 306.0,
        }
    )
    parts = {one.channel.name: one.channel.part_of for one in gauges if one.channel.part_of}
    assert parts == PARTS["orin_nano"]
    del client.power["rail"]["VDD_SOC"]
    client.gpu = {}
    client.temperature["cv0"] = {"temp": 49.5, "online": True}
    gone = {one.channel.name for one in gauges if one.read() is None}
    assert gone == {"jetson/VDD_SOC", "jetson/gpu utilisation", "jetson/gpu clock"}


def test_what_a_service_said_before_it_died_is_not_read_as_what_is() -> None:
    client, clock = JtopAnswers(), [100.0]
    gauges = jtop_gauges(client, now=lambda: clock[0])
    values = [one.read() for one in gauges]
    clock[0] += 3.0
    assert [one.read() for one in gauges] == values
    clock[0] += 0.1
    assert {one.read() for one in gauges} == {None}
    client.power = dict(client.power)  # it answers again
    assert [one.read() for one in gauges] == values
    client.is_alive = lambda: False
    assert {one.read() for one in gauges} == {None}


@pytest.mark.parametrize(
    ("stage", "power", "why"),
    [
        ("jtop", {}, "its service cannot be read: RuntimeError()"),
        ("start", {}, "its service cannot be read: RuntimeError()"),
        ("ok", {}, "its service cannot be read: RuntimeError()"),
        ("", ({"cur": 1}, {"VDD_IN": {"cur": 5000}}), "its service cannot be read: tuple indices must be integers"),
        ("", {"rail": {}, "tot": {}}, "its service shows no power"),
    ],
)
def test_a_service_of_another_version_or_without_answers_ends_nothing(
    stage: str, power: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 3's power is a pair; a lost connection is raised by `ok`."""
    closed: list[bool] = []

    class Client:
        def __init__(self) -> None:
            self.power, self.temperature, self.gpu = power, {}, {}
            self.reach("jtop")

        def reach(self, here: str) -> bool:
            if here == stage:
                raise RuntimeError
            return True

        def start(self) -> None:
            self.reach("start")

        def ok(self, *, spin: bool) -> bool:
            assert spin
            return self.reach("ok")

        def close(self) -> None:
            closed.append(True)

    module = ModuleType("jtop")
    module.jtop = Client
    monkeypatch.setitem(sys.modules, "jtop", module)
    found = jetson_stats()
    assert found is not None
    assert found.channels == ()
    assert found.lacking["jetson-stats"].startswith(why)
    assert len(closed) == (stage != "jtop")


def test_without_jetson_stats_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    assert jetson_stats() is None


def test_channels_of_the_same_name_are_numbered_and_none_is_dropped() -> None:
    gauges = [
        Gauge(Channel(name=name, quantity="temperature", source="x"), lambda value=value: value)
        for name, value in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("a", 4.0))
    ]
    reader = GaugeReader(gauges, {})
    assert values_of([reader]) == {"a": 1.0, "b": 2.0, "a (2)": 3.0, "a (3)": 4.0}


def test_of_two_platform_counters_none_is_taken_for_the_machine(recorded_tree: Trees) -> None:
    root = recorded_tree("intel_laptop")
    second = root / "sys/class/powercap/intel-rapl:2"
    second.mkdir()
    for name, text in (("name", "psys-1"), ("energy_uj", "5"), ("max_energy_range_uj", "262143328850")):
        (second / name).write_text(f"{text}\n")
    reader = rapl(root)
    assert [one.name for one in reader.channels if one.part_of is None] == ["rapl/package-0", "rapl/package-0/dram"]
    assert set(reader.lacking) == {"rapl/psys (intel-rapl:1)", "rapl/psys-1 (intel-rapl:2)"}
