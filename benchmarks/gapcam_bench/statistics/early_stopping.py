"""What MLPerf says of a percentile when there are few queries: an upper bound instead of the percentile itself.

A latency is an upper bound of the p-th percentile, at confidence c, if so few of the queries took longer that this
would have happened with probability at most 1 - c were the true percentile above it. The number of queries that take
longer is binomial, so the k-th greatest latency is the bound where

    P(at most k of n queries take longer | each does with probability 1 - p) <= 1 - c

and the greatest such k gives the lowest bound. MLPerf Inference Rules, "Early stopping", and LoadGen, which it agrees
with: c = 0.99, a tolerance of 0, and at least one query is given away, so that a p90 needs 64 queries and a p99 662.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99


def early_stopping_estimate(
    latencies_ns: NDArray[np.int64], percentile: float, *, confidence: float = CONFIDENCE
) -> int | None:
    """The conservative estimate of a percentile, in nanoseconds; None where there are too few queries.

    Args:
        latencies_ns: [n] in any order. They are taken as independent, which MLPerf does, too.
        percentile: in (0, 100).
        confidence: in (0, 1).
    """
    given_away = _given_away(len(latencies_ns), percentile / 100, confidence)
    if given_away < 1:
        return None
    at = len(latencies_ns) - given_away
    return int(np.partition(latencies_ns, at)[at])


def least_queries(percentile: float, *, confidence: float = CONFIDENCE, over: int = 1) -> int:
    """How many queries there must be for a percentile, if `over` of them took longer than the bound."""
    from scipy.stats import binom

    low, high = over, max(2 * over, 2)
    share = 1 - percentile / 100
    while binom.cdf(over, high, share) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binom.cdf(over, middle, share) > 1 - confidence else (low, middle)
    return high


def keeps_bound(latencies_ns: NDArray[np.int64], bound_ns: float, percentile: float = 99) -> bool:
    """Whether MLPerf's server scenario takes the bound as kept: enough queries for those that took longer."""
    over = int((latencies_ns > bound_ns).sum())
    return len(latencies_ns) >= least_queries(percentile, over=over)


def _given_away(count: int, share: float, confidence: float) -> int:
    """The greatest k with P(at most k of n take longer) <= 1 - c; 0 or less where there is none."""
    from scipy.stats import binom

    if not count:
        return 0
    k = int(binom.ppf(1 - confidence, count, 1 - share)) + 1  # the first whose distribution function is above, or next
    while k >= 0 and binom.cdf(k, count, 1 - share) > 1 - confidence:
        k -= 1
    return k
