"""MLPerf's early stopping, held against the counts in its rules, LoadGen's search, and the binomial distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from gapcam_bench.statistics.early_stopping import early_stopping_estimate, keeps_bound, least_queries


@pytest.mark.parametrize(("percentile", "queries"), [(90, 64), (95, 130), (97, 219), (99, 662), (99.9, 6636)])
def test_a_percentile_needs_as_many_queries_as_in_the_rules(percentile, queries):
    latencies = np.arange(1, queries + 1)
    assert least_queries(percentile) == queries
    assert early_stopping_estimate(latencies, percentile) == queries  # one given away: the greatest itself
    assert early_stopping_estimate(latencies[:-1], percentile) is None


def test_a_bound_that_nobody_broke_needs_fewer():
    assert least_queries(99, over=0) == 459
    assert least_queries(90, over=0) == 44


@pytest.mark.parametrize("percentile", [90, 97, 99])
@pytest.mark.parametrize("count", [64, 100, 663, 838, 1000, 2048, 5000])
def test_the_estimate_is_loadgens(percentile, count):
    """LoadGen looks for the first t whose h + t is more than there are queries, and takes the one before it."""

    def fits(over: int) -> bool:
        below = count - over
        return below > 0 and binom.cdf(over, below + over, 1 - percentile / 100) < 0.01

    latencies = np.random.default_rng(count).permutation(np.arange(1, count + 1))
    if not fits(1):
        assert early_stopping_estimate(latencies, percentile) is None
        return
    over = 1
    while fits(over + 1):
        over += 1
    assert early_stopping_estimate(latencies, percentile) == count - over + 1


def test_of_2048_queries_loadgen_discards_172():
    # From a published log of LoadGen: "Would discard 172 highest latency queries" for the p90.
    assert early_stopping_estimate(np.arange(1, 2049), 90) == 2048 - 172


@pytest.mark.parametrize(("percentile", "count"), [(90, 200), (99, 1000)])
def test_the_estimate_is_above_the_percentile_99_times_of_100(percentile, count):
    random, below = np.random.default_rng(0), 0
    for _ in range(3000):
        estimate = early_stopping_estimate((random.random(count) * 1e9).astype(np.int64), percentile)
        below += estimate < percentile * 1e7
    assert below / 3000 <= 0.016  # 1 % and three standard errors


def test_a_bound_is_kept_where_few_enough_are_over_it():
    latencies = np.arange(1, 839)
    assert keeps_bound(latencies, 836)  # two of 838 over it, and these need 838
    assert not keeps_bound(latencies, 835)
    assert not keeps_bound(latencies[:458], 1000)
    assert keeps_bound(latencies[:459], 1000)


def test_nothing_is_estimated_of_nothing():
    assert early_stopping_estimate(np.empty(0, np.int64), 90) is None
