"""Every figure of a report, from raw samples."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam.latency import NS_PER_MS
from gapcam_bench.statistics.bootstrap import percentile_intervals
from gapcam_bench.statistics.nearest_rank import percentiles_of

PERCENTILES = (50, 90, 95, 99, 99.9)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one stage, in milliseconds. Percentiles are by nearest rank: durations that occurred.

    Attributes:
        count: of samples.
        mean_ms: arithmetic.
        sd_ms: standard deviation of the samples, with count - 1; 0 of a single one.
        p50_ms: median.
        p90_ms: percentile.
        p95_ms: percentile.
        p99_ms: percentile; of fewer than 100 samples the greatest.
        p999_ms: percentile; of fewer than 1000 samples the greatest.
        max_ms: the greatest.
        p50_ci_ms: bootstrap confidence interval of the median, at 95 %: see `gapcam_bench.statistics.bootstrap`. Of the
            samples of one process, differences between processes are not in it. None of a single sample, of two
            processes, and where it would reach beyond ten times the median, or below a tenth of it.
        p99_ci_ms: likewise, of the p99.
    """

    count: Annotated[int, msgspec.Meta(ge=1)]
    mean_ms: float
    sd_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    p50_ci_ms: tuple[float, float] | None
    p99_ci_ms: tuple[float, float] | None


def figures_of(samples_ns: NDArray[np.int64], blocks: NDArray[np.int32], *, seed: int = 0) -> Figures:
    """All figures of one stage.

    Args:
        samples_ns: [n] durations in nanoseconds, n at least 1, in the order in which each block measured them.
        blocks: [n] which block (process) each is of.
        seed: of the bootstrap.

    Raises:
        ValueError: there is no sample, or not one block a sample.
    """
    if not len(samples_ns) or samples_ns.shape != blocks.shape:
        raise ValueError(
            f"got {samples_ns.shape} samples of {blocks.shape} blocks; expected one block each, and a sample"
        )
    p50, p90, p95, p99, p999 = (value / NS_PER_MS for value in percentiles_of(samples_ns, PERCENTILES).tolist())
    p50_ci, p99_ci = (
        None if ends is None else (ends[0] / NS_PER_MS, ends[1] / NS_PER_MS)
        for ends in percentile_intervals(samples_ns, blocks, (50, 99), seed=seed)
    )
    return Figures(
        count=len(samples_ns),
        mean_ms=float(samples_ns.mean()) / NS_PER_MS,
        sd_ms=float(samples_ns.std(ddof=1)) / NS_PER_MS if len(samples_ns) > 1 else 0.0,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=float(samples_ns.max()) / NS_PER_MS,
        p50_ci_ms=p50_ci,
        p99_ci_ms=p99_ci,
    )
