"""Figures and their intervals, held against other ways to compute them, and against simulated truth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import binom

from gapcam.latency import Latency
from gapcam_bench.statistics.bootstrap import (
    _between_replicates,
    _within_replicates,
    chunk_length,
    percentile_intervals,
    split,
)
from gapcam_bench.statistics.figures import figures_of
from gapcam_bench.statistics.nearest_rank import nearest_rank, percentiles_of


def processes(random, blocks, count, *, within=0.05, between=0.02, correlation=0.5, tail=0.0):
    """[blocks * count] nanoseconds around e^16, and their blocks: AR(1) in each, a level of its own, rare long ones."""
    noise = random.standard_normal((blocks, count + 100)) * math.sqrt(1 - correlation**2)
    waves = within * lfilter([1], [1, -correlation], noise, axis=1)[:, 100:]
    rare = np.where(random.random(waves.shape) < 0.01, random.exponential(tail or 1.0, waves.shape), 0) if tail else 0
    logs = 16 + between * random.standard_normal((blocks, 1)) + waves + rare
    return np.exp(logs).astype(np.int64).ravel(), np.repeat(np.arange(blocks, dtype=np.int32), count)


@pytest.mark.parametrize("count", [1, 2, 7, 99, 100, 101, 999, 1000, 1001, 2000])
def test_every_figure_is_what_its_definition_says(count):
    random = np.random.default_rng(count)
    samples = random.integers(1_000_000, 9_000_000, count)
    figures = figures_of(samples, np.zeros(count, np.int32))
    ascending = sorted(samples.tolist())
    for found, share in (
        (figures.p50_ms, Fraction(50, 100)),
        (figures.p90_ms, Fraction(90, 100)),
        (figures.p95_ms, Fraction(95, 100)),
        (figures.p99_ms, Fraction(99, 100)),
        (figures.p999_ms, Fraction(999, 1000)),
    ):
        assert found == ascending[math.ceil(share * count) - 1] / 1e6
    mean = sum(ascending) / count
    assert figures.count == count
    assert figures.max_ms == ascending[-1] / 1e6
    assert figures.mean_ms == pytest.approx(mean / 1e6, rel=1e-12)
    variance = sum((each - mean) ** 2 for each in ascending) / max(count - 1, 1)
    assert figures.sd_ms == pytest.approx(math.sqrt(variance) / 1e6, rel=1e-9)
    assert figures.p99_ms == Latency(samples.tolist()).p99_ms
    if count <= 2:
        assert figures.p50_ci_ms is figures.p99_ci_ms is None, "of so few samples no interval is known"
        return
    assert figures.p50_ci_ms[0] <= figures.p50_ms <= figures.p50_ci_ms[1]
    assert figures.p99_ci_ms[0] <= figures.p99_ms <= figures.p99_ci_ms[1]


@pytest.mark.parametrize("percentile", ["50", "90", "95", "99", "99.9", "100", "0.1"])
def test_the_rank_is_exact_for_all_small_counts_and_large_ones(percentile):
    counts = np.array([*range(1, 2500), 10**6, 10**6 + 1, 10**8, 10**8 + 1])
    exact = [math.ceil(Fraction(percentile) / 100 * count) for count in counts.tolist()]
    assert nearest_rank(counts, float(percentile)).tolist() == exact


def test_percentiles_are_numpys_where_float64_is_exact_enough():
    samples = np.random.default_rng(0).integers(0, 1000, 777)
    percentiles = (99, 50, 90, 95, 90)
    assert percentiles_of(samples, percentiles).tolist() == [
        np.percentile(samples, percentile, method="inverted_cdf") for percentile in percentiles
    ]


def test_figures_without_a_sample_are_refused():
    with pytest.raises(ValueError, match="expected one block each, and a sample"):
        figures_of(np.empty(0, np.int64), np.empty(0, np.int32))
    with pytest.raises(ValueError, match="expected one block each"):
        figures_of(np.ones(3, np.int64), np.zeros(2, np.int32))


def test_blocks_drawn_by_counting_are_blocks_drawn_by_hand():
    random = np.random.default_rng(5)
    parts = [random.integers(0, 50, size) for size in (3, 40, 11, 8)]  # many equal values, too
    found = _between_replicates(parts, (50, 90, 99), np.random.default_rng(1))
    drawn = np.random.default_rng(1).multinomial(4, [0.25] * 4, size=len(found))
    for times, percentiles in zip(drawn, found, strict=True):
        together = np.concatenate([part for part, often in zip(parts, times, strict=True) for _ in range(often)])
        assert percentiles.tolist() == np.percentile(together, (50, 90, 99), method="inverted_cdf").tolist()


def test_chunks_come_from_their_own_block_and_keep_their_order():
    parts = [np.arange(100, 200), np.arange(1000, 1037)]
    random = np.random.default_rng(0)
    replicates = _within_replicates(parts, [10, 4], (50, 100), random)
    assert ((replicates[:, 0] >= 100) & (replicates[:, 0] < 200)).all()  # most samples are of the first block
    assert ((replicates[:, 1] >= 1000) & (replicates[:, 1] < 1037)).all()


def test_samples_are_split_by_their_block_in_their_order():
    parts = split(np.array([5, 1, 4, 2, 3]), np.array([7, 2, 7, 2, 9], np.int32))
    assert [part.tolist() for part in parts] == [[1, 2], [5, 4], [3]]


def test_chunks_are_longer_the_more_neighbours_resemble_one_another():
    lengths = []
    for correlation in (0.0, 0.6, 0.9):
        samples, _ = processes(np.random.default_rng(0), 1, 1000, correlation=correlation)
        lengths.append(chunk_length(samples))
    assert lengths[0] == 10 < lengths[1] < lengths[2] <= 250


def test_the_interval_of_one_process_is_as_wide_as_its_median_varies():
    # The truth of the simulation: how far medians of such processes really lie apart.
    medians, halves = [], []
    for seed in range(150):
        samples, blocks = processes(np.random.default_rng(seed), 1, 400, between=0, correlation=0.7)
        ((low, high),) = percentile_intervals(samples, blocks, [50], seed=seed)
        medians.append(math.log(np.median(samples)))
        halves.append(math.log(high / low) / 2)
    assert np.mean(halves) == pytest.approx(1.96 * np.std(medians), rel=0.25)


@pytest.mark.parametrize("blocks", [3, 5, 10])
def test_intervals_of_few_processes_hold_the_truth_as_often_as_they_say(blocks):
    held, held_by_order_statistics, count = 0, 0, 100
    for seed in range(200):
        samples, owners = processes(np.random.default_rng([blocks, seed]), blocks, count)
        ((low, high),) = percentile_intervals(samples, owners, [50], seed=seed)
        held += low <= math.exp(16) <= high
        ascending = np.sort(samples)
        ranks = binom.ppf([0.025, 0.975], len(samples), 0.5).astype(int)
        held_by_order_statistics += ascending[ranks[0] - 1] <= math.exp(16) <= ascending[ranks[1]]
    assert held / 200 >= 0.90  # 95 % less three standard errors of 200 trials
    assert held_by_order_statistics / 200 < 0.65  # what taking the samples for independent would give


def test_intervals_of_the_p99_hold_what_such_runs_find():
    found, intervals = [], []
    for seed in range(150):
        samples, blocks = processes(np.random.default_rng(seed), 5, 300, tail=0.5)
        found.append(math.log(np.percentile(samples, 99, method="inverted_cdf")))
        intervals.append(np.log(percentile_intervals(samples, blocks, [99], seed=seed)[0]))
    low, high = np.transpose(intervals)
    assert np.mean((low <= np.mean(found)) & (np.mean(found) <= high)) >= 0.90


def test_intervals_of_very_many_samples_are_those_of_all_of_them():
    # More than are resampled: the deviation is scaled, and agrees with the normal theory of a median.
    samples, blocks = processes(np.random.default_rng(3), 1, 80_000, correlation=0)
    ((low, high),) = percentile_intervals(samples, blocks, [50])
    assert math.log(high / low) / 2 == pytest.approx(1.96 * 1.2533 * 0.05 / math.sqrt(80_000), rel=0.25)


def test_the_same_samples_give_the_same_intervals():
    samples, blocks = processes(np.random.default_rng(0), 4, 60)
    assert figures_of(samples, blocks) == figures_of(samples, blocks)
    assert figures_of(samples, blocks, seed=1).p50_ci_ms != figures_of(samples, blocks).p50_ci_ms


def test_what_no_stage_explains_may_be_nothing_or_less():
    samples = np.random.default_rng(0).integers(-50, 50, 300)
    figures = figures_of(samples, np.repeat(np.arange(3, dtype=np.int32), 100))
    assert figures.p50_ci_ms[0] < figures.p50_ms < figures.p50_ci_ms[1]
    nothing = figures_of(np.zeros(30, np.int64), np.repeat(np.arange(3, dtype=np.int32), 10))
    assert nothing.p50_ci_ms == nothing.p99_ci_ms == (0, 0)


def test_no_interval_of_durations_is_negative_though_one_of_them_is_nothing():
    blocks = np.repeat(np.arange(3, dtype=np.int32), 100)
    samples = np.random.default_rng(0).integers(1, 50, 300)
    samples[blocks == 1] *= 40
    samples[7] = 0
    figures = figures_of(samples, blocks)
    assert 0 == figures.p50_ci_ms[0] < figures.p50_ms < figures.p50_ci_ms[1]
    assert figures_of(samples - 1, blocks).p50_ci_ms[0] < 0  # where something is negative, so may the interval be


def three_constant_blocks(apart):
    """Each a level e^apart times the one before it."""
    levels = np.round(1e9 * np.exp(apart * np.arange(3))).astype(np.int64)
    return np.repeat(levels, 50), np.repeat(np.arange(3, dtype=np.int32), 50)


EXACT = math.sqrt(14 / 27) * math.sqrt(3 / 2) * 4.303
"""Half an interval of the median of three constant blocks, in units of what lies between them.

