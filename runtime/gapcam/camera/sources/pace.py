"""Frames at the times at which they are due, though they could be read faster."""

from __future__ import annotations

import time
from threading import Event

_LATE_S = 0.5
"""Who is later than this goes on from there, instead of catching up."""


class Pace:
    """Waits until each frame's time has come.

    Args:
        interrupted: when it is set, a wait ends.
    """

    def __init__(self, interrupted: Event) -> None:
        self._interrupted = interrupted
        self._begin: float | None = None

    def wait_for(self, due_s: float | None) -> float:
        """Wait until a frame is due, in seconds on a time line whose beginning is chosen by the first frame.

        Args:
            due_s: None where a frame is not waited for.

        Returns:
            `time.monotonic()` seconds after the wait; of the first frame, the time from which all others are reckoned.
        """
        now = time.monotonic()
        if due_s is None:
            return now
        if self._begin is None:
            self._begin = now - due_s
        late_s = now - self._begin - due_s
        if late_s > _LATE_S:
            self._begin += late_s
        elif late_s < 0:
            self._interrupted.wait(-late_s)
            return time.monotonic()
        return now
