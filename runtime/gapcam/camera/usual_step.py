"""How far apart a source's frames usually are."""

from __future__ import annotations

from collections import deque
from statistics import median_low

COUNTED = 5
"""The most recent steps: few, so that a camera that becomes slow at night is soon known to be."""


class UsualStep:
    """The median of the last steps, so that one pause, or two, do not count. It outlives every new beginning."""

    def __init__(self) -> None:
        self._last_at: float | None = None
        self._steps: deque[float] = deque(maxlen=COUNTED)

    def add(self, at: float) -> None:
        """Take a frame's moment in seconds; one that is earlier than the last one's is no step."""
        if self._last_at is not None and at > self._last_at:
            self._steps.append(at - self._last_at)
        self._last_at = at

    @property
    def seconds(self) -> float:
        """The median, the lesser of two; 0 before the second frame."""
        return median_low(self._steps) if self._steps else 0.0