The outer ones are its median in 7 of 27 draws each: a variance of 14 / 27. That of B blocks is too small by
(B - 1) / B, and what it is corrected by is times Student's t.
"""


def test_the_interval_of_few_processes_is_that_of_their_exact_bootstrap():
    ((low, high),) = percentile_intervals(*three_constant_blocks(0.01), [50])
    assert math.log(high / low) / 2 == pytest.approx(0.01 * EXACT, rel=0.08)


def test_an_interval_that_would_reach_beyond_ten_times_its_figure_is_none():
    most = math.log(10) / EXACT
    ((low, high),) = percentile_intervals(*three_constant_blocks(0.9 * most), [50])
    assert 5 < math.sqrt(high / low) < 10
    assert percentile_intervals(*three_constant_blocks(1.1 * most), [50]) == [None]
    samples, blocks = three_constant_blocks(0.01)
    samples[:10] *= 10_000  # in one process of three: so the p99 is anywhere, and the median is not
    figures = figures_of(samples, blocks)
    assert figures.p99_ci_ms is None
    assert figures.p50_ci_ms[1] < 1.1 * figures.p50_ms


@pytest.mark.parametrize("between", [0, 0.02, 1])
def test_two_processes_give_no_interval_however_alike_they_are(between):
    figures = figures_of(*processes(np.random.default_rng(0), 2, 300, between=between))
    assert figures.p50_ci_ms is figures.p99_ci_ms is None
