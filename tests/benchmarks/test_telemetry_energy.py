"""Energy a frame and figures of channels, on series whose integrals are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gapcam_bench.result import ChannelFigures
from gapcam_bench.telemetry.energy import (
    LONGEST_GAP_S,
    channel_figures,
    energy_gaps,
    energy_of,
    power_capped,
    throttled,
)
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series, joined

START = 1_790_000_000.0  # about as large as real times are: what is lost of float64 there is lost here, too
TIME = START + np.arange(0, 60, 0.1)


def power(name: str, part_of: str | None = None) -> Channel:
    return Channel(name=name, quantity="power", source="ina3221", part_of=part_of)


def counter(name: str, part_of: str | None = None, wraps_at: float | None = None) -> Channel:
    return Channel(name=name, quantity="energy", source="rapl", counts=True, part_of=part_of, wraps_at=wraps_at)


def series_of(*pairs: tuple[Channel, NDArray[np.float64] | float], time: NDArray[np.float64] = TIME) -> Series:
    values = {channel.name: np.broadcast_to(np.float64(value), time.shape).copy() for channel, value in pairs}
    return Series(time=time, values=values, channels=tuple(channel for channel, _ in pairs), lacking={})


def span(began: float, ended: float) -> tuple[float, float]:
    return START + began, START + ended


def test_a_constant_power_gives_its_watts_whatever_the_edges() -> None:
    found = energy_of(series_of((power("rail"), 5.0)), [span(3.03, 7.57), span(20.001, 21.2)], frames=100)
    assert found is not None
    assert found.watts == pytest.approx(5.0)
    assert found.millijoules_a_frame == pytest.approx(1000 * 5.0 * (4.54 + 1.199) / 100, rel=1e-6)
    assert (found.channels, found.frames, found.above_idle) == (("rail",), 100, None)


def test_a_straight_line_is_integrated_exactly() -> None:
    """The integral of t from a to b is (b^2 - a^2) / 2."""
    found = energy_of(series_of((power("rail"), TIME - START)), [span(3.03, 7.57)], frames=1)
    assert found is not None
    assert found.millijoules_a_frame == pytest.approx(1000 * (7.57**2 - 3.03**2) / 2, rel=1e-6)


def test_a_wave_is_integrated_to_the_error_of_the_trapezoid() -> None:
    """Its error is at most (b - a) h^2 / 12 times the greatest second derivative."""
    found = energy_of(series_of((power("rail"), 10 + 3 * np.sin(TIME - START))), [span(1, 31)], frames=1)
    assert found is not None
    truth = 10 * 30 + 3 * (np.cos(1) - np.cos(31))
    assert found.millijoules_a_frame / 1000 == pytest.approx(truth, abs=30 * 0.1**2 / 12 * 3)


def test_readings_at_uneven_times_count_by_their_time() -> None:
    random = np.random.default_rng(0)
    time = START + np.cumsum(random.uniform(0.01, 0.8, 200))
    found = energy_of(series_of((power("rail"), time - START), time=time), [span(5, 50)], frames=1)
    assert found is not None
    assert found.millijoules_a_frame == pytest.approx(1000 * (50**2 - 5**2) / 2, rel=1e-6)


def test_a_counter_gives_its_difference_with_interpolated_edges() -> None:
    found = energy_of(series_of((counter("package"), 1e5 + 7 * (TIME - START))), [span(3.03, 7.57)], frames=10)
    assert found is not None
    assert found.millijoules_a_frame == pytest.approx(1000 * 7 * 4.54 / 10, rel=1e-6)


def test_a_counter_that_begins_anew_loses_nothing() -> None:
    wraps_at = 262143.32885
    truth = wraps_at - 100 + 65 * (TIME - START)
    found = energy_of(
        series_of((counter("package", wraps_at=wraps_at), truth % wraps_at)), [span(0.5, 50.5)], frames=1000
    )
    assert found is not None
    assert found.watts == pytest.approx(65.0, rel=1e-6)


def test_a_counter_that_was_reset_loses_one_interval_at_most() -> None:
    values = 1e5 + 65 * (TIME - START)
    values[300:] -= values[300] - 1.0
    found = energy_of(series_of((counter("nvml0/energy"), values)), [span(10, 50)], frames=1000)
    assert found is not None
    assert found.watts == pytest.approx(65.0, abs=65 * 0.1 / 40 + 0.1)
    assert found.watts > 0


def test_a_counter_that_was_set_anew_has_not_wrapped() -> None:
    """Suspended, or its driver loaded again: 162 kJ would be missing to its end, which is 20 kW over these 8 s."""
    ran = TIME - START
    values = np.where(ran < 5, 1e5 + 50 * ran, 50 * (ran - 5))
    both = series_of((counter("package", wraps_at=262143.3), values), (counter("other", wraps_at=262143.3), 10 * ran))
    found = energy_of(both, [span(6, 9)], frames=1)
    assert found is not None
    assert found.watts == pytest.approx(60.0)
    assert energy_of(series_of((counter("package", wraps_at=262143.3), values)), [span(1, 9)], frames=1) is None


def test_a_counter_that_is_renewed_in_steps_is_no_reset() -> None:
    """A card of 1 kW whose counter is renewed twice a second, read ten times a second."""
    values = 1e5 + 1000 * np.floor((TIME - START) * 2) / 2
    found = energy_of(series_of((counter("nvml0/energy"), values)), [span(1, 51)], frames=1)
    assert found is not None
    assert found.watts == pytest.approx(1000.0, rel=0.02)


def test_a_platform_that_shows_less_than_its_processor_is_not_believed() -> None:
    joules = TIME - START
    machine = series_of((counter("psys"), 60 * joules), (counter("package-0", "psys"), 100 * joules))
    found = energy_of(machine, [span(1, 11)], frames=1)
    assert found is not None
    assert found.channels == ("package-0",)


def test_no_joule_is_counted_twice() -> None:
    board = series_of(
        (power("VDD_IN"), 6.0), (power("VDD_CPU_GPU_CV", "VDD_IN"), 2.0), (power("VDD_SOC", "VDD_IN"), 1.5)
    )
    found = energy_of(board, [span(1, 11)], frames=10)
    assert found is not None
    assert found.channels == ("VDD_IN",)
    assert found.millijoules_a_frame == pytest.approx(6000.0)


def test_channels_beside_each_other_are_added() -> None:
    """AGX Orin: three rails, the fourth within the third; and a card in a desktop beside its processor."""
    agx = series_of((power("A"), 3.0), (power("B"), 0.5), (power("C"), 5.0), (power("D", "C"), 0.4))
    found = energy_of(agx, [span(1, 11)], frames=1)
    assert found is not None
    assert found.channels == ("A", "B", "C")
    assert found.watts == pytest.approx(8.5)
    joules = TIME - START
    desktop = series_of(
        (counter("rapl/package-0"), 50 * joules),
        (counter("rapl/package-0/core", "rapl/package-0"), 30 * joules),
        (counter("nvml0/energy"), 200 * joules),
        (power("nvml0/power", "nvml0/energy"), 210.0),
    )
    found = energy_of(desktop, [span(1, 11)], frames=1)
    assert found is not None
    assert found.channels == ("rapl/package-0", "nvml0/energy")
    assert found.watts == pytest.approx(250.0)


def test_a_container_that_stands_still_is_not_believed() -> None:
    joules = TIME - START
    machine = series_of(
        (counter("psys"), 0 * joules + 123.0),
        (counter("package-0", "psys"), 20 * joules),
        (counter("dram", "psys"), 2 * joules),
    )
    found = energy_of(machine, [span(1, 11)], frames=1)
    assert found is not None
    assert found.channels == ("package-0", "dram")
    assert found.watts == pytest.approx(22.0)


def test_a_rail_that_went_away_leaves_its_parts_or_nothing() -> None:
    whole = np.full(len(TIME), 6.0)
    whole[100:] = np.nan
    parts = (power("GPU", "VDD_IN"), 2.0), (power("SOC", "VDD_IN"), 1.0)
    found = energy_of(series_of((power("VDD_IN"), whole), *parts), [span(1, 30)], frames=1)
    assert found is not None
    assert found.channels == ("GPU", "SOC")
    assert energy_of(series_of((power("VDD_IN"), whole)), [span(1, 30)], frames=1) is None
    before = energy_of(series_of((power("VDD_IN"), whole)), [span(1, 9)], frames=1)
    assert before is not None
    assert before.watts == pytest.approx(6.0)


def test_a_reading_that_failed_now_and_then_changes_nothing() -> None:
    values = TIME - START
    values[::3] = np.nan
    found = energy_of(series_of((power("rail"), values)), [span(3.03, 7.57)], frames=1)
    assert found is not None
    assert found.millijoules_a_frame == pytest.approx(1000 * (7.57**2 - 3.03**2) / 2, rel=1e-6)


@pytest.mark.parametrize("spans", [[], [span(-30, -20)], [span(100, 110)], [span(50, 70)], [span(-5, 5)], [span(5, 5)]])
def test_a_time_that_was_not_read_has_no_energy(spans: list[tuple[float, float]]) -> None:
    assert energy_of(series_of((power("rail"), 5.0)), spans, frames=10) is None


def test_a_gap_within_a_span_is_not_guessed_over() -> None:
    holed = np.concatenate([TIME[:200], TIME[200:] + LONGEST_GAP_S])
    assert energy_of(series_of((power("rail"), 5.0), time=holed), [span(5, 40)], frames=1) is None
    assert energy_of(series_of((power("rail"), 5.0), time=holed), [span(5, 15), span(30, 40)], frames=1) is not None


GONE = np.where((TIME > START + 31) & (TIME < START + 33.5), np.nan, 200.0)


@pytest.mark.parametrize(
    ("channels", "before"),
    [
        pytest.param([(power("package"), 20.0), (power("gpu0"), GONE)], ("package", "gpu0"), id="a card"),
        pytest.param(
            [(power("VDD_IN"), np.nan), (power("a", "VDD_IN"), 20.0), (power("gpu0", "VDD_IN"), GONE)],
            ("a", "gpu0"),
            id="a part that stands in",
        ),
        pytest.param(
            [(power("psys"), 0.0), (power("gpu0", "psys"), GONE)], ("gpu0",), id="the only part of what stands still"
        ),
        pytest.param(
            [(power("package"), 20.0), (power("gpu0"), GONE), (power("rail", "gpu0"), np.nan)],
            ("package", "gpu0"),
            id="a card without parts",
        ),
    ],
)
def test_a_device_that_was_not_read_throughout_is_not_left_out_of_the_sum(
    channels: list[tuple[Channel, NDArray[np.float64] | float]], before: tuple[str, ...]
) -> None:
    series = series_of(*channels)
    whole = energy_of(series, [span(1, 21)], frames=1000)
    assert whole is not None
    assert whole.channels == before
    assert energy_gaps(series, [span(1, 21)]) == ()
    assert energy_of(series, [span(25, 45)], frames=1000) is None
    (sentence,) = energy_gaps(series, [span(25, 45)])
    assert sentence.startswith("no energy: gpu0 was not read throughout (for more than 2 s")


def test_a_container_that_can_be_believed_stands_for_parts_that_were_not_read() -> None:
    board = series_of((power("VDD_IN"), 220.0), (power("a", "VDD_IN"), 20.0), (power("gpu0", "VDD_IN"), GONE))
    found = energy_of(board, [span(25, 45)], frames=1000)
    assert found is not None
    assert found.channels == ("VDD_IN",)
    assert energy_gaps(board, [span(25, 45)]) == ()


def test_a_channel_that_never_gave_a_reading_is_not_missed() -> None:
    series = series_of((power("package"), 20.0), (power("gpu0"), np.nan))
    found = energy_of(series, [span(25, 45)], frames=1000)
    assert found is not None
    assert found.channels == ("package",)
    assert energy_gaps(series, [span(25, 45)]) == ()


def test_without_power_there_is_none_and_not_zero() -> None:
    clock = Channel(name="cpu0/clock", quantity="clock", source="cpufreq")
    assert energy_of(series_of((clock, 1000.0)), [span(1, 11)], frames=1) is None
    assert energy_of(series_of(), [span(1, 11)], frames=1) is None
    assert energy_of(series_of((power("rail"), 5.0)), [span(1, 11)], frames=0) is None


def test_above_idle_is_without_what_was_taken_before() -> None:
    watts = np.where(TIME < START + 10, 4.0, 7.0)
    found = energy_of(series_of((power("rail"), watts)), [span(20, 30)], frames=100, idle=[span(1, 5), span(6, 9)])
    assert found is not None
    assert found.millijoules_a_frame == pytest.approx(1000 * 7.0 * 10 / 100)
    assert found.above_idle == pytest.approx(1000 * 3.0 * 10 / 100)
    unread = energy_of(series_of((power("rail"), watts)), [span(20, 30)], frames=100, idle=[span(-9, -5)])
    assert unread is not None
    assert unread.above_idle is None


def test_figures_of_channels_are_those_of_the_readings_within_the_spans() -> None:
    values = TIME - START
    values[55] = np.nan
    events = Channel(name="package0/throttle", quantity="throttle", source="procfs", counts=True)
    gone = Channel(name="thermal/cv0", quantity="temperature", source="thermal")
    clock = Channel(name="cpu0/clock", quantity="clock", source="cpufreq")
    found = channel_figures(
        series_of((clock, values), (events, np.floor(TIME - START + 0.05)), (gone, np.nan)),
        [span(4.95, 6.05), span(8, 9)],
    )
    inside = [v for v in np.round(values, 6) if 4.95 <= v <= 6.05 or 8 <= v <= 9]
    assert found["cpu0/clock"] == ChannelFigures(
        mean=pytest.approx(np.mean(inside)),
        least=pytest.approx(5.0),
        greatest=pytest.approx(9.0),
        rise=None,
        readings=len(inside),
    )
    assert found["package0/throttle"].rise == 2.0 + 1.0  # events: none is a part of one
    assert found["package0/throttle"].mean is None
    assert set(found) == {"cpu0/clock", "package0/throttle"}


def test_throttling_is_told_where_it_was_and_only_there() -> None:
    state = Channel(name="nvml0/throttle: hardware slowdown", quantity="throttle", source="nvml")
    limit = Channel(name="nvml0/throttle: power cap", quantity="throttle", source="nvml")
    events = Channel(name="jetson/oc3 over-current", quantity="throttle", source="hwmon", counts=True)
    capped = np.where((TIME > START + 20) & (TIME < START + 25), 1.0, 0.0)
    counted = np.where(TIME > START + 22, 5.0, 3.0)
    series = series_of((state, capped), (events, counted), (limit, capped))
    assert throttled(series, [span(1, 15), span(30, 40)]) == ()
    assert power_capped(series, [span(1, 15), span(30, 40)]) == ()
    assert power_capped(series, [span(15.05, 35.05)]) == (
        "clocks were held down: nvml0/throttle: power cap in 24% of 200 readings",
    )
    assert throttled(series, [span(15.05, 35.05)]) == (
        "clocks were held down: nvml0/throttle: hardware slowdown in 24% of 200 readings",
        "clocks were held down: jetson/oc3 over-current rose by 2 while this was measured",
    )


@pytest.mark.parametrize("at", [2.0, 2.04, 2.11, 2.25, 2.41, 2.4999])
def test_a_single_event_within_a_short_block_is_found(at: float) -> None:
    events = Channel(name="jetson/oc3 over-current", quantity="throttle", source="hwmon", counts=True)
    time = START + np.arange(0, 10, 0.1) + 0.03
    series = series_of((events, (time >= START + at).astype(float)), time=time)
    assert throttled(series, [span(2.0, 2.5), span(5.0, 5.5)]) == (
        "clocks were held down: jetson/oc3 over-current rose by 1 while this was measured",
    )
    assert throttled(series, [span(1.0, 1.5), span(5.0, 5.5)]) == ()
    found = channel_figures(series, [span(2.0, 2.5), span(5.0, 5.5)])
    assert found["jetson/oc3 over-current"].rise == 1.0


def test_an_event_between_blocks_far_from_readings_is_nobodys() -> None:
    events = Channel(name="jetson/oc3 over-current", quantity="throttle", source="hwmon", counts=True)
    time = np.concatenate([START + np.arange(0, 5, 0.1), START + np.arange(20, 30, 0.1)])
    series = series_of((events, (time >= START + 10).astype(float)), time=time)
    assert throttled(series, [span(1, 4), span(20.05, 25)]) == ()
    assert throttled(series, [span(2, 21)]) != ()


def test_pieces_of_a_resumed_run_are_one_series() -> None:
    first = series_of((power("A"), 1.0), time=START + np.arange(0, 10, 0.1))
    second = series_of((power("A"), 2.0), (power("B"), 3.0), time=START + np.arange(100, 110, 0.1))
    both = joined([second, first])
    assert np.all(np.diff(both.time) > 0)
    assert [one.name for one in both.channels] == ["A", "B"]
    assert np.isnan(both.values["B"][:100]).all()
    found = energy_of(both, [span(101, 109)], frames=1)
    assert found is not None
    assert found.channels == ("A", "B")
    assert found.watts == pytest.approx(5.0)
    assert energy_of(both, [span(1, 9), span(101, 109)], frames=1) is None, "B is not known of the first"
    assert len(joined([]).time) == 0
