"""When queries arrive that know nothing of one another: a Poisson process, drawn as LoadGen draws it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unit_gaps(count: int, seed: int) -> NDArray[np.float64]:
    """Gaps between arrivals at a rate of 1: exponential, with mean 1.

    They are those of LoadGen with the same `schedule_rng_seed`, to the last bit: C++'s `std::mt19937`, of which two
    numbers make one in [0, 1) with 53 bits, and -ln(1 - u). At any rate, the gaps are these by that rate, so that all
    trials of one seed have the same arrivals, only closer together.
    """
    generator = np.random.RandomState(seed % 2**32)  # std::mt19937 is seeded as this one is
    words = generator.randint(0, 2**32, size=2 * count, dtype=np.uint32).astype(np.float64)
    return np.asarray(-np.log1p(-(words[0::2] + words[1::2] * 2.0**32) / 2.0**64))


def arrivals_ns(count: int, rate: float, seed: int) -> NDArray[np.int64]:
    """Nanoseconds from the start to each arrival; the first query arrives at the start.

    Args:
        count: at least 1.
        rate: arrivals a second.
        seed: of the gaps.
    """
    gaps = (unit_gaps(count - 1, seed) / rate * 1e9).astype(np.int64)
    return np.concatenate(([0], np.cumsum(gaps)))
