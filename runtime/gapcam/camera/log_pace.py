"""Log lines about what may happen at every frame, at a bounded rate."""

from __future__ import annotations

import time

EVERY_S = 10.0
"""At most one line in so many seconds."""


class LogPace:
    """When the next line may be written. Of one thread."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._unsaid = 0

    def due(self) -> str | None:
        """None: not now. Else the line's end: how many there were since the last one."""
        now = time.monotonic()
        if now < self._next_at:
            self._unsaid += 1
            return None
        self._next_at, unsaid, self._unsaid = now + EVERY_S, self._unsaid, 0
        return f" ({unsaid} more like this since the last line)" if unsaid else ""
