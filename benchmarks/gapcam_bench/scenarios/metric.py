"""What a row's scenario is judged by, from the raw samples of all its blocks.

| scenario      | metric                                                             | early stopping      |
| ------------- | ------------------------------------------------------------------ | ------------------- |
| single-stream | p90 of the latency                                                 | of the p90          |
| multi-stream  | p99 of the latency of a query                                      | of the p99          |
| offline       | frames a second: the median of the blocks                          | none: no percentile |
| server        | queries a second that kept the bound: the median of the blocks     | none: no percentile |
| camera        | p99 of the age                                                     | of the p99          |

Percentiles are of all blocks' samples together, by nearest rank; LoadGen takes the sample after that where the rank is
a whole number. The latency of a query that LoadGen issued is the one that LoadGen recorded, where it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gapcam.latency import NS_PER_MS
from gapcam_bench.cell import ScenarioName
from gapcam_bench.result import Scenario
from gapcam_bench.scenarios.measured import ScenarioFacts
from gapcam_bench.statistics.early_stopping import early_stopping_estimate, keeps_bound
from gapcam_bench.statistics.nearest_rank import percentiles_of

_PERCENTILES: dict[str, tuple[str, str, float]] = {
    "single-stream": ("p90 of the latency", "latency", 90),
    "multi-stream": ("p99 of the latency of a query", "latency", 99),
    "camera": ("p99 of the age", "age", 99),
}


def scenario_of(
    name: ScenarioName,
    wall: Mapping[str, NDArray[np.int64]],
    blocks: NDArray[np.int32],
    facts: Sequence[ScenarioFacts],
) -> Scenario:
    """What the row is judged by.

    Args:
        name: of the scenario.
        wall: [n] nanoseconds each, of all blocks, by stage, with "total", "latency" or "age".
        blocks: [n] the number of the block that each sample is of.
        facts: of each block, in the order of the numbers.
    """
    speed = float(np.median(_frames_a_second(blocks, facts)))
    rates = [each.rate for each in facts if each.rate is not None]
    rate = float(np.median(rates)) if rates else None
    stopped = None
    if name in _PERCENTILES:
        metric, array, percentile = _PERCENTILES[name]
        samples = wall.get(array, wall["total"])
        unit, value = "ms", float(percentiles_of(samples, [percentile])[0]) / NS_PER_MS
        estimate = early_stopping_estimate(samples, percentile)
        stopped = None if estimate is None else estimate / NS_PER_MS
    elif name == "server":
        metric, unit, value = "queries a second", "1/s", rate or 0.0
    else:
        metric, unit, value = "frames a second", "1/s", speed
    return Scenario(
        metric=metric,
        value=value,
        unit=unit,
        early_stopping=stopped,
        generator=", ".join(dict.fromkeys(each.generator for each in facts)),
        frames_per_sample=facts[0].frames_per_sample,
        frames_a_second=speed,
        rate=rate,
        bound_ms=_median([each.bound_ms for each in facts]),
        trials=tuple(trial for each in facts for trial in each.trials or ()) if name == "server" else None,
        offered=sum(each.offered or 0 for each in facts) if name == "camera" else None,
        dropped=sum(each.dropped or 0 for each in facts) if name == "camera" else None,
    )


def scenario_reasons(
    name: ScenarioName,
    wall: Mapping[str, NDArray[np.int64]],
    blocks: NDArray[np.int32],
    facts: Sequence[ScenarioFacts],
) -> tuple[str, ...]:
    """Why the scenario's figure is not to be relied on, a sentence each; nothing where it is. Arguments as above.

    Of the server scenario: blocks in which no rate kept the bound, and too few queries for MLPerf's early stopping, in
    all blocks together: each block's are from the highest rate that it kept.
    """
    if name != "server":
        return ()
    reasons = []
    if lost := [each for each in facts if not each.rate]:
        tried = min((t for each in lost for t in each.trials or ()), key=lambda trial: trial.rate)
        reasons.append(
            f"no rate kept the bound in {len(lost)} of {len(facts)} blocks: at {tried.rate:.3g} queries a second, the "
            f"lowest that was tried, the p99 is {tried.p99_ms:.3g} ms, and the bound is {lost[0].bound_ms or 0:.3g} ms"
        )
    over = np.concatenate(
        [
            wall["latency"][blocks == at] > (of.bound_ms or 0) * NS_PER_MS
            for at, of in _by_block(blocks, facts)
            if of.rate
        ]
        or [np.zeros(0, bool)]
    )
    if len(lost) < len(facts) and not keeps_bound(over.astype(np.int64), 0.5):
        reasons.append(
            f"{len(over)} queries with {int(over.sum())} late are too few to say with 99 % confidence that the bound "
            "was kept: measure for longer, or in more rounds"
        )
    return tuple(reasons)


def _by_block(blocks: NDArray[np.int32], facts: Sequence[ScenarioFacts]) -> Iterable[tuple[int, ScenarioFacts]]:
    return zip(np.unique(blocks).tolist(), facts, strict=True)


def _frames_a_second(blocks: NDArray[np.int32], facts: Sequence[ScenarioFacts]) -> list[float]:
    return [
        int((blocks == at).sum()) * each.frames_per_sample / each.seconds if each.seconds else 0.0
        for at, each in _by_block(blocks, facts)
    ]


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.median(there)) if there else None
