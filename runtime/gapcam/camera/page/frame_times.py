"""How old frames are when they are explained, and what each stage takes: histograms that never forget."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock

from gapcam.camera.event import Event
from gapcam.camera.explained_frame import ExplainedFrame

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets in seconds; the last bucket has none."""


class Histogram:
    """Counts by bucket, and the sum of all values, seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a value."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many are at most that), as Prometheus has them."""
        total, rows = 0, []
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


class FrameTimes:
    """Of all frames that the page was given. One thread adds, any thread reads."""

    def __init__(self) -> None:
        self._ages: dict[str, Histogram] = {}
        self._stages: dict[str, Histogram] = {}
        self._events: dict[tuple[str, str], int] = {}
        self._lock = Lock()

    def add(self, frame: ExplainedFrame) -> None:
        """Count a frame; of one that comes once more its events only."""
        source = frame.captured.source
        with self._lock:
            self._count(frame.events)
            if frame.again:
                return
            self._ages.setdefault(source, Histogram()).add(frame.explained_at - frame.captured.taken_at)
            for stage, milliseconds in frame.timings_ms.items():
                self._stages.setdefault(stage, Histogram()).add(milliseconds / 1e3)

    def ages(self) -> list[tuple[str, list[tuple[str, float]], float]]:
        """(source, buckets, sum) each."""
        return self._rows(self._ages)

    def stages(self) -> list[tuple[str, list[tuple[str, float]], float]]:
        """(stage, buckets, sum) each."""
        return self._rows(self._stages)

    def events(self) -> list[tuple[str, str, int]]:
        """(source, kind, how many) each."""
        with self._lock:
            return [(*key, count) for key, count in self._events.items()]

    def _count(self, events: Iterable[Event]) -> None:
        for event in events:
            key = (event.source, event.kind)
            self._events[key] = self._events.get(key, 0) + 1

    def _rows(self, histograms: dict[str, Histogram]) -> list[tuple[str, list[tuple[str, float]], float]]:
        with self._lock:
            return [(name, histogram.buckets(), histogram.sum) for name, histogram in histograms.items()]
