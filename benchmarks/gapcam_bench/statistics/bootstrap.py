"""How sure a percentile is, when samples of one process resemble one another, and processes differ.

Two bootstraps (Efron 1979), because there are two reasons why another run would give another percentile:

- between blocks: whole blocks (processes) are drawn with replacement, as in a cluster bootstrap (Davison and Hinkley,
  Bootstrap Methods and their Application, 1997, section 3.8). It contains the noise within the blocks already.
- within blocks: every block is kept and filled with chunks of neighbouring samples, drawn anywhere in it, past whose
  end its beginning follows (circular block bootstrap, Politis and Romano 1992), since neighbours resemble one another.

Doing both at once in each replicate would count the noise within blocks twice.

Few blocks: of B blocks the first bootstrap finds a variance that is too small by (B - 1) / B, and the percentiles of
its replicates cannot lie outside the blocks that are there: of three processes such an interval holds the truth three
times in four. So the interval is not made of the replicates' percentiles but of their standard deviation, corrected by
sqrt(B / (B - 1)), times Student's t with B - 1 degrees of freedom (Hesterberg 2015, What Teachers Should Know About the
Bootstrap). The interval is the wider one of the two bootstraps', and never narrower than that of order statistics,
which needs no assumption but independence: a bootstrap knows little of a p99 that is the third greatest sample.

Two blocks give no interval: Student's t is 12.7 then, of the logarithm of a deviation that two numbers hardly tell. Nor
does any number of them where a bootstrap reaches beyond `MOST_TIMES` the percentile.

What the interval holds is the percentile that such a run finds on average, with as many processes and samples. The p99
of a thousand processes lies higher than that of five, if processes differ more than samples of one of them: no figure
of five processes can say by how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.statistics.nearest_rank import nearest_rank, percentiles_of

BETWEEN_REPLICATES = 1000
WITHIN_REPLICATES = 200
MOST_RESAMPLED = 5_000
"""Samples of one replicate within blocks. Of more, so many are drawn, and the deviation is scaled by the square root of
the share (m out of n bootstrap, Bickel, Goetze and van Zwet 1997)."""
MOST_TIMES = 10.0
"""The percentile, or that part of it: an interval that reaches farther says no more than that nothing is known."""

FloatArray = NDArray[np.float64]


def percentile_intervals(
    samples: NDArray[np.int64],
    blocks: NDArray[np.int32],
    percentiles: Sequence[float],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[tuple[float, float] | None]:
    """Confidence intervals of percentiles by nearest rank of all samples together.

    With one block, differences between processes are not in the interval.

    Args:
        samples: in the order in which they were measured within each block; at least one.
        blocks: which block each is of, by any number.
        percentiles: in (0, 100].
        confidence: of the intervals.
        seed: of the resampling: the same samples give the same intervals.

    Returns:
        (low, high) of each percentile, which lies between them. Where all samples are positive, the bootstraps work on
        a logarithmic scale, and the interval is positive, too. Where none is negative, it ends at 0. None of a single
        sample, of two blocks, and where the logarithmic bootstrap reaches beyond `MOST_TIMES` the percentile.
    """
    from scipy.stats import binom
    from scipy.stats import t as student

    parts = split(samples, blocks)
    if len(samples) == 1 or len(parts) == 2:
        return [None] * len(percentiles)
    points = percentiles_of(samples, percentiles).astype(np.float64)
    logarithmic = bool(samples.min() > 0)
    scale = np.log if logarithmic else np.asarray
    random = np.random.default_rng(seed)
    tail = (1 + confidence) / 2
    lengths = [chunk_length(part) for part in parts]
    within = np.std(scale(_within_replicates(parts, lengths, percentiles, random)), axis=0, ddof=1)
    within *= math.sqrt(min(1.0, MOST_RESAMPLED / len(samples)))
    chunks = sum(math.ceil(len(part) / length) for part, length in zip(parts, lengths, strict=True))
    half = within * student.ppf(tail, max(chunks - 1, 1))
    if len(parts) > 1:
        between = np.std(scale(_between_replicates(parts, percentiles, random)), axis=0, ddof=1)
        between *= math.sqrt(len(parts) / (len(parts) - 1))
        half = np.maximum(half, between * student.ppf(tail, len(parts) - 1))
    far = half > (math.log(MOST_TIMES) if logarithmic else math.inf)
    half = np.where(far, 0.0, half)
    low, high = (points / np.exp(half), points * np.exp(half)) if logarithmic else (points - half, points + half)
    shares, ascending = np.asarray(percentiles) / 100, np.sort(samples)
    lowest = np.maximum(binom.ppf(1 - tail, len(samples), shares), 1).astype(int) - 1
    highest = np.minimum(binom.ppf(tail, len(samples), shares) + 1, len(samples)).astype(int) - 1
    low, high = np.minimum(low, ascending[lowest]), np.maximum(high, ascending[highest])
    if samples.min() >= 0:
        low = np.maximum(low, 0.0)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return [None if unknown else each for each, unknown in zip(ends, far.tolist(), strict=True)]


def split(samples: NDArray[np.int64], blocks: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """The samples of each block, blocks by their number, samples in their order."""
    order = np.argsort(blocks, kind="stable")
    starts = np.flatnonzero(np.diff(blocks[order])) + 1
    return np.split(samples[order], starts)


def chunk_length(samples: NDArray[np.int64]) -> int:
    """How many neighbouring samples are drawn together.

    The length that is best for the variance of a mean where each sample depends on the one before it, with their
    correlation estimated from ranks, so that outliers do not decide (Politis and White 2004, corrected by Patton,
    Politis and White 2009). Never below the cube root of the count: slow waves leave no trace between neighbours.
    """
    count = len(samples)
    if count < 8:
        return 1
    ranks = np.empty(count)
    ranks[np.argsort(samples)] = np.arange(count) - (count - 1) / 2
    products = float((ranks[1:] * ranks[:-1]).sum())  # no BLAS: its threads are not for so little
    correlation = min(max(products / (count * (count**2 - 1) / 12), 0.0), 0.97)
    best = (1.5 * (2 * correlation / (1 - correlation**2)) ** 2 * count) ** (1 / 3)
    return int(min(math.ceil(max(best, count ** (1 / 3))), count // 4))


def _between_replicates(
    parts: Sequence[NDArray[np.int64]], percentiles: Sequence[float], random: np.random.Generator
) -> FloatArray:
    """[replicates, percentiles] of blocks drawn with replacement.

    No replicate is built: how many samples of each block are at most the j-th smallest of all is counted once, and each
    replicate's percentile found by bisection in weighted sums of these counts.
    """
    together = np.concatenate(parts)
    order = np.argsort(together, kind="stable")
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    counts = np.cumsum(owner == np.arange(len(parts))[:, None], axis=1, dtype=np.int64)
    drawn = random.multinomial(len(parts), [1 / len(parts)] * len(parts), size=BETWEEN_REPLICATES)
    sizes = drawn @ counts[:, -1]
    ascending = together[order]
    found = np.empty((BETWEEN_REPLICATES, len(percentiles)))
    for column, percentile in enumerate(percentiles):
        wanted = nearest_rank(sizes, percentile)
        low, high = np.zeros(len(sizes), np.int64), np.full(len(sizes), len(ascending) - 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = np.einsum("rb,br->r", drawn, counts[:, middle]) >= wanted
            low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
        found[:, column] = ascending[low]
    return found


def _within_replicates(
    parts: Sequence[NDArray[np.int64]],
    lengths: Sequence[int],
    percentiles: Sequence[float],
    random: np.random.Generator,
) -> FloatArray:
    """[replicates, percentiles] of blocks filled with chunks of their own, of these lengths."""
    total = sum(len(part) for part in parts)
    share = min(1.0, MOST_RESAMPLED / total)
    filled = []
    for part, length in zip(parts, lengths, strict=True):
        count = max(1, round(len(part) * share))
        starts = random.integers(len(part), size=(WITHIN_REPLICATES, math.ceil(count / length)))
        longer = np.concatenate([part, part[: length - 1]])
        windows = np.lib.stride_tricks.sliding_window_view(longer, length)
        filled.append(windows[starts].reshape(WITHIN_REPLICATES, -1)[:, :count])
    samples = np.concatenate(filled, axis=1)
    ranks = [int(nearest_rank(np.array([samples.shape[1]]), p)[0]) - 1 for p in percentiles]
    samples.partition(sorted(set(ranks)), axis=1)
    return samples[:, ranks].astype(np.float64)
