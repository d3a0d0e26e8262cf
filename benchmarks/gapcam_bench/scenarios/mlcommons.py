"""The same scenarios with MLPerf's own load generator, LoadGen, where it is installed (wheels are for x86 only).

LoadGen calls the system under test in the thread that started the test. The subject runs right there, and its answer
is complete when the call returns: no thread of ours, no queue, and no engine that two threads use. That keeps the
Server scenario an open loop: LoadGen's latency is from the moment for which a query was planned, so that a call that
keeps LoadGen's thread busy makes the queries behind it late, as one server does. With a batch, LoadGen hands over all
queries that are due at once (`server_coalesce_queries`).

What LoadGen is told: at least `least_seconds` and `least_samples`, at most `most_seconds`. The warm-up before is ours.
In SingleStream a sample of LoadGen's is a query of `cell.batch` pictures. LoadGen draws the pictures, with replacement.

Totals and stages are by our clock, from the subject's call to its return. Latencies are those that LoadGen recorded:
they are read from its trace, where a run has at most 20000 samples; a longer one has totals only.

No exception may pass through LoadGen, which is C++ and has threads of its own. When a subject raises, the exception is
kept, LoadGen is brought to its end as fast as it can be, and then it is raised.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.scenarios.driver import Driver, Inference
from gapcam_bench.scenarios.loadgen_log import LoadGenLog, read_loadgen_log
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts
from gapcam_bench.scenarios.poisson import arrivals_ns
from gapcam_bench.scenarios.sample_log import SampleLog
from gapcam_bench.scenarios.server import Outcome, Plan, server
from gapcam_bench.subjects.protocol import Picture
from gapcam_bench.sweep.scratch import scratch

TRACED = 20_000
"""Samples that are traced at most: each takes about 1 kB of LoadGen's log."""

SPARE = 4
"""LoadGen plans all queries before it starts: so many times as many as the warm-up's durations say are needed."""

_OFFLINE_SLACK = 1.1
"""LoadGen's own, by which Offline has more pictures than it expects in the least time."""

Taken = Callable[[list[Any], list[Inference]], None]
"""Notes what was answered together: LoadGen's samples, and the inferences that answered them."""


def generator_name() -> str:
    """As it is written into results."""
    return f"mlcommons-loadgen {version('mlcommons-loadgen')}"


def measure_with_loadgen(driver: Driver, durations_ns: NDArray[np.int64]) -> Measured:
    """Measure a cell in any scenario but Camera.

    Args:
        driver: of the subject, warmed up, on the host's clock.
        durations_ns: of queries, from the warm-up; of the server scenario of single pictures.
    """
    if driver.cell.scenario == "server":
        return server(driver, generator_name(), durations_ns, loadgen_trial)
    if driver.cell.scenario == "offline":
        return offline_by_loadgen(driver, durations_ns)[0]
    return streams_by_loadgen(driver, durations_ns)[0]


def streams_by_loadgen(driver: Driver, durations_ns: NDArray[np.int64]) -> tuple[Measured, LoadGenLog]:
    """SingleStream and MultiStream: a query when the last one is answered; a sample of ours is a query."""
    import mlperf_loadgen as loadgen

    limits, cell, streams = driver.limits, driver.cell, driver.settings.streams
    single = cell.scenario == "single-stream"
    settings = _settings(driver, loadgen.TestScenario.SingleStream if single else loadgen.TestScenario.MultiStream)
    expected_ns = float(np.median(durations_ns)) * 2 / SPARE  # LoadGen itself plans for twice the least time
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = expected_ns
    settings.multi_stream_samples_per_query = streams
    settings.min_duration_ms = round(limits.least_seconds * 1e3)
    settings.max_duration_ms = max(round(limits.most_seconds * 1e3), settings.min_duration_ms)
    settings.min_query_count = limits.least_samples
    log = SampleLog()

    def note(_: list[Any], inferences: list[Inference]) -> None:
        log.add(inferences[0].began - system.start, *inferences)
        driver.enough(len(log), system.start)  # for the progress: LoadGen itself says when it is enough

    system = _System(driver, note, whole_queries=True, pictures_of_a_sample=cell.batch if single else 1)
    planned = max(limits.least_samples, limits.least_seconds * 1e9 / float(np.median(durations_ns)))
    recorded = system.tested(settings, traced=planned * (1 if single else streams) <= TRACED)
    facts = ScenarioFacts(
        generator=generator_name(),
        frames_per_sample=cell.batch if single else streams,
        seconds=system.seconds,
        verdict=recorded.verdict,
    )
    measured = log.measured(facts)
    latencies = recorded.query_latency_ns()
    if len(latencies) == len(log):
        measured.wall["latency"] = latencies
    return measured, recorded


