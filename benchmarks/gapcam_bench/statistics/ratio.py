"""How many times longer one thing takes than another, with a confidence interval and a test.

What is repeated is the process, not the sample: a process keeps its memory layout and its neighbours as long as it
lives, so that a thousand samples of one process say little about the next (Kalibera and Jones 2013, Rigorous
Benchmarking in Reasonable Time). So each block gives one number, the logarithm of its percentile, and these are
compared by Welch's t test.

With fewer than three blocks on a side, consecutive chunks of samples take the blocks' place (batch means). Such an
interval does not know how processes differ, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.statistics.bootstrap import split
from gapcam_bench.statistics.nearest_rank import percentiles_of

LEAST_BLOCKS = 3
"""On each side, for a test between processes; likewise of chunks, for any interval."""

CHUNKS = 10
"""That a block is cut into where there are too few blocks."""

LEAST_BEYOND = 10
"""Samples of a block beyond its percentile. With fewer, the percentile depends on how many samples there are."""

FloatArray = NDArray[np.float64]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """New over old: above 1 is slower.

    Attributes:
        ratio: of the geometric means of the blocks' percentiles.
        ci_low: of its confidence interval, at 95 % where nothing else was asked for; 0 where nothing is known.
        ci_high: likewise; infinite (null in JSON) where nothing is known.
        p: how probable a ratio so far from 1, or farther, were if there was no difference.
        between_processes: whether differences between processes are in the interval. If not, the interval is too
            narrow: there were fewer than three blocks.
    """

    ratio: float
    ci_low: float
    ci_high: float
    p: float
    between_processes: bool

    @property
    def ci(self) -> tuple[float, float]:
        """The interval."""
        return self.ci_low, self.ci_high


def ratio_of_medians(
    new_ns: NDArray[np.int64],
    new_blocks: NDArray[np.int32],
    old_ns: NDArray[np.int64],
    old_blocks: NDArray[np.int32],
    *,
    percentile: float = 50,
    confidence: float = 0.95,
) -> Ratio:
    """Compare two rows that were measured apart.

    Args:
        new_ns: [n] positive durations, in the order in which each block measured them.
        new_blocks: [n] which block each is of.
        old_ns: likewise, [m].
        old_blocks: likewise.
        percentile: what is compared, by nearest rank.
        confidence: of the interval.

    Raises:
        ValueError: a side has no sample, or one that is not positive.
    """
    new, old = _parts(new_ns, new_blocks), _parts(old_ns, old_blocks)
    enough = min(len(new), len(old)) >= LEAST_BLOCKS
    if not enough:
        new, old = _chunks(new), _chunks(old)
    new_logs, old_logs = _logs_of_both(new, old, percentile)
    return ratio_of_blocks(new_logs, old_logs, confidence=confidence, between_processes=enough)


def paired_ratio(
    new_ns: NDArray[np.int64],
    new_blocks: NDArray[np.int32],
    old_ns: NDArray[np.int64],
    old_blocks: NDArray[np.int32],
    *,
    percentile: float = 50,
    confidence: float = 0.95,
) -> Ratio:
    """Compare two rows of one run, whose blocks of the same number were measured in the same round.

    What slows a whole round cancels out: the ratio is taken round by round. Blocks that only one row has are left out.

    Raises:
        ValueError: no round is in both, or a sample is not positive.
    """
    new, old = (
        dict(zip(np.unique(blocks).tolist(), _parts(ns, blocks), strict=True))
        for ns, blocks in ((new_ns, new_blocks), (old_ns, old_blocks))
    )
    rounds = sorted(new.keys() & old.keys())
    if not rounds:
        raise ValueError(f"got rounds {sorted(new)} and {sorted(old)}; expected some in both")
    news, olds = [new[r] for r in rounds], [old[r] for r in rounds]
    if len(rounds) < LEAST_BLOCKS:
        new_logs, old_logs = _logs_of_both(_chunks(news), _chunks(olds), percentile)
        return ratio_of_blocks(new_logs, old_logs, confidence=confidence, between_processes=False)
    new_logs, old_logs = _logs_of_both(news, olds, percentile)
    differences = new_logs - old_logs
    error = float(differences.std(ddof=1)) / math.sqrt(len(rounds))
    return _by_student(float(differences.mean()), error, len(rounds) - 1, confidence, between_processes=True)


def ratio_of_blocks(
    new_logs: FloatArray, old_logs: FloatArray, *, confidence: float = 0.95, between_processes: bool = True
) -> Ratio:
    """Welch's t test (1947) of one logarithm a block, at least three on a side.

    Of fewer the interval is everything, and p is 1.
    """
    return _by_welch([new_logs], [old_logs], confidence, between_processes=between_processes)


def ratio_of_ratios(
    new_logs: FloatArray,
    old_logs: FloatArray,
    new_unit_logs: FloatArray,
    old_unit_logs: FloatArray,
    *,
    confidence: float = 0.95,
) -> Ratio:
    """The same for a ratio in units of something that was measured, too, and is not exact either.

    The degrees of freedom are Satterthwaite's (1946), of all four variances.
    """
    return _by_welch([new_logs, old_unit_logs], [old_logs, new_unit_logs], confidence, between_processes=True)


def _by_welch(
    over: Sequence[FloatArray], under: Sequence[FloatArray], confidence: float, *, between_processes: bool
) -> Ratio:
    difference = sum(float(logs.mean()) for logs in over) - sum(float(logs.mean()) for logs in under)
    sides = [*over, *under]
    if min(len(logs) for logs in sides) < LEAST_BLOCKS:
        return Ratio(ratio=math.exp(difference), ci_low=0.0, ci_high=math.inf, p=1.0, between_processes=False)
    variances = [float(logs.var(ddof=1)) / len(logs) for logs in sides]
    spread = sum(variance**2 / (len(logs) - 1) for variance, logs in zip(variances, sides, strict=True))
    freedom = sum(variances) ** 2 / spread if spread else math.inf
    return _by_student(difference, math.sqrt(sum(variances)), freedom, confidence, between_processes=between_processes)


def block_logs(
    new_ns: NDArray[np.int64],
    new_blocks: NDArray[np.int32],
    old_ns: NDArray[np.int64],
    old_blocks: NDArray[np.int32],
    *,
    percentile: float = 50,
) -> tuple[FloatArray, FloatArray]:
    """The logarithm of each block's percentile, new and old, blocks by their number: what `ratio_of_blocks` compares.

    Where a block has few samples beyond the percentile, all percentiles are of exactly as many samples as the shortest
    block has, and a longer block's number is the mean over windows of so many.
    """
    return _logs_of_both(_parts(new_ns, new_blocks), _parts(old_ns, old_blocks), percentile)


def _by_student(
    difference: float, error: float, freedom: float, confidence: float, *, between_processes: bool
) -> Ratio:
    from scipy.stats import norm, t

    law = t(freedom) if math.isfinite(freedom) else norm()
    half = float(law.ppf((1 + confidence) / 2)) * error
    p = float(difference == 0) if error == 0 else 2 * float(law.sf(abs(difference) / error))
    return Ratio(
        ratio=math.exp(difference),
        ci_low=math.exp(difference - half),
        ci_high=math.exp(difference + half),
        p=p,
        between_processes=between_processes,
    )


def _parts(ns: NDArray[np.int64], blocks: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    if not len(ns) or ns.min() <= 0:
        raise ValueError(
            f"got {len(ns)} samples{', the least ' + str(ns.min()) if len(ns) else ''}; expected positive ones"
        )
    return split(ns, blocks)


def _chunks(parts: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Each block cut into consecutive chunks."""
    return [chunk for part in parts for chunk in np.array_split(part, min(CHUNKS, len(part)))]


