"""Our scenarios against MLPerf's LoadGen, on what LoadGen itself recorded: nothing depends on how busy a machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from scipy import stats

from gapcam.errors import DataError
from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cell import Cell, ScenarioName
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios import mlcommons
from gapcam_bench.scenarios.clock import HostClock
from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.loadgen_log import LoadGenLog, read_loadgen_log
from gapcam_bench.scenarios.measured import Measured
from gapcam_bench.scenarios.metric import scenario_of
from gapcam_bench.scenarios.poisson import arrivals_ns, unit_gaps
from gapcam_bench.scenarios.run import run_scenario
from gapcam_bench.scenarios.server import Plan, late_allowed, own_trial
from gapcam_bench.scenarios.simulation import PlannedSubject, SimulatedClock, planned_pictures
from gapcam_bench.statistics.early_stopping import early_stopping_estimate, keeps_bound
from gapcam_bench.subjects.protocol import Picture, StageTimes

pytest.importorskip("mlperf_loadgen", reason="LoadGen has wheels for x86 only")

US = 1000
MS = 1_000_000


SHORT = Limits(least_seconds=0.2, least_samples=20, most_seconds=20)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


def quick(at: int, count: int) -> int:
    """0.1 to 0.5 ms a picture."""
    return count * (100 + (at * 7919) % 400) * US


def driver_of(
    scenario: ScenarioName,
    *,
    batch: int = 1,
    limits: Limits = SHORT,
    service_ns: Callable[[int, int], int] = quick,
    seed: int = 0,
    streams: int = 8,
) -> tuple[Driver, PlannedSubject]:
    clock = HostClock()
    subject = PlannedSubject(clock, service_ns)
    cell = Cell(model="planned", scenario=scenario, batch=batch)
    settings = ScenarioSettings(seed=seed, streams=streams)
    return Driver(subject, planned_pictures(5), cell, limits, settings, clock, lambda *_: None), subject


def value_of(scenario: ScenarioName, measured: Measured) -> tuple[float, float | None]:
    """The metric and its early stopping estimate."""
    found = scenario_of(scenario, measured.wall, np.zeros(len(measured.at), np.int32), [measured.facts])
    return found.value, found.early_stopping


def as_loadgen_ranks(latencies: NDArray[np.int64], share: float) -> int:
    """LoadGen's percentile: element floor(n p), counted from 0, of the sorted latencies."""
    return int(np.sort(latencies)[int(len(latencies) * share)])


@pytest.fixture(scope="module")
def single() -> tuple[Measured, LoadGenLog, PlannedSubject]:
    driver, subject = driver_of("single-stream", limits=Limits(least_seconds=0.3, least_samples=700, most_seconds=20))
    return *mlcommons.streams_by_loadgen(driver, np.array([300 * US])), subject


def test_single_streams_p90_and_its_early_stopping_are_loadgens(
    single: tuple[Measured, LoadGenLog, PlannedSubject],
) -> None:
    measured, recorded, _ = single
    latencies = recorded.latency_ns
    assert len(latencies) >= 700
    assert recorded.figures["result_90.00_percentile_latency_ns"] == as_loadgen_ranks(latencies, 0.9)
    assert recorded.figures["early_stopping_latency_ss"] == early_stopping_estimate(latencies, 90)
    assert recorded.figures["early_stopping_latency_ms"] == early_stopping_estimate(latencies, 99)
    assert recorded.verdict == measured.facts.verdict == "VALID"
    p90, stopped = value_of("single-stream", measured)
    # by nearest rank: LoadGen's, or the one below where 0.9 n is a whole number
    assert round(p90 * MS) == np.sort(latencies)[int(np.ceil(0.9 * len(latencies) - 1e-9)) - 1]
    assert stopped == recorded.figures["early_stopping_latency_ss"] / MS


