"""Inferences that follow one another at once: what SingleStream and Offline have in common."""

from __future__ import annotations

from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts
from gapcam_bench.scenarios.sample_log import SampleLog


def back_to_back(driver: Driver, generator: str) -> Measured:
    """Measure one inference of `cell.batch` pictures after another, until there are enough.

    Args:
        driver: of the subject, warmed up.
        generator: the name of this load generator.
    """
    log, batch = SampleLog(), driver.cell.batch
    start = driver.clock.now_ns()
    while not driver.enough(len(log), start):
        inference = driver.infer(batch)
        log.add(inference.began - start, inference)
    seconds = (inference.ended - start) * 1e-9
    return log.measured(ScenarioFacts(generator=generator, frames_per_sample=batch, seconds=seconds))
