"""When a warm-up is over: when the medians of the last windows stand still."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.block import WarmUp
from gapcam_bench.limits import Limits

WINDOWS = 3
LEAST_WINDOW = 5
TOLERANCE = 0.03
"""How far the windows' medians may lie apart, as a ratio minus 1, where the samples themselves are quiet."""


class WarmUpWatch:
    """Told every duration of the warm-up, it says when that may end.

    The newer half of the samples, at least 15, is cut into three windows in a row. It stands still when their medians
    lie within 3 % of one another, or within what medians of windows so noisy differ by anyhow.

    Args:
        limits: the least and most time.
        clock: seconds; the time between the samples counts, too.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.perf_counter) -> None:
        self._limits, self._clock = limits, clock
        self._began = clock()
        self._ended: float | None = None
        self._stable = False
        self._samples: list[int] = []
        self._look_at = WINDOWS * LEAST_WINDOW

    def add(self, ns: int) -> None:
        """One more duration in nanoseconds."""
        self._samples.append(ns)
        now = self._clock() - self._began
        if self._ended is not None or now < self._limits.warm_up_least_seconds:
            return
        late, count = now >= self._limits.warm_up_most_seconds, len(self._samples)
        if late or count >= self._look_at:
            self._look_at = math.ceil(count * 1.1)  # looking at each one would cost more than the samples
            self._stable = stands_still(self._newer_half(shorter=late))
            if late or self._stable:
                self._ended = now

    @property
    def done(self) -> bool:
        """Whether measuring may begin: it stands still, or the most time is over."""
        return self._ended is not None

    def result(self) -> WarmUp:
        """What came of it, also before it is done."""
        seconds = self._clock() - self._began if self._ended is None else self._ended
        return WarmUp(seconds=seconds, samples=len(self._samples), stable=self._stable)

    def _newer_half(self, *, shorter: bool) -> NDArray[np.int64]:
        """Of queries that take seconds there are few when the time is over; then all but the first must do."""
        count = len(self._samples)
        wanted = max(count // 2, WINDOWS * LEAST_WINDOW)
        if shorter:
            wanted = min(wanted, count - 1)
        return np.array(self._samples[count - wanted :], np.int64)


def stands_still(durations: NDArray[np.int64]) -> bool:
    """Whether the medians of three windows lie together; of fewer than three durations nothing can be said: False."""
    if len(durations) < WINDOWS:
        return False
    windows = np.array_split(durations, WINDOWS)
    medians = np.array([float(np.median(window)) for window in windows])
    deviation = float(np.median([np.median(np.abs(w - m)) for w, m in zip(windows, medians, strict=True)])) * 1.4826
    error = 1.2533 * deviation / math.sqrt(len(windows[0])) / float(medians.mean())  # of a median, were it normal
    return bool(medians.max() / medians.min() - 1 <= max(TOLERANCE, 3 * error))
