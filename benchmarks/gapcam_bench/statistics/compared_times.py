"""What of a row is compared: times, so that a ratio above 1 is always slower; one logarithm a block.

| scenario                    | what                                                                         |
| --------------------------- | ---------------------------------------------------------------------------- |
| single-stream, multi-stream | median and p99 of the total                                                  |
| camera                      | median and p99 of the age                                                    |
| server                      | the time between queries at the highest rate that kept the bound: 1 / rate   |
| offline                     | the time a frame takes: 1 / throughput                                       |

A block of the server scenario in which no rate kept the bound has no such time, and says more than any that has one.
Where there are such blocks, what is tested is how many: by Barnard's exact test (1945) of their share in both results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.result import Row
from gapcam_bench.statistics.ratio import LEAST_BLOCKS, Ratio, block_logs, ratio_of_blocks, ratio_of_medians

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
FloatArray: TypeAlias = NDArray[np.float64]

NS_PER_S = 1e9
_PERCENTILES = {"median": 50.0, "p99": 99.0}
_SAMPLES = {"single-stream": "total", "multi-stream": "total", "camera": "age"}


@dataclass(frozen=True, slots=True, eq=False)
class ComparedTime:
    """One time of one row, in both results.

    Attributes:
        name: what it is.
        old: [blocks] the logarithm of nanoseconds, one a block.
        new: likewise.
        ratio: new over old; where blocks were lost, of the others, without an interval, and its p is of their number.
        lost: (old, new) server: blocks in which no rate kept the bound.
    """

    name: str
    old: FloatArray
    new: FloatArray
    ratio: Ratio
    lost: tuple[int, int] = (0, 0)

    @property
    def old_ms(self) -> float:
        """The geometric mean of the blocks, in milliseconds: what `ratio` is of. Infinite where all were lost."""
        return _milliseconds(self.old)

    @property
    def new_ms(self) -> float:
        """Likewise."""
        return _milliseconds(self.new)


def compared_times(old: Row, old_arrays: Arrays, new: Row, new_arrays: Arrays, confidence: float) -> list[ComparedTime]:
    """The times of a row that both results have samples of; none where one of them has none.

    Args:
        old: row.
        old_arrays: of its result.
        new: the row of the same cell.
        new_arrays: of its result.
        confidence: of the intervals.
    """
    scenario = new.cell.scenario
    if scenario in _SAMPLES:
        return _percentiles(old, old_arrays, new, new_arrays, _SAMPLES[scenario], confidence)
    name = "time between queries" if scenario == "server" else "time a frame"
    old_ns, new_ns = _block_times(old, old_arrays), _block_times(new, new_arrays)
    if not len(old_ns) or not len(new_ns):
        return []
    enough = min(len(old_ns), len(new_ns)) >= LEAST_BLOCKS
    old_logs, new_logs = (np.log(ns[np.isfinite(ns)]) for ns in (old_ns, new_ns))
    lost = len(old_ns) - len(old_logs), len(new_ns) - len(new_logs)
    if any(lost):
        ratio = _ratio_with_lost(old_logs, new_logs, lost, between_processes=enough)
    else:
        ratio = ratio_of_blocks(new_logs, old_logs, confidence=confidence, between_processes=enough)
    return [ComparedTime(name, old_logs, new_logs, ratio, lost)]


def _ratio_with_lost(old: FloatArray, new: FloatArray, lost: tuple[int, int], *, between_processes: bool) -> Ratio:
    from scipy.stats import barnard_exact

    difference = float(new.mean() - old.mean()) if len(old) and len(new) else 0.0
    if bool(len(old)) != bool(len(new)):
        difference = math.inf if len(old) else -math.inf
    p = float(barnard_exact([[len(old), len(new)], lost]).pvalue) if len(old) or len(new) else 1.0
    return Ratio(
        ratio=float(np.exp(difference)), ci_low=0.0, ci_high=math.inf, p=p, between_processes=between_processes
    )


def _milliseconds(logs: FloatArray) -> float:
    return math.exp(logs.mean()) / 1e6 if len(logs) else math.inf


def _percentiles(
    old: Row, old_arrays: Arrays, new: Row, new_arrays: Arrays, array: str, confidence: float
) -> list[ComparedTime]:
    names = [f"{old.id}/wall/{array}", f"{old.id}/block", f"{new.id}/wall/{array}", f"{new.id}/block"]
    if any(
        not len(source.get(name, ())) for name, source in zip(names, [old_arrays] * 2 + [new_arrays] * 2, strict=True)
    ):
        return []
    old_ns, old_blocks = (old_arrays[name] for name in names[:2])
    new_ns, new_blocks = (new_arrays[name] for name in names[2:])
    times = []
    for name, percentile in _PERCENTILES.items():
        new_logs, old_logs = block_logs(new_ns, new_blocks, old_ns, old_blocks, percentile=percentile)
        ratio = ratio_of_medians(new_ns, new_blocks, old_ns, old_blocks, percentile=percentile, confidence=confidence)
        times.append(ComparedTime(f"{name} of the {array}", old_logs, new_logs, ratio))
    return times


def _block_times(row: Row, arrays: Arrays) -> FloatArray:
    """[blocks] nanoseconds of one query at the highest rate, infinite where no rate kept the bound; or of one frame."""
    rounds = arrays.get(f"{row.id}/blocks/round", np.empty(0))
    if row.cell.scenario == "server":
        rates = arrays.get(f"{row.id}/blocks/rate", np.empty(0))
    elif row.scenario is not None and len(rounds):
        blocks = arrays[f"{row.id}/block"]
        frames = np.array([(blocks == number).sum() for number in rounds]) * row.scenario.frames_per_sample
        rates = np.divide(frames, arrays[f"{row.id}/blocks/seconds"])
    else:
        rates = np.empty(0)
    kept = np.isfinite(rates) & (rates > 0)
    times = np.full(rates.shape, np.inf)
    times[kept] = NS_PER_S / rates[kept]
    return times