def offline_by_loadgen(driver: Driver, durations_ns: NDArray[np.int64]) -> tuple[Measured, LoadGenLog]:
    """Offline: one query with all pictures; a sample of ours is an inference.

    LoadGen issues 1.1 times the pictures that it expects in the least time, or the least number that it is told where
    that is greater. Here it is, and of whole inferences: else the last one would have fewer pictures.
    """
    import mlperf_loadgen as loadgen

    limits, batch = driver.limits, driver.cell.batch
    settings = _settings(driver, loadgen.TestScenario.Offline)
    settings.offline_expected_qps = batch * 1e9 / float(np.median(durations_ns))
    settings.min_duration_ms = round(limits.least_seconds * 1e3)
    expected = _OFFLINE_SLACK * settings.offline_expected_qps * settings.min_duration_ms * 1e-3
    settings.min_query_count = math.ceil(max(limits.least_samples * batch, expected) / batch) * batch
    log = SampleLog()

    def note(_: list[Any], inferences: list[Inference]) -> None:
        log.add(inferences[0].began - system.start, *inferences)
        seconds = (inferences[0].ended - system.start) * 1e-9
        system.stopped = seconds > limits.most_seconds
        driver.report("measuring", max(len(log) * batch / system.handed_over, seconds / limits.most_seconds))

    system = _System(driver, note)
    recorded = system.tested(settings, traced=False)
    facts = ScenarioFacts(
        generator=generator_name(),
        frames_per_sample=batch,
        seconds=system.seconds,
        verdict="INVALID" if system.stopped else recorded.verdict,
    )
    return log.measured(facts), recorded


def loadgen_trial(driver: Driver, plan: Plan) -> Outcome:
    """Server: one trial at a rate."""
    return trial_by_loadgen(driver, plan)[0]


def trial_by_loadgen(driver: Driver, plan: Plan) -> tuple[Outcome, LoadGenLog]:
    """Server: one trial at a rate, and what LoadGen wrote down; a sample of ours is a picture."""
    import mlperf_loadgen as loadgen

    settings = _settings(driver, loadgen.TestScenario.Server)
    settings.server_target_qps = plan.rate
    settings.server_target_latency_ns = plan.bound_ns
    settings.server_target_latency_percentile = 0.99
    settings.server_coalesce_queries = driver.cell.batch > 1
    settings.server_max_async_queries = 1  # so that it ends when answers stay away
    settings.min_duration_ms = 0
    settings.min_query_count = plan.queries
    arrivals = arrivals_ns(plan.queries, plan.rate, driver.settings.seed).tolist()
    answered: list[Inference] = []
    late = 0

    def note(samples: list[Any], inferences: list[Inference]) -> None:
        nonlocal late
        for _ in samples:  # the start is that of the first call, a little after LoadGen's: too few count as late
            late += inferences[0].ended - system.start - arrivals[len(answered)] > plan.bound_ns
            answered.append(inferences[0])
        system.stopped = late > plan.late_allowed
        driver.report(f"{plan.rate:.3g} queries a second", len(answered) / plan.queries)

    system = _System(driver, note, ends_when_owed=True)
    recorded = system.tested(settings, traced=True)
    log = SampleLog()
    for at, inference in enumerate(answered):
        log.add(int(recorded.scheduled_ns[at]), inference, latency=int(recorded.latency_ns[at]))
    return Outcome(log, system.seconds, recorded.verdict), recorded


