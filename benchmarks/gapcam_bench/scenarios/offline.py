"""Offline: all pictures are there at the start, and only the throughput counts.

As MLPerf Inference has it: "LoadGen sends all samples to the SUT at start in a single query", judged by samples a
second over the whole (inference_rules.adoc, "Scenarios"; LoadGen's `offline_expected_qps`). Here the query has as many
pictures as `Limits` ask for, in inferences of `cell.batch`. A sample is an inference; the throughput is frames by the
time from the start to the last answer. A subject answers one inference before it takes the next, so that Offline is
faster than SingleStream only where a larger batch is.
"""

from __future__ import annotations

from gapcam_bench.scenarios.back_to_back import back_to_back
from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.measured import Measured


def offline(driver: Driver, generator: str) -> Measured:
    """Measure inferences that never wait.

    Args:
        driver: of the subject, warmed up.
        generator: the name of this load generator.
    """
    return back_to_back(driver, generator)
