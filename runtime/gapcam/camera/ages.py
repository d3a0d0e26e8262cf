"""The most recent durations, and their percentiles."""

from __future__ import annotations

import math
from collections import deque
from threading import Lock

from gapcam.camera.status import Percentiles

KEPT = 1000
"""Of a camera at 15 frames a second, those of the last minute."""


class Ages:
    """The last `KEPT` durations. Any thread may add, any may ask."""

    def __init__(self) -> None:
        self._values_ms: deque[float] = deque(maxlen=KEPT)
        self._lock = Lock()

    def add(self, seconds: float) -> None:
        """Remember one."""
        with self._lock:
            self._values_ms.append(seconds * 1e3)

    def percentiles(self) -> Percentiles | None:
        """By nearest rank, as in `gapcam.latency`; None before the first."""
        with self._lock:
            values = list(self._values_ms)
        if not values:
            return None
        values.sort()
        p50, p99 = (values[math.ceil(len(values) * part) - 1] for part in (0.5, 0.99))
        return Percentiles(len(values), p50, p99, values[-1])