def test_single_streams_samples_are_one_for_one_those_that_loadgen_recorded(
    single: tuple[Measured, LoadGenLog, PlannedSubject],
) -> None:
    measured, recorded, subject = single
    np.testing.assert_array_equal(measured.wall["latency"], recorded.latency_ns)
    assert len(subject.served) == len(measured.at) == len(recorded.latency_ns)
    assert recorded.figures["result_query_count"] == len(measured.at)
    over = measured.wall["latency"] - measured.wall["total"]  # LoadGen's own call, and Python's
    assert 0 < np.median(over) < MS
    planned = [quick(at, 1) for at in range(len(measured.at))]
    np.testing.assert_array_equal(measured.wall["inference"], planned)
    assert (measured.wall["total"] >= planned).all()
    assert (np.diff(measured.at) >= measured.wall["total"][:-1]).all()  # one after another
    assert {name for names in subject.served for name in names} == set("01234")
    assert measured.facts.generator.startswith("mlcommons-loadgen ")


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1] * 8), (3, [3, 3, 2]), (8, [8])])
def test_multi_streams_p99_and_its_early_stopping_are_loadgens(batch: int, sizes: list[int]) -> None:
    driver, subject = driver_of(
        "multi-stream",
        batch=batch,
        limits=Limits(least_seconds=0.1, least_samples=700, most_seconds=30),
        service_ns=lambda at, count: count * (20 + (at * 7919) % 50) * US,
    )
    measured, recorded = mlcommons.streams_by_loadgen(driver, np.array([400 * US]))
    latencies = recorded.query_latency_ns()
    assert len(latencies) == len(measured.at) >= 700
    assert [len(names) for names in subject.served[: len(sizes)]] == sizes
    assert recorded.figures["result_99.00_percentile_per_query_latency_ns"] == as_loadgen_ranks(latencies, 0.99)
    assert recorded.figures["early_stopping_latency_ms"] == early_stopping_estimate(latencies, 99)
    np.testing.assert_array_equal(measured.wall["latency"], latencies)
    p99, stopped = value_of("multi-stream", measured)
    assert round(p99 * MS) == np.sort(latencies)[int(np.ceil(0.99 * len(latencies) - 1e-9)) - 1]
    assert stopped == recorded.figures["early_stopping_latency_ms"] / MS
    assert sum(len(names) for names in subject.served) == 8 * len(measured.at)
    assert measured.facts.frames_per_sample == 8
    assert (measured.wall["latency"] >= measured.wall["inference"]).all()


@pytest.mark.parametrize("batch", [1, 4])
def test_offlines_throughput_is_loadgens(batch: int) -> None:
    driver, _ = driver_of("offline", batch=batch, service_ns=lambda _at, count: count * MS)
    measured, recorded = mlcommons.offline_by_loadgen(driver, np.array([batch * MS]))
    assert len(measured.at) >= 20
    value, stopped = value_of("offline", measured)
    assert stopped is None
    # Our time is from the first call to the last answer: within LoadGen's, and not less than what was planned.
    assert 0.999 * recorded.figures["result_samples_per_second"] < value <= 1000
    assert recorded.figures["effective_samples_per_query"] == len(measured.at) * batch
    assert measured.facts.verdict == "VALID"


@pytest.mark.parametrize("planned_us", [700, 1000, 1300])
@pytest.mark.parametrize(("batch", "least_seconds"), [(3, 0.05), (7, 0.037), (64, 0.05), (64, 0.01)])
def test_offlines_inferences_are_all_whole(batch: int, least_seconds: float, planned_us: int) -> None:
    """Whatever LoadGen makes of the time and of what it expects: the pictures counted are those answered."""
    limits = Limits(least_seconds=least_seconds, least_samples=20, most_seconds=20)
    driver, subject = driver_of("offline", batch=batch, limits=limits, service_ns=lambda _at, _n: 100 * US)
    measured, recorded = mlcommons.offline_by_loadgen(driver, np.array([planned_us * US]))
    assert {len(names) for names in subject.served} == {batch}
    answered = sum(len(names) for names in subject.served)
    assert len(measured.at) * measured.facts.frames_per_sample == answered
    assert recorded.figures["effective_samples_per_query"] == answered
    least = max(20, 1.1 * least_seconds / (planned_us * 1e-6))  # inferences, as LoadGen plans them
    assert least - 1e-6 < len(measured.at) < least + 2


