"""What is too short or too noisy to be called a measurement, as sentences.

The coefficient of variation is judged without the slowest 1 % of the samples (at least one). A single pause of the
system among a thousand samples can lift it over any limit, and says nothing of the other 999: such a row is valid, its
p99.9 and its greatest sample show the pause, and a note names it. A row that is noisy throughout stays noisy.

Drift within blocks is that of the typical block (the median over the blocks): what happens in every process, such as a
processor that grows hot. What happened in one of them shows between the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gapcam.latency import NS_PER_MS
from gapcam_bench.limits import Limits
from gapcam_bench.statistics.bootstrap import split

SLOWEST = 0.01
LEAST_THIRD = 5
"""Samples of a third of a block, below which no drift is looked for in it."""


def reasons_invalid(
    total_ns: NDArray[np.int64],
    blocks: NDArray[np.int32],
    at_ns: NDArray[np.int64],
    limits: Limits,
    *,
    stable: Sequence[bool],
) -> tuple[str, ...]:
    """Why a row is no valid measurement, a sentence each; nothing for a valid one.

    Args:
        total_ns: [n] durations of all its samples.
        blocks: [n] which block each is of.
        at_ns: [n] when each began, from its block's start.
        limits: what is valid.
        stable: of each block, whether its warm-up stood still.
    """
    reasons = []
    if len(total_ns) < limits.least_row_samples:
        reasons.append(f"too few samples: {len(total_ns)}, at least {limits.least_row_samples} are needed")
    if len(total_ns) > 1:
        kept = _without_slowest(total_ns)
        if (steady := _variation(kept)) > limits.most_variation:
            reasons.append(
                f"too noisy: the coefficient of variation is {steady:.2f} without the slowest "
                f"{len(total_ns) - len(kept)} of {len(total_ns)} samples, and {_variation(total_ns):.2f} with them; "
                f"at most {limits.most_variation:g} is valid"
            )
    if len(total_ns):
        order = np.argsort(at_ns, kind="stable")
        parts = split(total_ns[order], blocks[order])
        reasons += [*_between(parts, limits.most_drift), *_within(parts, limits.most_drift)]
    if unstable := sum(not each for each in stable):
        reasons.append(f"not warm: in {unstable} of {len(stable)} blocks the warm-up never stood still")
    return tuple(reasons)


def notes_on_noise(total_ns: NDArray[np.int64], limits: Limits) -> tuple[str, ...]:
    """What a reader of a valid row should know: a few samples that alone lift the variation over the limit."""
    if len(total_ns) < 2:
        return ()
    kept = _without_slowest(total_ns)
    if _variation(kept) > limits.most_variation or _variation(total_ns) <= limits.most_variation:
        return ()
    far = total_ns > kept.max()
    times = float(total_ns.max()) / float(np.median(total_ns))
    return (
        f"{int(far.sum())} of {len(total_ns)} samples are far off, the slowest {times:.1f} times the median; the "
        f"coefficient of variation is {_variation(total_ns):.2f} with them and {_variation(kept):.2f} without",
    )


def _without_slowest(total_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    dropped = max(1, int(len(total_ns) * SLOWEST))
    return np.sort(total_ns)[: len(total_ns) - dropped]


def _variation(total_ns: NDArray[np.int64]) -> float:
    return float(total_ns.std(ddof=1) / total_ns.mean()) if len(total_ns) > 1 else 0.0


def _between(parts: Sequence[NDArray[np.int64]], limit: float) -> list[str]:
    medians = [float(np.median(part)) for part in parts]
    least, greatest = min(medians), max(medians)
    if greatest / least - 1 <= limit:
        return []
    return [
        f"drift between blocks: their medians are from {least / NS_PER_MS:.4g} to {greatest / NS_PER_MS:.4g} ms, "
        f"{greatest / least - 1:.0%} apart; at most {limit:.0%} is valid"
    ]


def _within(parts: Sequence[NDArray[np.int64]], limit: float) -> list[str]:
    rises = []
    for part in parts:
        third = len(part) // 3
        if third >= LEAST_THIRD:
            rises.append(float(np.median(part[-third:]) / np.median(part[:third])))
    if not rises:
        return []
    typical = float(np.median(rises))
    if max(typical, 1 / typical) - 1 <= limit:
        return []
    change = f"{typical - 1:.0%} slower" if typical > 1 else f"{1 - typical:.0%} faster"
    return [
        f"drift within blocks: their last third is {change} than their first, by the medians; "
        f"at most {limit:.0%} is valid"
    ]
