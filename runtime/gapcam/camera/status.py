"""How a pipeline is doing, in figures that add up. What the API, the metrics, the logs and the soak read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SourceState: TypeAlias = Literal["opening", "running", "stalled", "lost", "ended", "failed", "stopped"]
SinkState: TypeAlias = Literal["opening", "running", "restarting", "ended", "stopped"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the most recent values, milliseconds.

    Attributes:
        count: how many values they are of.
        p50_ms: the median.
        p99_ms: the 99th percentile.
        greatest_ms: the greatest.
    """

    count: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. captured == explained + dropped + failed + waiting, always.

    Attributes:
        name: of the source.
        uri: where it comes from, without credentials.
        state: "stalled" where it gives no frame and no error either, "lost" while it is being reopened, "failed" when
            that was given up.
        since: Unix seconds at which the state began.
        problem: why it is stalled, lost or failed; empty else.
        width: of the last frame in pixels, 0 before the first.
        height: likewise.
        fps: frames captured a second, of the last seconds.
        captured: frames that the source gave.
        explained: frames that were explained and handed to the sinks.
        dropped: frames that a newer one took the place of.
        failed: frames that could not be explained: the engine failed, or its logits were not finite.
        waiting: frames that are on their way.
        broken: frames that could not be read; they are not captured.
        reopened: how often the source was opened again.
        age: of explained frames, from capture to the hand-over to the sinks; None before the first.
        live: whether frames come when they come, as from a camera; False for files and images.
    """

    name: str
    uri: str
    state: SourceState
    since: float
    problem: str
    width: int
    height: int
    fps: float
    captured: int
    explained: int
    dropped: int
    failed: int
    waiting: int
    broken: int
    reopened: int
    age: Percentiles | None
    live: bool = True


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """One sink. received == written + dropped + failed + waiting, always.

    Attributes:
        name: of the sink.
        state: "restarting" while it is being opened again, "ended" when it has no use for more frames.
        problem: why; empty else.
        received: frames that were handed to it, with those that were handed over once more for events' sake, see
            `ExplainedFrame.again`.
        written: frames that it wrote, or took to send them.
        dropped: frames that it was too slow for, or that came while it was closed.
        failed: frames at which it failed.
        waiting: frames that are on their way.
        restarts: how often it was opened again.
        age: of frames from capture until they were written; None before the first.
        undelivered: frames or messages that the sink took and could not deliver, as far as it says: they are among
            `written`.
    """

    name: str
    state: SinkState
    problem: str
    received: int
    written: int
    dropped: int
    failed: int
    waiting: int
    restarts: int
    age: Percentiles | None
    undelivered: int = 0


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """All of it.

    Attributes:
        running: whether frames may still come.
        uptime_s: since the start.
        idle_s: since the thread that runs the network last came round: under a second while it is well.
        model: the file's name.
        engine: what runs it.
        batched: whether frames of several sources share an inference.
        inference: of the network's runs; None before the first.
        sources: each.
        sinks: each.
    """

    running: bool
    uptime_s: float
    idle_s: float
    model: str
    engine: str
    batched: bool
    inference: Percentiles | None
    sources: tuple[SourceStatus, ...]
    sinks: tuple[SinkStatus, ...]
