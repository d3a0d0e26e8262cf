"""One block: warm a subject up until it is stable, then measure it in its cell's scenario."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from gapcam.errors import MissingExtraError, UsageError
from gapcam.interleaved import no_garbage_collection
from gapcam_bench.block import ScenarioSettings, WarmUp
from gapcam_bench.cell import SCENARIOS, Cell, ScenarioName
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios.camera import camera
from gapcam_bench.scenarios.clock import Clock, HostClock
from gapcam_bench.scenarios.driver import Driver, Progress
from gapcam_bench.scenarios.measured import Measured
from gapcam_bench.scenarios.multi_stream import inferences_of, multi_stream
from gapcam_bench.scenarios.offline import offline
from gapcam_bench.scenarios.server import server
from gapcam_bench.scenarios.single_stream import single_stream
from gapcam_bench.statistics.warm_up import WarmUpWatch
from gapcam_bench.subjects.protocol import Picture, Subject

OWN = "gapcam"


def run_scenario(
    subject: Subject,
    pictures: Sequence[Picture],
    cell: Cell,
    limits: Limits,
    settings: ScenarioSettings,
    *,
    progress: Progress,
    clock: Clock | None = None,
) -> tuple[WarmUp, Measured]:
    """Measure one block. Nothing is collected as garbage meanwhile.

    Args:
        subject: loaded; nobody else uses it meanwhile.
        pictures: at least one, taken in turn.
        cell: `batch` and `scenario` of it count here.
        limits: how long.
        settings: of the scenario.
        progress: called a few times a second with what goes on, and how much of it is done, in [0, 1].
        clock: what tells the time, and waits; None for the host's. LoadGen has its own.

    Raises:
        UsageError: there is no picture, or no such scenario or generator.
        MissingExtraError: the generator is "mlcommons", and it is not installed.
    """
    if not pictures:
        raise UsageError("there is no picture to classify; give at least one")
    if cell.scenario not in SCENARIOS:
        raise UsageError(f"scenario is {cell.scenario!r}; give one of {', '.join(SCENARIOS)}")
    with_loadgen = takes_loadgen(settings.generator, cell.scenario)
    driver = Driver(subject, pictures, cell, limits, settings, clock or HostClock(), progress)
    gc.collect()
    with no_garbage_collection():
        warm_up, durations = _warmed_up(driver)
        driver.begin()
        measured = _measured(driver, durations, with_loadgen=with_loadgen)
    return warm_up, replace(measured, span=driver.span())


def _measured(driver: Driver, durations: NDArray[np.int64], *, with_loadgen: bool) -> Measured:
    if with_loadgen:
        from gapcam_bench.scenarios.mlcommons import measure_with_loadgen

        return measure_with_loadgen(driver, durations)
    if driver.cell.scenario == "server":
        return server(driver, OWN, durations)
    scenario = {
        "single-stream": single_stream,
        "multi-stream": multi_stream,
        "offline": offline,
        "camera": camera,
    }[driver.cell.scenario]
    return scenario(driver, OWN)


def takes_loadgen(generator: str, scenario: ScenarioName) -> bool:
    """Whether MLPerf's LoadGen generates the load; a camera's it cannot.

    Raises:
        UsageError: no such generator.
        MissingExtraError: it is asked for, and not installed.
    """
    if generator not in ("auto", "own", "mlcommons"):
        raise UsageError(f"generator is {generator!r}; give auto, own or mlcommons")
    there = find_spec("mlperf_loadgen") is not None
    if generator == "mlcommons" and not there:
        raise MissingExtraError("mlcommons-loadgen", "loadgen")
    return there and generator != "own" and scenario != "camera"


def _warmed_up(driver: Driver) -> tuple[WarmUp, NDArray[np.int64]]:
    """Queries one after another until they are stable, and the durations of the later half."""
    cell, clock = driver.cell, driver.clock
    watch = WarmUpWatch(driver.limits, lambda: clock.now_ns() * 1e-9)
    counts = [cell.batch]
    if cell.scenario == "multi-stream":
        counts = inferences_of(driver.settings.streams, cell.batch)
    elif cell.scenario == "server":
        for count in range(cell.batch, 1, -1):  # an engine may prepare itself for each
            driver.infer(count)
        counts = [1]
    durations = []
    start = clock.now_ns()
    while not watch.done:
        query = [driver.infer(count) for count in counts]
        durations.append(query[-1].ended - query[0].began)
        watch.add(durations[-1])
        driver.report("warming up", (clock.now_ns() - start) * 1e-9 / driver.limits.warm_up_most_seconds)
    return watch.result(), np.array(durations[len(durations) // 2 :], np.int64)
