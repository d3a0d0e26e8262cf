"""The last events, numbered, so that one can ask for those since the last time."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable
from itertools import islice
from threading import Lock
from typing import Any

from gapcam.camera.event import Event

KEPT = 1000


class EventHistory:
    """Events with ids 1, 2, 3 ... in the order in which they came; the last `kept` of them.

    One thread adds, any thread reads.

    Attributes:
        run: 16 random hexadecimal digits. Ids are to be compared only where it is the same.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.run = secrets.token_hex(8)
        self._rows: deque[dict[str, Any]] = deque(maxlen=kept)
        self._latest = 0
        self._lock = Lock()

    @property
    def latest(self) -> int:
        """The id of the last event, 0 before the first."""
        return self._latest

    def add(self, events: Iterable[Event]) -> None:
        """Number them and keep them."""
        with self._lock:
            for event in events:
                self._latest += 1
                self._rows.append({"id": self._latest, **event.to_dict()})

    def after(self, number: int, limit: int = KEPT) -> list[dict[str, Any]]:
        """Events with a greater id, oldest first; where there are more than `limit`, the oldest of them.

        Whoever asks again after the last of these misses none that is kept.
        """
        with self._lock:
            skipped = max(0, number - (self._latest - len(self._rows)))
            skipped = min(skipped, len(self._rows))  # islice takes no number of any size
            return list(islice(self._rows, skipped, skipped + limit))
