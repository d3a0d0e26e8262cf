"""The scenarios of gapcam's own generator, in simulated time: every figure is exact, and worked out another way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.errors import MissingExtraError, UsageError
from gapcam_bench.block import ScenarioSettings, WarmUp
from gapcam_bench.cell import Cell, ScenarioName
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios import driver
from gapcam_bench.scenarios.camera import LEAD_IN_S, moment_ns, newest_frame
from gapcam_bench.scenarios.clock import HostClock
from gapcam_bench.scenarios.measured import Measured
from gapcam_bench.scenarios.run import run_scenario, takes_loadgen
from gapcam_bench.scenarios.simulation import PlannedSubject, SimulatedClock, planned_pictures

MS = 1_000_000
LIMITS = Limits()
OWN = ScenarioSettings(generator="own")


def simulated(
    scenario: ScenarioName,
    service_ns: Callable[[int, int], int],
    *,
    batch: int = 1,
    limits: Limits = LIMITS,
    settings: ScenarioSettings = OWN,
    pictures: int = 5,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> tuple[WarmUp, Measured, PlannedSubject]:
    clock = SimulatedClock()
    subject = PlannedSubject(clock, service_ns)
    cell = Cell(model="planned", scenario=scenario, batch=batch)
    warm_up, measured = run_scenario(
        subject, planned_pictures(pictures), cell, limits, settings, progress=progress, clock=clock
    )
    return warm_up, measured, subject


def varying(at: int, _: int) -> int:
    """10 ms, more or less, without a pattern that repeats soon."""
    return 10 * MS + (at * 7919) % MS


def test_single_stream_measures_every_query_after_the_warm_up_and_none_before() -> None:
    # the first ten are slow, as first inferences are
    warm_up, measured, subject = simulated("single-stream", lambda at, n: varying(at, n) * (9 if at < 10 else 1))
    assert warm_up.stable
    assert warm_up.samples >= 20
    planned = np.array([varying(at, 1) for at in range(warm_up.samples, len(subject.served))])
    np.testing.assert_array_equal(measured.wall["total"], planned)
    np.testing.assert_array_equal(measured.wall["inference"], planned)
    np.testing.assert_array_equal(measured.at, np.cumsum(planned) - planned)  # nothing between one and the next
    assert measured.facts.seconds == pytest.approx(planned.sum() * 1e-9, rel=1e-12)
    assert (measured.facts.generator, measured.facts.frames_per_sample) == ("gapcam", 1)


@pytest.mark.parametrize(
    ("limits", "samples"),
    [
        (Limits(least_seconds=2, least_samples=20), 20),  # 100 ms each: both at once
        (Limits(least_seconds=0.5, least_samples=20), 20),  # time is over first
        (Limits(least_seconds=3, least_samples=20), 30),  # samples are there first
        (Limits(least_seconds=0, least_samples=1), 1),
        (Limits(least_seconds=2, least_samples=500, most_seconds=4), 40),  # cut off
        (Limits(least_seconds=2, least_samples=20, most_seconds=0.01), 1),  # never none
    ],
)
@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_it_measures_the_least_time_and_the_least_samples_and_ends_at_the_most_time(
    scenario: ScenarioName, limits: Limits, samples: int
) -> None:
    _, measured, _ = simulated(scenario, lambda _at, _n: 100 * MS, limits=limits)
    assert len(measured.at) == samples


def test_pictures_are_taken_in_turn_batch_after_batch() -> None:
    _, measured, subject = simulated("single-stream", varying, batch=3)
    names = [name for served in subject.served for name in served]
    assert names == [str(at % 5) for at in range(len(names))]
    assert {len(served) for served in subject.served} == {3}
    assert measured.facts.frames_per_sample == 3


def test_multi_stream_adds_up_the_inferences_of_a_query() -> None:
    settings = ScenarioSettings(generator="own", streams=8)
    warm_up, measured, subject = simulated("multi-stream", lambda at, n: at * 1000 + n * MS, batch=3, settings=settings)
    assert [len(served) for served in subject.served[:6]] == [3, 3, 2, 3, 3, 2]
    first = 3 * warm_up.samples
    expected = [8 * MS + sum(range(at, at + 3)) * 1000 for at in range(first, len(subject.served), 3)]
    np.testing.assert_array_equal(measured.wall["total"], expected)
    np.testing.assert_array_equal(measured.wall["inference"], expected)
    assert measured.facts.frames_per_sample == 8


def test_offlines_throughput_is_of_the_whole_run() -> None:
    _, measured, _ = simulated("offline", lambda _at, n: n * 4 * MS, batch=16)
    frames = len(measured.at) * measured.facts.frames_per_sample
    assert frames / measured.facts.seconds == pytest.approx(250, rel=1e-9)


def watched_camera(fps: float, services: list[int], lead_in: int) -> tuple[list[int], list[int], int]:
    """Ages, moments and drops by stepping through every arrival: what happens in a box that holds the newest frame."""
    free_at, newest, ages, moments, dropped = 0, None, [], [], 0
    frame = 1
    todo = list(services)
    while todo:
        arrives = round(frame * 1e9 / fps)
        if newest is not None and free_at < arrives:  # the subject came back before this one: it takes what is there
            begins = max(free_at, round(newest * 1e9 / fps))
            free_at = begins + todo.pop(0)
            if newest > lead_in:
                ages.append(free_at - round(newest * 1e9 / fps))
                moments.append(round(newest * 1e9 / fps))
            newest = None
            continue
        if newest is not None and newest > lead_in:
            dropped += 1
        newest, frame = frame, frame + 1
    return ages, moments, dropped


@pytest.mark.parametrize("fps", [10.0, 15.0, 29.97, 240.0])
@pytest.mark.parametrize("millis", [3, 66, 67, 130, 251])
def test_camera_ages_and_drops_are_those_of_a_box_that_holds_the_newest_frame(fps: float, millis: int) -> None:
    def service(at: int, _: int) -> int:
        return millis * MS + (at * 7919) % (millis * MS // 2)

    warm_up, measured, subject = simulated("camera", service, settings=ScenarioSettings(generator="own", fps=fps))
    lead_in = int(LEAD_IN_S * fps)
    services = [service(at, 1) for at in range(warm_up.samples, len(subject.served))]
    ages, moments, dropped = watched_camera(fps, services, lead_in)
    np.testing.assert_array_equal(measured.wall["age"], ages)
    np.testing.assert_array_equal(measured.at, np.array(moments) - round(lead_in * 1e9 / fps))
    assert measured.facts.dropped == dropped
    assert measured.facts.offered == dropped + len(ages)
    assert measured.facts.rate == fps


def test_camera_by_hand_with_a_subject_that_takes_two_and_a_half_intervals() -> None:
    # 10 fps, 250 ms: frame 1 at 100 is answered at 350; the newest is then frame 3, at 300: answered at 600; then
    # frame 6, at 600, answered at 850; then frame 8, at 800: answered at 1100, then 11, and so on.
    _, measured, _ = simulated(
        "camera", lambda _at, _n: 250 * MS, settings=ScenarioSettings(generator="own", fps=10), limits=Limits()
    )
    ages = measured.wall["age"] / MS
    # of the lead-in's 5 frames, 1 and 3 are run; frame 6 is the first that counts
    np.testing.assert_array_equal(ages[:6], [250, 300, 250, 300, 250, 300])
    np.testing.assert_array_equal(measured.at[:4] / MS, [100, 300, 600, 800])
    assert measured.facts.offered is not None
    assert measured.facts.dropped == measured.facts.offered - len(ages)
    assert measured.facts.dropped / measured.facts.offered == pytest.approx(0.6, abs=0.02)


def test_a_camera_that_is_kept_up_with_drops_nothing_and_waits_for_nothing() -> None:
    _, measured, _ = simulated("camera", varying, batch=2, settings=ScenarioSettings(generator="own", fps=15))
    np.testing.assert_array_equal(measured.wall["age"], measured.wall["total"])
    assert measured.facts.dropped == 0
    assert measured.facts.offered == 2 * len(measured.at)


@given(st.integers(0, 10**13), st.floats(0.01, 10_000, allow_nan=False))
def test_the_newest_frame_has_arrived_and_the_next_has_not(elapsed: int, fps: float) -> None:
    newest = newest_frame(elapsed, fps)
    assert moment_ns(newest, fps) <= elapsed < moment_ns(newest + 1, fps)


def test_nothing_is_collected_as_garbage_while_it_runs_and_all_is_as_before_afterwards() -> None:
    seen = set()

    def service(_at: int, _n: int) -> int:
        seen.add(gc.isenabled())
        return 10 * MS

    assert gc.isenabled()
    simulated("single-stream", service)
    assert seen == {False}
    assert gc.isenabled()

    def breaks(_at: int, _n: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        simulated("single-stream", breaks)
    assert gc.isenabled()


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server", "camera"])
def test_progress_goes_from_warming_up_to_measuring_and_stays_between_0_and_1(scenario: ScenarioName) -> None:
    told: list[tuple[str, float]] = []
    simulated(scenario, varying, progress=lambda what, done: told.append((what, done)))
    assert told[0][0] == "warming up"
    assert told[-1][0] != "warming up"
    assert all(0 <= done <= 1 for _, done in told)
    measuring = [done for what, done in told if what == "measuring"]
    assert measuring == sorted(measuring)


def test_without_a_picture_or_with_an_unknown_scenario_it_says_so() -> None:
    with pytest.raises(UsageError, match="no picture"):
        simulated("single-stream", varying, pictures=0)
    with pytest.raises(UsageError, match="scenario is 'batch'; give one of single-stream, multi-stream"):
        simulated("batch", varying)  # type: ignore[arg-type]


def test_which_generator_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert takes_loadgen("auto", "server")
    assert takes_loadgen("mlcommons", "server")
    assert not takes_loadgen("own", "server")
    assert not takes_loadgen("mlcommons", "camera")
    with pytest.raises(UsageError, match="generator is 'mlperf'; give auto, own or mlcommons"):
        takes_loadgen("mlperf", "server")
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)  # as if it were not installed
    assert not takes_loadgen("auto", "server")
    with pytest.raises(MissingExtraError, match=r"gapcam\[loadgen\]"):
        takes_loadgen("mlcommons", "server")


def test_the_hosts_clock_never_returns_before_the_moment() -> None:
    clock = HostClock()
    for wait in (0, 50_000, 300_000, 3_000_000):
        moment = clock.now_ns() + wait
        clock.sleep_until_ns(moment)
        assert clock.now_ns() >= moment
    began = clock.now_ns()
    clock.sleep_until_ns(began - MS)  # over: it does not wait


@pytest.mark.parametrize("pause_is_before", [True, False])
def test_a_pause_between_two_clocks_does_not_move_the_span(
    monkeypatch: pytest.MonkeyPatch, pause_is_before: bool
) -> None:
    clock, pauses = SimulatedClock(), [500 * MS, 0, 0, 0, 0]

    def read() -> float:
        pause = pauses.pop(0)
        shown = clock.now_ns() + pause * pause_is_before
        clock.sleep_until_ns(clock.now_ns() + pause)
        return 1e9 + shown * 1e-9

    monkeypatch.setattr(driver, "time", SimpleNamespace(time=read))
    measuring = driver.Driver(
        PlannedSubject(clock, varying), planned_pictures(1), Cell(model="planned"), LIMITS, OWN, clock, lambda *_: None
    )
    measuring.begin()
    inference = measuring.infer(1)
    expected = 1e9 + inference.began * 1e-9, 1e9 + inference.ended * 1e-9
    assert measuring.span() == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "camera"])
def test_the_span_is_as_long_as_what_was_measured(scenario: ScenarioName) -> None:
    _, measured, _ = simulated(scenario, varying)
    assert measured.span[1] - measured.span[0] == pytest.approx(measured.facts.seconds, abs=1e-6)
