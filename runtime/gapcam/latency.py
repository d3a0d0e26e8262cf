"""Latency: the raw samples, and every figure computed from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NS_PER_MS = 1e6


class Latency:
    """How long one step took, time after time.

    Args:
        samples_ns: durations in nanoseconds, in the order in which they were measured.

    Raises:
        ValueError: there is no sample, or one is not positive.
    """

    def __init__(self, samples_ns: Sequence[int]) -> None:
        if not samples_ns or min(samples_ns) <= 0:
            raise ValueError(f"expected at least one positive duration in ns, got {list(samples_ns)}")
        self.samples_ns: NDArray[np.int64] = np.asarray(samples_ns, dtype=np.int64)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.samples_ns)

    @property
    def median_ms(self) -> float:
        """The median, in milliseconds."""
        return float(np.median(self.samples_ns)) / NS_PER_MS

    @property
    def p99_ms(self) -> float:
        """The 99th percentile by nearest rank, in milliseconds: a duration that occurred, no interpolation.

        Of fewer than 100 samples it is the greatest.
        """
        return float(np.percentile(self.samples_ns, 99, method="inverted_cdf")) / NS_PER_MS

    def ratio_to(self, other: Latency) -> float:
        """Median of this duration divided by the other's, sample by sample, of two steps measured in the same rounds.

        What slows a whole round (another process, a lower clock) cancels out, which it does not in the ratio of two
        medians.

        Raises:
            ValueError: the two do not have the same number of samples.
        """
        if self.count != other.count:
            raise ValueError(f"got {self.count} and {other.count} samples; a ratio is taken sample by sample")
        return float(np.median(self.samples_ns / other.samples_ns))