class _System:
    """The system under test, and its pictures, as LoadGen calls them.

    Args:
        driver: of the subject.
        note: called after each group of samples that was answered.
        whole_queries: whether all inferences of a query are noted together, and its samples answered when all are done.
        pictures_of_a_sample: one, or all of an inference.
        ends_when_owed: whether LoadGen ends when answers stay away; else it waits for each.

    Attributes:
        start: moment of the first call.
        handed_over: samples so far.
        stopped: set to True to bring the test to its end.
    """

    def __init__(
        self,
        driver: Driver,
        note: Taken,
        *,
        whole_queries: bool = False,
        pictures_of_a_sample: int = 1,
        ends_when_owed: bool = False,
    ) -> None:
        self.start = self._end = 0
        self.handed_over = 0
        self.stopped = False
        self._driver, self._note = driver, note
        self._whole_queries, self._of_a_sample, self._ends_when_owed = (
            whole_queries,
            pictures_of_a_sample,
            ends_when_owed,
        )
        self._owed: list[Any] = []
        self._error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """From the first call to the last answer."""
        return (self._end - self.start) * 1e-9

    def tested(self, settings: Any, *, traced: bool) -> LoadGenLog:
        """Run one test of LoadGen's, and read what it wrote."""
        import mlperf_loadgen as loadgen

        with tempfile.TemporaryDirectory(prefix="loadgen-", dir=scratch()) as folder:
            logs = loadgen.LogSettings()
            logs.enable_trace = traced
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            count = max(len(self._driver.pictures), self._driver.settings.streams)
            system = loadgen.ConstructSUT(self._issue, self._flush)
            library = loadgen.ConstructQSL(count, count, _nothing, _nothing)
            try:
                # the name of a file that is not there, as LoadGen else takes settings from one in the working folder
                loadgen.StartTestWithLogSettings(system, library, settings, logs, str(Path(folder, "audit.config")))
            finally:
                loadgen.DestroyQSL(library)
                loadgen.DestroySUT(system)
            if self._error is not None:
                raise self._error
            return read_loadgen_log(Path(folder), traced=traced)

    def _issue(self, samples: Sequence[Any]) -> None:
        """Answer one query's samples, or all that are due."""
        left = list(samples)
        self.start = self.start or self._driver.clock.now_ns()
        self.handed_over += len(left)
        size = len(left) if self._whole_queries else self._driver.cell.batch
        while left:
            if self.stopped or self._error is not None:
                self._give_up(left)
                return
            group, left = left[:size], left[size:]
            answered = False
            try:
                inferences = [self._driver.infer_these(pictures) for pictures in self._inferences(group)]
                self._end = inferences[-1].ended
                _complete(group)
                answered = True
                self._note(group, inferences)
            except BaseException as error:  # noqa: BLE001 - raised when LoadGen, which it cannot pass, has ended
                self._error = error
                self._give_up(left if answered else [*group, *left])
                return

    def _inferences(self, samples: Sequence[Any]) -> list[list[Picture]]:
        """The pictures of each inference that a group of samples takes."""
        pictures, batch = self._driver.pictures, self._driver.cell.batch
        wanted = [
            pictures[(sample.index * self._of_a_sample + at) % len(pictures)]
            for sample in samples
            for at in range(self._of_a_sample)
        ]
        return [wanted[first : first + batch] for first in range(0, len(wanted), batch)]

    def _give_up(self, samples: list[Any]) -> None:
        if self._ends_when_owed:
            self._owed += samples
        else:
            _complete(samples)

    def _flush(self) -> None:
        """No more queries will come."""
        owed, self._owed = self._owed, []
        _complete(owed)


def _settings(driver: Driver, scenario: Any) -> Any:
    import mlperf_loadgen as loadgen

    settings = loadgen.TestSettings()
    settings.scenario = scenario
    settings.mode = loadgen.TestMode.PerformanceOnly
    seed = driver.settings.seed % 2**32
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = seed
    return settings


def _complete(samples: Sequence[Any]) -> None:
    import mlperf_loadgen as loadgen

    if samples:
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in samples])


def _nothing(_: list[int]) -> None:
    """Pictures are in memory already."""
