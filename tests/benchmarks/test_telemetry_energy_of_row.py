"""Whose energy a row's is, on machines whose channels are known: none of another device, and none without its own."""

from __future__ import annotations

import numpy as np
import pytest

from gapcam_bench.telemetry.energy_of_row import energy_of_row, notes_on_energy
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series

TIME = np.arange(0, 20, 0.1)
SPANS = [(1.0, 9.0), (11.0, 19.0)]
CLOSED = "not permitted; as root: chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"


def counter(name: str, part_of: str | None = None, gpu: int | None = None) -> Channel:
    source = name.partition("/")[0].rstrip("0123456789")
    return Channel(name=name, quantity="energy", source=source, counts=True, part_of=part_of, gpu=gpu)


def rail(name: str, part_of: str | None = None) -> Channel:
    return Channel(name=f"jetson/{name}", quantity="power", source="ina3221", part_of=part_of)


def series_of(watts: dict[Channel, float], lacking: dict[str, str] | None = None) -> Series:
    values = {
        channel.name: np.full(len(TIME), each) if channel.quantity == "power" else 1000 + each * TIME
        for channel, each in watts.items()
    }
    return Series(time=TIME, values=values, channels=tuple(watts), lacking=lacking or {})


def found(series: Series, device: str) -> tuple[tuple[str, ...], float, list[str]] | tuple[None, None, list[str]]:
    """Channels, watts and notes of a row on that device."""
    energy = energy_of_row(series, SPANS, 100, device=device)
    notes = list(notes_on_energy(series, SPANS, device=device))
    return (None, None, notes) if energy is None else (energy.channels, pytest.approx(energy.watts), notes)


CARD, SECOND = counter("nvml0/energy", gpu=0), counter("nvml1/energy", gpu=1)
PACKAGE = counter("rapl/package-0")


def test_an_idle_card_is_not_what_the_processor_took() -> None:
    alone = series_of({CARD: 20.0}, {"rapl/package-0": CLOSED})
    assert found(alone, "cpu") == (
        None,
        None,
        [f"no energy: the processor's cannot be read (rapl/package-0: {CLOSED})"],
    )
    both = series_of({PACKAGE: 60.0, CARD: 20.0})
    assert found(both, "cpu") == (("rapl/package-0",), 60.0, [])


def test_a_cards_row_without_the_processors_energy_says_what_is_in_it() -> None:
    alone = series_of({CARD: 200.0}, {"cpu/clock": "none", "rapl/package-0": CLOSED})
    said = f"energy is of nvml0/energy alone; the processor's cannot be read (rapl/package-0: {CLOSED})"
    for device in ("cuda", "cuda:0", "tensorrt", "tensorrt-rtx:0"):
        assert found(alone, device) == (("nvml0/energy",), 200.0, [said])
    assert found(series_of({PACKAGE: 60.0, CARD: 200.0}), "cuda") == (("rapl/package-0", "nvml0/energy"), 260.0, [])


def test_cards_that_did_not_do_the_work_are_left_out() -> None:
    """CUDA's numbers count, and not those that NVML has."""
    eight = {counter(f"nvml{7 - number}/energy", gpu=number): 70.0 + number for number in range(8)}
    machine = series_of({PACKAGE: 100.0} | eight)
    assert found(machine, "cuda:3") == (("rapl/package-0", "nvml4/energy"), 173.0, [])
    assert found(machine, "cpu") == (("rapl/package-0",), 100.0, [])


def test_a_gpus_row_has_no_energy_without_the_gpus() -> None:
    lacking = {"nvml": "nvidia-ml-py is not installed: pip install 'gapcam[bench]'"}
    said = f"no energy: the GPU's cannot be read (nvml: {lacking['nvml']})"
    assert found(series_of({PACKAGE: 60.0}, lacking), "cuda") == (None, None, [said])


def test_a_processors_cores_are_not_the_processor() -> None:
    core = counter("rapl/package-0/core", "rapl/package-0")
    channels, _, notes = found(series_of({core: 5.0}, {"rapl/package-0": "not there"}), "cpu")
    assert channels is None
    assert notes == ["no energy: the processor's cannot be read (rapl/package-0: not there)"]


def test_a_boards_rail_holds_both() -> None:
    orin = series_of({rail("VDD_IN"): 9.0, rail("VDD_CPU_GPU_CV", "jetson/VDD_IN"): 4.0})
    agx = series_of({rail("VDD_GPU_SOC"): 3.0, rail("VDD_CPU_CV"): 1.0, rail("VIN_SYS_5V0"): 5.0})
    for device in ("cpu", "cuda", "tensorrt"):
        assert found(orin, device) == (("jetson/VDD_IN",), 9.0, [])
        assert found(agx, device) == (("jetson/VDD_GPU_SOC", "jetson/VDD_CPU_CV", "jetson/VIN_SYS_5V0"), 9.0, [])


def test_a_laptops_platform_holds_its_card() -> None:
    psys = counter("rapl/psys")
    laptop = series_of({psys: 80.0, counter("nvml0/energy", "rapl/psys", 0): 50.0})
    assert found(laptop, "cuda") == (("rapl/psys",), 80.0, [])
    assert found(laptop, "cpu") == (("rapl/psys",), 80.0, [])
    desktop = series_of({psys: 80.0}, {"nvml": "NVML: Driver Not Loaded"})
    assert found(desktop, "cuda")[0] is None


def test_a_machine_that_shows_no_power_says_so_once_and_not_at_every_row() -> None:
    assert found(series_of({}, {"rapl": "no energy counters in /sys/class/powercap"}), "cpu") == (None, None, [])


def test_a_counter_that_was_set_anew_is_named() -> None:
    series = series_of({PACKAGE: 60.0, CARD: 200.0})
    series.values["rapl/package-0"][50:] -= 1e5
    again = Channel(name="rapl/package-0", quantity="energy", source="rapl", counts=True, wraps_at=262143.3)
    series = Series(time=series.time, values=series.values, channels=(again, CARD), lacking={})
    said = "was set anew while this was measured (the machine slept, or its driver was loaded again)"
    assert found(series, "cpu") == (None, None, [f"no energy: rapl/package-0 {said}"])


def test_another_cards_gap_is_nothing_to_a_row() -> None:
    series = series_of({PACKAGE: 60.0, CARD: 200.0, SECOND: 90.0})
    series.values["nvml1/energy"][40:80] = np.nan
    assert found(series, "cuda") == (("rapl/package-0", "nvml0/energy"), 260.0, [])
    assert found(series, "cuda:1")[0] is None
