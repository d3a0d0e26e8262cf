"""What came through the pipeline, noted by others than the pipeline, in memory that does not grow."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from camera_servers.stamped_frame import read_stamp

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.event import Event
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sources.protocol import Source

NAN = float("nan")


class CountedSource:
    """A source, and how many frames it gave."""

    def __init__(self, source: Source) -> None:
        self.name, self.uri, self.live, self.paced = source.name, source.uri, source.live, source.paced
        self.frames = 0
        self._source = source

    def open(self) -> None:
        self._source.open()

    def read(self) -> SourceFrame | None:
        frame = self._source.read()
        self.frames += frame is not None
        return frame

    def interrupt(self) -> None:
        self._source.interrupt()

    def close(self) -> None:
        self._source.close()


class EventTally:
    """Which events came, in whatever order: how many, and the sum of their hashes. No event is kept.

    Two tallies are equal where the same events came equally often.

    Attributes:
        count: of all that came.
    """

    def __init__(self) -> None:
        self.count = self._sum = 0

    def add(self, events: Sequence[Event]) -> None:
        """These came."""
        self.count += len(events)
        self._sum += sum(hash(event) for event in events)

    def beyond(self, other: EventTally) -> str:
        """How it differs from the other one, in words; empty where it does not."""
        if self.count != other.count:
            more = self.count - other.count
            return f"{abs(more)} of {other.count} {'too many' if more > 0 else 'missing'}"
        return "" if self._sum == other._sum else f"others than the {other.count} that happened"


class CountedSink:
    """A sink, how many frames it was given and took, how many of these came once more, and its events."""

    def __init__(self, sink: Sink) -> None:
        self.name, self.capacity = sink.name, sink.capacity
        self.given = self.taken = self.repeated = 0
        self.events = EventTally()
        self._sink = sink

    @property
    def undelivered(self) -> int:
        return getattr(self._sink, "undelivered", 0)

    def open(self) -> None:
        self._sink.open()

    def write(self, frame: ExplainedFrame) -> None:
        self.given += 1
        self.events.add(frame.events)
        self._sink.write(frame)
        self.taken += 1
        self.repeated += frame.again

    def close(self) -> None:
        self._sink.close()


class FrameLog:
    """A sink that notes each frame's ages in arrays that are as long from the beginning as they will ever be.

    Args:
        sources: their names.
        most: how many frames can be noted.

    Attributes:
        count: how many were.
        repeated: how many were handed over once more, with what was noticed when their source ended or was away.
        behind: how many came with another number than they should: a greater one than the one before, of their
            source, or the same where they were handed over once more.
        last_number: of each source.
    """

    name = "log"
    capacity = 200

    def __init__(self, sources: Sequence[str], most: int) -> None:
        self.sources = tuple(sources)
        # Ones: pages that were never written to are no memory yet.
        self._source = np.ones(most, np.int64)
        self._at, self._age, self._true_age = np.ones(most), np.ones(most), np.ones(most)
        self.count = self.repeated = self.behind = 0
        self.last_number = dict.fromkeys(self.sources, -1)
        self._lock = threading.Lock()

    def open(self) -> None:
        """Ready."""

    def write(self, frame: ExplainedFrame) -> None:
        captured = frame.captured
        if frame.again:
            self.repeated += 1
            self.behind += captured.number != self.last_number[captured.source]
            return
        stamp = read_stamp(captured.image)
        # The stamp's clock counts milliseconds in 32 bits.
        true_age = NAN if stamp is None else (int(frame.explained_at * 1e3) - stamp.time_ms & 0xFFFFFFFF) / 1e3
        with self._lock:
            at = self.count
            self._source[at] = self.sources.index(captured.source)
            self._at[at], self._age[at] = frame.explained_at, frame.explained_at - captured.taken_at
            self._true_age[at] = true_age
            self.count += 1
            self.behind += captured.number <= self.last_number[captured.source]
            self.last_number[captured.source] = captured.number

    def close(self) -> None:
        """Nothing to finish."""

    def ages(self, begin: float, end: float, source: str | None = None) -> np.ndarray:
        """[n] seconds from capture to the hand-over, of frames handed over in that time of `time.monotonic()`."""
        return self._age[: self.count][self._chosen(begin, end, source)]

    def true_ages(self, begin: float, end: float, source: str) -> np.ndarray:
        """[n] seconds from when the server made the frame, where its pixels say so."""
        found = self._true_age[: self.count][self._chosen(begin, end, source)]
        return found[np.isfinite(found)]

    def greatest_pause(self, source: str, end: float) -> float:
        """Seconds between two frames of a source, or between its last one and the end."""
        at = self._at[: self.count][self._chosen(0, end, source)]
        return float(np.max(np.diff([*at, end]))) if len(at) else float("inf")

    def _chosen(self, begin: float, end: float, source: str | None) -> np.ndarray:
        at = self._at[: self.count]
        chosen = (at >= begin) & (at < end)
        return chosen if source is None else chosen & (self._source[: self.count] == self.sources.index(source))