def _logs_of_both(
    new: Sequence[NDArray[np.int64]], old: Sequence[NDArray[np.int64]], percentile: float
) -> tuple[FloatArray, FloatArray]:
    count = _common_count([*new, *old], percentile)
    return _logs(new, percentile, count), _logs(old, percentile, count)


def _common_count(parts: Sequence[NDArray[np.int64]], percentile: float) -> int | None:
    """How many samples each block's percentile is to be of; None where the count does not matter.

    The p99 of 20 samples is their greatest, and that is greater the more samples there are. So where there are few,
    the percentiles of all blocks on both sides are of exactly as many as the shortest block has.
    """
    least = min(len(part) for part in parts)
    beyond = least * min(percentile, 100 - percentile) / 100
    return None if beyond >= LEAST_BEYOND else least


def _logs(parts: Sequence[NDArray[np.int64]], percentile: float, count: int | None) -> FloatArray:
    """Of each block the logarithm of its percentile, or the mean of those of its windows.

    Windows are of exactly `count` consecutive samples: as few as cover the block, evenly spaced, so that they overlap
    where the block is no multiple of them. A longer one would have a greater p99.
    """

    def log(part: NDArray[np.int64]) -> float:
        windows = [part]
        if count is not None:
            starts = np.linspace(0, len(part) - count, -(-len(part) // count)).astype(np.int64)
            windows = [part[start : start + count] for start in starts]
        return float(np.mean([math.log(percentiles_of(each, [percentile])[0]) for each in windows]))

    return np.array([log(part) for part in parts])
