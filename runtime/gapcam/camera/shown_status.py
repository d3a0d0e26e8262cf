"""How a running pipeline is shown: a table that lives on a terminal, or log lines now and then."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Protocol

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gapcam.camera.newest_best import NewestBest
from gapcam.camera.status import Percentiles, PipelineStatus, SinkStatus, SourceStatus
from gapcam.cli.console import stderr
from gapcam.cli.printable import printable

LOG = logging.getLogger("gapcam.camera")

_REFRESH_S = 0.5


class ShownStatus(Protocol):
    """Shows a status each `every_s` seconds."""

    every_s: float

    def show(self, status: PipelineStatus) -> None:
        """Show it now."""

    def __enter__(self) -> ShownStatus: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class LoggedStatus:
    """A log line for each source.

    Args:
        best: of each source.
        every_s: seconds between two; 0 for none at all.
    """

    def __init__(self, best: NewestBest, every_s: float) -> None:
        self.every_s = every_s or float("inf")
        self._best = best

    def show(self, status: PipelineStatus) -> None:
        """Log it."""
        for source in status.sources:
            LOG.info("status", extra=source_fields(source, self._best))

    def __enter__(self) -> LoggedStatus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class LiveStatus:
    """A table at the bottom of the terminal, under the log's lines; it goes when all is done.

    Args:
        best: of each source.
    """

    every_s = _REFRESH_S

    def __init__(self, best: NewestBest) -> None:
        self._best = best
        self._live = Live(console=stderr, auto_refresh=False, transient=True, redirect_stdout=False)

    def show(self, status: PipelineStatus) -> None:
        """Draw it anew."""
        self._live.update(status_table(status, self._best), refresh=True)

    def __enter__(self) -> LiveStatus:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def source_fields(source: SourceStatus, best: NewestBest) -> dict[str, Any]:
    """One source in a log line."""
    fields: dict[str, Any] = {
        "source": source.name,
        "state": source.state,
        "fps": round(source.fps, 1),
        "captured": source.captured,
        "explained": source.explained,
        "dropped": source.dropped,
    }
    if source.age is not None:
        fields |= {"age_p50_ms": round(source.age.p50_ms, 1), "age_p99_ms": round(source.age.p99_ms, 1)}
    if (shown := best.of(source.name)) is not None and source.state == "running":
        fields |= {"best": shown.label, "score": round(shown.score, 3)}
    if source.problem:
        fields["problem"] = source.problem
    return fields


def status_table(status: PipelineStatus, best: NewestBest) -> Group:
    """The same for people, with the sinks."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("source", no_wrap=True, max_width=20)
    table.add_column("state", no_wrap=True)
    for heading in ("size", "fps", "frames", "dropped", "age, ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("best class", no_wrap=True, overflow="ellipsis")
    for source in status.sources:
        shown = best.of(source.name)
        what = source.problem or (f"{shown.label} {shown.score:.2f}" if shown else "")
        cells = (
            source.name,
            source.state if source.state == "running" else f"{source.state} {_for_how_long(source)}",
            f"{source.width}x{source.height}" if source.width else "",
            f"{source.fps:.1f}",
            str(source.captured),
            str(source.dropped),
            _ages(source.age),
            what,
        )
        table.add_row(*(Text(printable(cell), overflow="ellipsis", no_wrap=True) for cell in cells))
    sinks = [f"{sink.name} {sink.state}{_losses(sink)}" for sink in status.sinks]
    inference = f"inference {status.inference.p50_ms:.1f} ms" if status.inference else "no inference yet"
    line = " · ".join([inference, *sinks])
    return Group(table, Text(printable(line), style="dim", overflow="ellipsis", no_wrap=True))


def _for_how_long(source: SourceStatus) -> str:
    seconds = max(int(time.time() - source.since), 0)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _ages(age: Percentiles | None) -> str:
    """Of half of the frames, and of all but one in a hundred."""
    return f"{age.p50_ms:.0f} / {age.p99_ms:.0f}" if age else ""


def _losses(sink: SinkStatus) -> str:
    counts = (("dropped", sink.dropped), ("undelivered", sink.undelivered))
    losses = [f"{count} {what}" for what, count in counts if count]
    return f" ({', '.join(losses)})" if losses else ""