def test_loadgens_server_schedule_is_ours_to_the_nanosecond() -> None:
    for seed in (0, 12345):
        driver, _ = driver_of("server", seed=seed, service_ns=lambda _at, _n: 0)
        _, recorded = mlcommons.trial_by_loadgen(driver, Plan(4000.0, 2000, 10**9, 10**9))
        np.testing.assert_array_equal(recorded.scheduled_ns, arrivals_ns(2000, 4000.0, seed))
        gaps = np.diff(recorded.scheduled_ns) * 1e-9
        assert stats.ks_2samp(gaps, unit_gaps(2000, seed + 1) / 4000).pvalue > 0.001
        assert stats.kstest(gaps, stats.expon(scale=1 / 4000).cdf).pvalue > 0.001


@pytest.mark.parametrize("batch", [1, 4])
def test_server_latencies_are_those_of_our_generator_with_the_same_durations(batch: int) -> None:
    """What LoadGen recorded, played again by our generator in simulated time.

    A duration is all that a query took of the server, LoadGen's own part of it and pauses of a busy machine included.
    """
    driver, subject = driver_of(
        "server", batch=batch, service_ns=lambda at, count: (2 + count) * MS + (at * 7919) % (4 * MS)
    )
    plan = Plan(110.0 * batch, 120, 10**9, 10**9)
    outcome, recorded = mlcommons.trial_by_loadgen(driver, plan)
    latencies, totals = outcome.log.of("latency"), outcome.log.of("total")
    np.testing.assert_array_equal(latencies, recorded.latency_ns)
    assert sum(len(names) for names in subject.served) == len(latencies) == 120
    assert (latencies >= totals).all()
    if batch > 1:  # whose sizes would differ where a query came a moment later
        assert max(len(names) for names in subject.served) > 1
        return
    ended = recorded.scheduled_ns + latencies
    began = np.maximum(recorded.scheduled_ns, np.append(0, ended[:-1]))
    durations = ended - began
    assert 0 <= np.median(durations - totals) < MS
    clock = SimulatedClock()
    again = own_trial(
        Driver(
            PlannedSubject(clock, lambda at, _: int(durations[at])),
            planned_pictures(5),
            driver.cell,
            Limits(),
            driver.settings,
            clock,
            lambda *_: None,
        ),
        plan,
    )
    np.testing.assert_array_equal(again.log.of("latency"), latencies)


@pytest.mark.parametrize(
    ("queries", "bound_ns", "verdict"),
    [
        (459, 10 * 10**9, "VALID"),
        (458, 10 * 10**9, "INVALID"),  # none late, and too few for 99 % confidence
        (600, 150 * US, "INVALID"),  # most are late
    ],
)
def test_the_verdict_on_a_trial_is_loadgens(queries: int, bound_ns: int, verdict: str) -> None:
    driver, _ = driver_of("server", limits=Limits(most_seconds=60))
    outcome, recorded = mlcommons.trial_by_loadgen(driver, Plan(1500.0, queries, bound_ns, 10**9))
    late = int((recorded.latency_ns > bound_ns).sum())
    assert recorded.figures["result_overlatency_query_count"] == late
    assert recorded.figures["early_stopping_met"] == keeps_bound(recorded.latency_ns, bound_ns)
    assert recorded.verdict == outcome.verdict == verdict
    assert keeps_bound(recorded.latency_ns, bound_ns) == (verdict == "VALID")
    assert len(outcome.log) == queries


