"""SingleStream: the next query comes when the last one is answered.

As MLPerf Inference has it: "LoadGen sends next query as soon as SUT completes the previous query", one sample a query,
judged by the 90th percentile of the latency (inference_rules.adoc, "Scenarios"; LoadGen's `single_stream_*` settings).
Here a query has `cell.batch` pictures, which are one inference. The pictures are taken in turn, not drawn.
"""

from __future__ import annotations

from gapcam_bench.scenarios.back_to_back import back_to_back
from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.measured import Measured


def single_stream(driver: Driver, generator: str) -> Measured:
    """Measure one query after another.

    Args:
        driver: of the subject, warmed up.
        generator: the name of this load generator.
    """
    return back_to_back(driver, generator)
