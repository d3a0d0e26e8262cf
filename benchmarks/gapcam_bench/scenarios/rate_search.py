"""Which rate to try next: the search for the highest rate at which a bound is kept.

It begins with a guess. From there it goes up while the bound is kept, or down while it is not, in steps that grow: a
factor of 1.1, and each the square of the one before, at most 2. Once it has a rate that keeps the bound and one that
does not, it halves what lies between (geometrically) until that is 5 %. It gives up when a thirtieth of the guess is
too much.
"""

from __future__ import annotations

import math

FIRST_STEP = 1.10
GREATEST_STEP = 2.0
RESOLUTION = 1.05
LOWEST = 1 / 30


class RateSearch:
    """The search.

    Args:
        first: where to begin.

    Attributes:
        rate: to try next; None when there is nothing more to find out.
    """

    def __init__(self, first: float) -> None:
        self.rate: float | None = first
        self._lowest, self._step = first * LOWEST, FIRST_STEP
        self._kept, self._broken = 0.0, math.inf

    def judged(self, *, kept: bool) -> None:
        """Say what came of `rate`."""
        if self.rate is None:
            return
        if kept:
            self._kept = self.rate
        else:
            self._broken = self.rate
        self.rate = self._next()

    def _next(self) -> float | None:
        if self._kept and self._broken < math.inf:
            return math.sqrt(self._kept * self._broken) if self._broken > self._kept * RESOLUTION else None
        step, self._step = self._step, min(self._step**2, GREATEST_STEP)
        if self._kept:
            return self._kept * step
        return max(self._broken / step, self._lowest) if self._broken > self._lowest else None
