"""How old frames are when a sink has written them, and what each stage took: every value, not the latest ones."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.sinks.protocol import Sink


@dataclass(frozen=True, slots=True)
class NotedFrame:
    """What is kept of a frame.

    Attributes:
        source: of the frame.
        number: of the frame.
        taken_at: `time.monotonic()` seconds of its capture, of its hand-over to the sinks, of when it was written.
        explained_at: likewise.
        written_at: likewise.
        timings_ms: of the stages until the hand-over.
    """

    source: str
    number: int
    taken_at: float
    explained_at: float
    written_at: float
    timings_ms: dict[str, float]


class TimedSink:
    """A sink with a clock; without a sink in it, the clock alone.

    Args:
        sink: what is measured; None for nothing.

    Attributes:
        frames: those that were written, in that order.
    """

    def __init__(self, sink: Sink | None = None, name: str = "clock") -> None:
        self.name = sink.name if sink else name
        self.capacity = sink.capacity if sink else 1000
        self.frames: list[NotedFrame] = []
        self._sink = sink

    def open(self) -> None:
        """Open the sink."""
        if self._sink:
            self._sink.open()

    def write(self, frame: ExplainedFrame) -> None:
        """Write to the sink, then note the time."""
        if self._sink:
            self._sink.write(frame)
        self.frames.append(
            NotedFrame(
                frame.captured.source,
                frame.captured.number,
                frame.captured.taken_at,
                frame.explained_at,
                time.monotonic(),
                dict(frame.timings_ms),
            )
        )

    def close(self) -> None:
        """Close the sink."""
        if self._sink:
            self._sink.close()
