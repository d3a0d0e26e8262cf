"""Ratios between rows, held against SciPy's t tests and against simulated processes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gapcam_bench.statistics.holm import holm
from gapcam_bench.statistics.ratio import paired_ratio, ratio_of_medians, ratio_of_ratios


def row(random, blocks, count, *, level=10e6, within=0.05, between=0.02, rounds=None):
    """Samples and blocks; `rounds` are levels that the blocks share with another row."""
    shared = np.zeros(blocks) if rounds is None else rounds
    levels = level * np.exp(between * random.standard_normal(blocks) + shared)
    samples = levels[:, None] * np.exp(within * random.standard_normal((blocks, count)))
    return samples.astype(np.int64).ravel(), np.repeat(np.arange(blocks, dtype=np.int32), count)


def log_percentiles(samples, blocks, percentile):
    return np.array(
        [
            math.log(np.percentile(samples[blocks == each], percentile, method="inverted_cdf"))
            for each in np.unique(blocks)
        ]
    )


@pytest.mark.parametrize("percentile", [50, 90])
def test_between_processes_it_is_welchs_test_of_log_percentiles(percentile):
    random = np.random.default_rng(0)
    new, old = row(random, 5, 200), row(random, 3, 150, level=9e6, between=0.05)
    found = ratio_of_medians(*new, *old, percentile=percentile, confidence=0.9)
    a, b = log_percentiles(*new, percentile), log_percentiles(*old, percentile)
    scipys = stats.ttest_ind(a, b, equal_var=False)
    interval = scipys.confidence_interval(0.9)
    assert found.ratio == pytest.approx(math.exp(a.mean() - b.mean()))
    assert found.ci == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    assert found.p == pytest.approx(scipys.pvalue)
    assert found.between_processes


def test_rounds_in_common_are_compared_by_a_paired_test():
    random = np.random.default_rng(0)
    machine = 0.2 * random.standard_normal(6)
    new, old = row(random, 6, 100, level=11e6, rounds=machine), row(random, 6, 100, rounds=machine)
    kept = new[1] != 4  # a round that one of them lacks
    found = paired_ratio(new[0][kept], new[1][kept], *old)
    others = np.delete(np.arange(6), 4)
    scipys = stats.ttest_rel(log_percentiles(*new, 50)[others], log_percentiles(*old, 50)[others])
    assert found.p == pytest.approx(scipys.pvalue)
    assert found.ci == pytest.approx(tuple(math.exp(end) for end in scipys.confidence_interval(0.95)))
    assert found.ci[0] < 1.1 < found.ci[1]
    apart = ratio_of_medians(*new, *old)
    assert math.log(apart.ci_high / apart.ci_low) > 3 * math.log(found.ci_high / found.ci_low)


@pytest.mark.parametrize("compared", [ratio_of_medians, paired_ratio])
def test_with_two_processes_the_interval_says_that_it_does_not_know_them(compared):
    random = np.random.default_rng(1)
    new, old = row(random, 2, 300, between=0), row(random, 2, 300, between=0)
    found = compared(*new, *old)
    assert not found.between_processes
    assert found.ci_low < 1 < found.ci_high
    chunks = [np.concatenate([np.array_split(part, 10) for part in np.split(side[0], 2)]) for side in (new, old)]
    a, b = ([math.log(np.percentile(chunk, 50, method="inverted_cdf")) for chunk in side] for side in chunks)
    assert found.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_a_ratio_in_units_that_are_measured_too_is_as_sure_as_both_together():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        logs = [
            random.normal(mean, sd, size) for mean, sd, size in ((2, 0.1, 5), (1, 0.2, 4), (0.7, 0.1, 6), (0, 0.3, 3))
        ]
        low, high = np.log(ratio_of_ratios(*logs).ci)
        held += low <= (2 - 1) - (0.7 - 0) <= high
    assert 0.93 <= held / 1000 <= 0.985
    exact = ratio_of_ratios(*logs[:2], np.full(3, 0.5), np.full(3, 0.5))  # of an exact unit it is Welch's test
    scipys = stats.ttest_ind(logs[0], logs[1], equal_var=False)
    assert exact.p == pytest.approx(scipys.pvalue)


def test_a_single_sample_on_each_side_tells_nothing():
    one = np.array([10], np.int64), np.zeros(1, np.int32)
    found = ratio_of_medians(np.array([20], np.int64), np.zeros(1, np.int32), *one)
    assert found.ratio == pytest.approx(2)
    assert (found.ci, found.p, found.between_processes) == ((0.0, math.inf), 1.0, False)


def test_equal_constants_are_equal_and_different_ones_are_not():
    blocks = np.repeat(np.arange(3, dtype=np.int32), 4)
    five, six = np.full(12, 5, np.int64), np.full(12, 6, np.int64)
    assert ratio_of_medians(five, blocks, five, blocks).p == 1
    assert ratio_of_medians(six, blocks, five, blocks).p < 1e-20


@pytest.mark.parametrize("count", [39, 50, 60])
def test_a_p99_does_not_rise_because_there_are_more_samples(count):
    # Of 20 samples the p99 is the greatest, and so of 39 or 60: which is greater.
    random, ratios, naive = np.random.default_rng(count), [], []
    for _ in range(400):
        new, old = row(random, 4, count, within=0.2, between=0), row(random, 4, 20, within=0.2, between=0)
        ratios.append(math.log(ratio_of_medians(*new, *old, percentile=99).ratio))
        naive.append(log_percentiles(*new, 99).mean() - log_percentiles(*old, 99).mean())
    error = np.std(ratios) / math.sqrt(len(ratios))
    assert np.mean(naive) > 0.04
    assert abs(np.mean(ratios)) < 3.5 * error
    assert error < 0.005


def test_no_samples_and_no_durations_are_refused():
    some = np.array([1, 2], np.int64), np.zeros(2, np.int32)
    with pytest.raises(ValueError, match="got 0 samples"):
        ratio_of_medians(np.empty(0, np.int64), np.empty(0, np.int32), *some)
    with pytest.raises(ValueError, match="the least 0; expected positive"):
        ratio_of_medians(*some, np.array([0, 2], np.int64), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="expected some in both"):
        paired_ratio(*some, np.array([1, 2], np.int64), np.ones(2, np.int32))


def test_holms_adjustment_is_the_closure_of_bonferronis():
    """An hypothesis falls at alpha where every set of hypotheses that it is in falls by Bonferroni."""
    random = np.random.default_rng(0)
    for count in range(1, 7):
        for _ in range(5):
            p = (random.random(count) ** 3).tolist()
            closed = [
                max(
                    min(1.0, size * min(p[at] for at in chosen))
                    for size in range(1, count + 1)
                    for chosen in itertools.combinations(range(count), size)
                    if hypothesis in chosen
                )
                for hypothesis in range(count)
            ]
            assert holm(p) == pytest.approx(closed)
    assert holm([]) == []
