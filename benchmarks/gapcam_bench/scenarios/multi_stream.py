"""MultiStream: every query has several pictures, and the next one comes when all of them are answered.

As MLPerf Inference has it since v1.1: eight samples a query, one query at a time, judged by the 99th percentile of the
latency of a query (inference_rules.adoc, "Scenarios"; LoadGen's `multi_stream_*` settings). So several cameras look
that are triggered at once. Here a query has `settings.streams` pictures, in inferences of `cell.batch`; the last
inference of a query has those that are left.
"""

from __future__ import annotations

from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts
from gapcam_bench.scenarios.sample_log import SampleLog


def inferences_of(pictures: int, batch: int) -> list[int]:
    """How many pictures each inference of a query has."""
    return [min(batch, pictures - first) for first in range(0, pictures, batch)]


def multi_stream(driver: Driver, generator: str) -> Measured:
    """Measure one query after another; a sample is a query.

    Args:
        driver: of the subject, warmed up.
        generator: the name of this load generator.
    """
    log, streams = SampleLog(), driver.settings.streams
    counts = inferences_of(streams, driver.cell.batch)
    start = driver.clock.now_ns()
    while not driver.enough(len(log), start):
        query = [driver.infer(count) for count in counts]
        log.add(query[0].began - start, *query)
    seconds = (query[-1].ended - start) * 1e-9
    return log.measured(ScenarioFacts(generator=generator, frames_per_sample=streams, seconds=seconds))
