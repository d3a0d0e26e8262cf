"""What a pipeline did, once it has ended: every frame accounted for."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from gapcam.camera.status import Percentiles, PipelineStatus
from gapcam.errors import DataError, ExitCode

LOG = logging.getLogger("gapcam.camera")


def summary(status: PipelineStatus, ended_by: str) -> dict[str, Any]:
    """Ready for JSON. docs/camera.md lists the fields.

    Args:
        status: of a pipeline that has ended.
        ended_by: why, in words.
    """
    return {
        "ended_by": ended_by,
        "seconds": round(status.uptime_s, 3),
        "model": status.model,
        "engine": status.engine,
        "batched": status.batched,
        "inference": _rounded(status.inference),
        "sources": [
            {
                **asdict(source),
                "fps": round(source.fps, 2),
                "age": _rounded(source.age),
                "lost": source.captured - source.explained - source.dropped - source.failed - source.waiting,
            }
            for source in status.sources
        ],
        "sinks": [
            {
                **asdict(sink),
                "age": _rounded(sink.age),
                "lost": sink.received - sink.written - sink.dropped - sink.failed - sink.waiting,
            }
            for sink in status.sinks
        ],
    }


def log_summary(facts: dict[str, Any]) -> None:
    """The same in log lines."""
    LOG.info("ended by %s after %.1f s", facts["ended_by"], facts["seconds"])
    for source in facts["sources"]:
        fields = {key: source[key] for key in _OF_SOURCE} | _ages(source["age"])
        LOG.info("source %s in all", source["name"], extra={"source": source["name"], **fields})
    for sink in facts["sinks"]:
        fields = {key: sink[key] for key in _OF_SINK} | _ages(sink["age"])
        LOG.info("sink %s in all", sink["name"], extra={"sink": sink["name"], **fields})


def exit_code(status: PipelineStatus) -> ExitCode:
    """PARTIAL where a source was given up, frames could not be explained, or not all reached where it should.

    So it is, too, where part of a file or an image could not be read. A camera's broken frames are part of its life.

    Raises:
        DataError: no source gave a frame.
    """
    if not any(source.captured for source in status.sources):
        raise DataError(f"no source gave a frame in {status.uptime_s:.1f} s; the log says why")
    sources_done = all(
        source.state != "failed" and not source.failed and (source.live or not source.broken)
        for source in status.sources
    )
    sinks_done = all(not (sink.problem or sink.failed or sink.undelivered) for sink in status.sinks)
    return ExitCode.DONE if sources_done and sinks_done else ExitCode.PARTIAL


_OF_SOURCE = ("state", "captured", "explained", "dropped", "failed", "waiting", "lost", "broken", "reopened")
_OF_SINK = ("state", "received", "written", "dropped", "failed", "waiting", "lost", "undelivered", "restarts")


def _rounded(age: Percentiles | None) -> dict[str, Any] | None:
    if age is None:
        return None
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in asdict(age).items()}


def _ages(age: dict[str, Any] | None) -> dict[str, float]:
    return {} if age is None else {"age_p50_ms": age["p50_ms"], "age_p99_ms": age["p99_ms"]}
