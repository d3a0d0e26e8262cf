"""What a sink took and could not deliver: counted, and said in the log now and then while it grows."""

from __future__ import annotations

import logging
import time
from threading import Lock

log = logging.getLogger("gapcam.camera")

EVERY_S = 10.0
"""At most one line in so many seconds."""


class Undelivered:
    """A count that never shrinks. Of any thread.

    Args:
        what: is counted, in the plural.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = Lock()
        self._count = self._said = 0
        self._next_at = 0.0

    @property
    def count(self) -> int:
        """So many since the beginning, over all times that the sink was opened."""
        return self._count

    def add(self, number: int = 1) -> None:
        """So many more."""
        with self._lock:
            self._count += number

    def say(self, sink: str, *, at_once: bool = False) -> None:
        """A line where the count has grown since the last one, and that was some time ago or it must be said at once.

        Args:
            sink: its name.
            at_once: at its end, say.
        """
        with self._lock:
            now, count = time.monotonic(), self._count
            if count == self._said or (now < self._next_at and not at_once):
                return
            more, self._said, self._next_at = count - self._said, count, now + EVERY_S
        message = "sink %s: %d %s could not be delivered, %d in all"
        log.warning(message, sink, more, self._what, count, extra={"sink": sink, "undelivered": count})
