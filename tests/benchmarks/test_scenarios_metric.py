"""What a row is judged by, worked out by hand from a few samples."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from gapcam_bench.cell import ScenarioName
from gapcam_bench.scenarios.measured import ScenarioFacts, Trial
from gapcam_bench.scenarios.metric import scenario_of, scenario_reasons

MS = 1_000_000
TOTAL = np.arange(1, 101) * MS  # 1 to 100 ms
BLOCKS = np.repeat(np.array([0, 2], np.int32), 50)  # round 1 is lost
FACTS = [
    ScenarioFacts(generator="gapcam", frames_per_sample=2, seconds=4.0),
    ScenarioFacts(generator="gapcam", frames_per_sample=2, seconds=5.0),
]


@pytest.mark.parametrize(
    ("name", "array", "metric", "value", "stopped"),
    [
        ("single-stream", "total", "p90 of the latency", 90.0, 98.0),
        ("multi-stream", "total", "p99 of the latency of a query", 99.0, None),
        ("camera", "age", "p99 of the age", 99.0, None),
    ],
)
def test_percentiles_are_of_all_blocks_together(
    name: ScenarioName, array: str, metric: str, value: float, stopped: float | None
) -> None:
    wall = {"total": np.zeros(100, np.int64), array: np.random.default_rng(0).permutation(TOTAL)}
    found = scenario_of(name, wall, BLOCKS, FACTS)
    # the third slowest of 100 is above the p90: P(at most 3 of 100 | 10 %) = 0.8 %, and of 4 it is 2.4 %
    assert (found.metric, found.value, found.unit, found.early_stopping) == (metric, value, "ms", stopped)
    assert found.frames_per_sample == 2
    assert found.frames_a_second == 22.5  # 25 in one block, 20 in the other


def test_latencies_that_a_generator_recorded_come_before_totals() -> None:
    wall = {"total": TOTAL, "latency": TOTAL + MS}
    assert scenario_of("single-stream", wall, BLOCKS, FACTS).value == 91


def test_offline_is_judged_by_the_median_of_the_blocks_throughput() -> None:
    found = scenario_of("offline", {"total": TOTAL}, BLOCKS, FACTS)
    assert (found.metric, found.value, found.unit, found.early_stopping) == ("frames a second", 22.5, "1/s", None)


def test_a_cameras_frames_are_counted_over_all_blocks() -> None:
    facts = [msgspec.structs.replace(each, rate=15.0, offered=60, dropped=10) for each in FACTS]
    found = scenario_of("camera", {"total": TOTAL, "age": TOTAL}, BLOCKS, facts)
    assert (found.rate, found.offered, found.dropped) == (15, 120, 20)
    assert found.trials is None


def a_trial(rate: float, *, kept: bool) -> Trial:
    return Trial(rate=rate, p99_ms=60 / rate, queries=50, kept=kept, certified=False)


def test_a_servers_rate_is_the_median_of_the_blocks_and_lost_blocks_are_a_reason() -> None:
    trials = ((a_trial(30, kept=True),), (a_trial(20, kept=False), a_trial(5, kept=False)))
    facts = [
        msgspec.structs.replace(each, rate=rate, bound_ms=95.0, trials=tried)
        for each, rate, tried in zip(FACTS, (30.0, 0.0), trials, strict=True)
    ]
    wall = {"total": TOTAL, "latency": TOTAL}
    found = scenario_of("server", wall, BLOCKS, facts)
    assert (found.metric, found.value, found.unit) == ("queries a second", 15, "1/s")
    assert found.bound_ms == 95
    assert found.trials == trials[0] + trials[1]
    lost, few = scenario_reasons("server", wall, BLOCKS, facts)
    assert lost == (
        "no rate kept the bound in 1 of 2 blocks: at 5 queries a second, the lowest that was tried, the p99 is 12 ms, "
        "and the bound is 95 ms"
    )
    assert few.startswith("50 queries with 0 late are too few")  # those of the block that has a rate: 1 to 50 ms


@pytest.mark.parametrize("name", ["single-stream", "multi-stream", "offline", "camera"])
def test_only_the_server_scenario_has_reasons_of_its_own(name: ScenarioName) -> None:
    assert scenario_reasons(name, {"total": TOTAL}, BLOCKS, FACTS) == ()
