"""The thread that reads: what it gathers, and what it does when reading fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gapcam_bench.telemetry.jetson_sysfs import jetson_sysfs
from gapcam_bench.telemetry.readers import open_readers
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader
from gapcam_bench.telemetry.sampler import Sampler

DEADLINE_S = 60.0


def counting(name: str, closed: list[str]) -> GaugeReader:
    """Gives 1, 2, nothing, 4, 5, nothing and so on."""
    numbers = iter(range(1, 1_000_000))

    def read() -> float | None:
        number = next(numbers)
        return None if number % 3 == 0 else float(number)

    channel = Channel(name=name, quantity="power", source="ina3221")
    return GaugeReader([Gauge(channel, read)], {f"{name} lacking": "not there"}, close=lambda: closed.append(name))


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_all_readers_are_read_in_turn_and_a_failed_reading_is_nan() -> None:
    closed: list[str] = []
    before = time.time()
    with Sampler([counting("a", closed), counting("b", closed)], hz=200) as sampler:
        wait_until(lambda: len(sampler.series().time) >= 7)
        assert closed == []
    series = sampler.series()
    count = len(series.time)
    expected = [np.nan if n % 3 == 0 else n for n in range(1, count + 1)]
    np.testing.assert_array_equal(series.values["a"], expected)
    np.testing.assert_array_equal(series.values["b"], expected)
    assert np.all(np.diff(series.time) > 0)
    assert before <= series.time[0]
    assert series.time[-1] <= time.time()
    assert series.lacking == {"a lacking": "not there", "b lacking": "not there"}
    assert [channel.name for channel in series.channels] == ["a", "b"]
    assert closed == ["a", "b"]


def test_the_moment_of_leaving_is_read_too() -> None:
    with Sampler([counting("a", [])], hz=0.001) as sampler:
        wait_until(lambda: len(sampler.series().time) == 1)
        left = time.time()
    assert len(sampler.series().time) == 2
    assert sampler.series().time[-1] >= left


def test_no_thread_is_left() -> None:
    with Sampler(open_readers(), hz=100):
        assert "telemetry" in {thread.name for thread in threading.enumerate()}
    assert "telemetry" not in {thread.name for thread in threading.enumerate()}


def test_a_rail_that_disappears_is_nan_from_then_on(recorded_tree: Callable[[str], Path]) -> None:
    root = recorded_tree("orin_nano")
    with Sampler([jetson_sysfs(root)], hz=200) as sampler:
        wait_until(lambda: len(sampler.series().time) >= 3)
        (root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
        count = len(sampler.series().time)
        wait_until(lambda: len(sampler.series().time) >= count + 3)
    values = sampler.series().values["jetson/VDD_IN"]
    gone = np.isnan(values)
    assert not gone[:3].any()
    assert gone[-2:].all()
    assert np.all(np.diff(gone.astype(int)) >= 0)
    np.testing.assert_allclose(values[~gone], 6.62112)
    assert not np.isnan(sampler.series().values["jetson/VDD_SOC"]).any()


def test_a_reader_with_a_mistake_is_not_silently_missing() -> None:
    def wrong() -> float:
        raise ZeroDivisionError("a mistake")

    reader = GaugeReader([Gauge(Channel(name="a", quantity="power", source="x"), wrong)], {})
    with pytest.raises(ZeroDivisionError, match="a mistake"), Sampler([reader], hz=100):
        pass


def test_without_any_channel_there_are_no_readings() -> None:
    with Sampler([GaugeReader([], {"power": "not there"})], hz=100) as sampler:
        pass
    assert len(sampler.series().time) == 0
    assert sampler.series().lacking == {"power": "not there"}
