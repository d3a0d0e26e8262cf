"""How many frames a second come at present."""

from __future__ import annotations

from collections import deque
from threading import Lock

WINDOW_S = 3.0
"""Frames older than that no longer count."""

_KEPT = 1000


class FrameRate:
    """Of the last `WINDOW_S` seconds. Any thread may add, any may ask."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._lock = Lock()

    def add(self, time_s: float) -> None:
        """One frame came, at a time by a clock that never goes back."""
        with self._lock:
            self._times.append(time_s)

    def per_second(self, now_s: float) -> float:
        """0 where fewer than two came in the window."""
        with self._lock:
            recent = [time for time in self._times if time > now_s - WINDOW_S]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return 0.0
        # A gap at the end counts as soon as it is longer than those between the frames.
        span = max(recent[-1] - recent[0], (now_s - recent[0]) * (len(recent) - 1) / len(recent))
        return (len(recent) - 1) / span
