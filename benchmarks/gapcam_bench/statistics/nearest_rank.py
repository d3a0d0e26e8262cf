"""Percentiles by nearest rank: the smallest sample that at least so many percent of the samples do not exceed.

That is NumPy's "inverted_cdf", but for what float64 makes of percentages: 99.9 / 100 is a little more than 0.999, so
that of 1000 samples NumPy's p99.9 is the greatest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def nearest_rank(counts: NDArray[np.int64], percentile: float) -> NDArray[np.int64]:
    """Which of so many sorted samples the percentile is, counted from 1.

    Args:
        counts: of samples, each at least 1 and below 10^9.
        percentile: in (0, 100].
    """
    return np.maximum(np.ceil(np.round(counts * (percentile / 100), 6)), 1).astype(np.int64)


def percentiles_of(samples: NDArray[np.int64], percentiles: Sequence[float]) -> NDArray[np.int64]:
    """[percentiles] of at least one sample, each one that occurred."""
    count = np.array([len(samples)])
    at = np.concatenate([nearest_rank(count, percentile) for percentile in percentiles]) - 1
    found: NDArray[np.int64] = np.partition(samples, np.unique(at))[at]
    return found