@pytest.mark.parametrize("slow_ms", [21, 40, 400])
def test_a_trial_with_some_late_queries_is_judged_alike(slow_ms: int) -> None:
    """One query holds the next ones up: of 838, two may be late."""
    driver, _ = driver_of("server", service_ns=lambda at, _: slow_ms * MS if at == 400 else 0)
    _, recorded = mlcommons.trial_by_loadgen(driver, Plan(1000.0, 838, 20 * MS, 10**9))
    late = int((recorded.latency_ns > 20 * MS).sum())
    assert late >= 1
    assert recorded.figures["result_overlatency_query_count"] == late
    assert recorded.figures["early_stopping_met"] == (late <= late_allowed(838))


def test_a_hopeless_trial_ends_early_and_is_not_kept() -> None:
    driver, subject = driver_of("server", service_ns=lambda _at, _n: 5 * MS)
    outcome, recorded = mlcommons.trial_by_loadgen(driver, Plan(1000.0, 20_000, 20 * MS, 3))
    # LoadGen itself has not gone on to its end, though it hands over at once what was due in a busy machine's pause.
    assert recorded.figures["result_query_count"] < 15_000
    assert len(subject.served) == len(outcome.log) < 100
    assert (outcome.log.of("latency") > 20 * MS).sum() > 3


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_subject_that_raises_ends_the_run_and_leaves_nothing_behind(
    scenario: ScenarioName, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    driver, _ = driver_of("single-stream", limits=Limits(least_seconds=0.01, least_samples=5))
    mlcommons.streams_by_loadgen(driver, np.array([300 * US]))
    threads, calls = psutil.Process().num_threads(), 0

    def breaks(_at: int, _n: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise error
        return MS

    clock = HostClock()
    limits = Limits(
        least_seconds=0.1, least_samples=200, warm_up_least_seconds=0, warm_up_most_seconds=0.001, most_seconds=9
    )
    with pytest.raises(error):
        run_scenario(
            PlannedSubject(clock, breaks),
            planned_pictures(5),
            Cell(model="planned", scenario=scenario),
            limits,
            ScenarioSettings(generator="mlcommons", rate=200.0, bound_ms=1000.0),
            progress=lambda *_: None,
        )
    assert calls == 40
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: psutil.Process().num_threads() <= threads)  # the system counts a thread until it is all gone
    measured, _ = mlcommons.streams_by_loadgen(driver, np.array([300 * US]))  # LoadGen works as before
    assert len(measured.at) >= 5


def test_a_progress_that_raises_ends_the_run_as_well() -> None:
    clock, told = HostClock(), []

    def progress(what: str, _: float) -> None:
        told.append(what)
        if what == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_scenario(
            PlannedSubject(clock, quick),
            planned_pictures(5),
            Cell(model="planned"),
            Limits(least_seconds=0.5, warm_up_least_seconds=0, warm_up_most_seconds=0.01),
            ScenarioSettings(generator="mlcommons"),
            progress=progress,
        )
    assert told.count("measuring") == 1


def test_a_querys_latency_is_that_of_its_last_sample() -> None:
    log = LoadGenLog({}, np.array([0, 0, 1, 1, 1]), np.zeros(5, np.int64), np.array([7, 3, 1, 9, 2]))
    assert log.query_latency_ns().tolist() == [7, 9]


@pytest.mark.parametrize("cut", ["mlperf_log_detail.txt", "mlperf_log_trace.json"])
@pytest.mark.parametrize("left", [0.0, 0.3, 0.7])
def test_a_log_that_loadgen_could_not_write_to_its_end_is_a_full_disk(
    cut: str, left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadGen itself says nothing, and goes on."""

    def after_a_full_disk(folder: Path, *, traced: bool) -> LoadGenLog:
        content = (folder / cut).read_bytes()
        (folder / cut).write_bytes(content[: round(left * len(content))])
        return read_loadgen_log(folder, traced=traced)

    monkeypatch.setattr(mlcommons, "read_loadgen_log", after_a_full_disk)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    driver, _ = driver_of("single-stream", limits=Limits(least_seconds=0.01, least_samples=5))
    with pytest.raises(DataError, match=rf"could not write all of its log .*{cut}.*make room"):
        mlcommons.streams_by_loadgen(driver, np.array([300 * US]))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed_and_no_settings_are_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.config").write_text("*.*.mode = 2\n*.*.performance_issue_same = 1\n")
    driver, subject = driver_of("single-stream")
    mlcommons.streams_by_loadgen(driver, np.array([300 * US]))
    assert capfd.readouterr() == ("", "")
    assert len(set(subject.served)) == 5  # not always the same picture
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.config"]


@pytest.mark.parametrize("generator", ["own", "mlcommons"])
@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server"])
def test_the_span_is_from_the_first_call_to_the_last_answer(
    scenario: ScenarioName, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energy is cut out by it: neither the warm-up nor what LoadGen writes and we read afterwards is in it."""
    calls: list[tuple[float, float]] = []
    reads: list[float] = []

    class Noted(PlannedSubject):
        def run(self, pictures: Sequence[Picture]) -> StageTimes:
            began = time.time()
            stages = super().run(pictures)
            calls.append((began, time.time()))
            return stages

    def slowly(folder: Path, *, traced: bool) -> LoadGenLog:
        reads.append(time.time())
        time.sleep(0.3)  # a long trace
        return read_loadgen_log(folder, traced=traced)

    monkeypatch.setattr(mlcommons, "read_loadgen_log", slowly)
    limits = Limits(
        least_seconds=0.1, least_samples=5, warm_up_least_seconds=0, warm_up_most_seconds=0.2, most_seconds=1
    )
    warm_up, measured = run_scenario(
        Noted(HostClock(), lambda _at, _n: MS),
        planned_pictures(5),
        Cell(model="planned", scenario=scenario),
        limits,
        ScenarioSettings(generator=generator, bound_ms=500.0, rate=100.0),
        progress=lambda *_: None,
    )
    reads.append(time.time())
    before = warm_up.samples * (8 if scenario == "multi-stream" else 1)
    counted = calls[before:]
    frames = len(measured.at) * measured.facts.frames_per_sample
    if measured.facts.trials is not None:
        frames = sum(trial.queries for trial in measured.facts.trials)
    assert len(counted) == frames  # what energy is divided by is what was answered in the span
    began, ended = measured.span
    # By order, however long a busy machine pauses between two of these; the clocks differ by microseconds.
    assert began <= counted[0][0] + 0.01
    assert ended >= counted[-1][1] - 0.01
    assert before == 0 or began >= calls[before - 1][1] - 0.01
    assert ended <= reads[-2:][0] + 0.01


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "offline", "server", "camera"])
def test_a_block_has_the_same_form_whoever_generates_the_load(scenario: ScenarioName) -> None:
    limits = Limits(
        least_seconds=0.1,
        least_samples=5,
        warm_up_least_seconds=0,
        warm_up_most_seconds=0.2,
        most_seconds=1 if scenario == "server" else 60,  # that one goes on till then
    )
    found = {}
    for generator in ("own", "mlcommons"):
        _, found[generator] = run_scenario(
            PlannedSubject(HostClock(), lambda _at, _n: MS),
            planned_pictures(5),
            Cell(model="planned", scenario=scenario),
            limits,
            ScenarioSettings(generator=generator, bound_ms=60_000.0, rate=100.0),
            progress=lambda *_: None,
        )
    own, loadgen = found["own"], found["mlcommons"]
    assert set(own.wall) <= set(loadgen.wall)
    assert own.facts.frames_per_sample == loadgen.facts.frames_per_sample
    assert own.facts.generator == "gapcam"
    assert (loadgen.facts.generator == "gapcam") == (scenario == "camera")
    for measured in (own, loadgen):
        assert {values.dtype for values in measured.wall.values()} == {np.dtype(np.int64)}
        assert {len(values) for values in measured.wall.values()} == {len(measured.at)}
        assert len(measured.at) >= 5
        assert (np.diff(measured.at) > 0).all()
