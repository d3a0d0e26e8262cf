"""Watches over a running pipeline until it ends, its time is over or a signal comes; systemd and people are told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from signal import Signals

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.shown_status import ShownStatus
from gapcam.camera.status import PipelineStatus
from gapcam.camera.stop_signals import StopSignals
from gapcam.camera.systemd import Notifier, Watchdog
from gapcam.errors import GapcamError

LOG = logging.getLogger("gapcam.camera")

_LOOK_S = 1.0
"""How often it is looked whether there is still something to do."""
_SYSTEMD_STATUS_S = 5.0


def watch(
    pipeline: Pipeline,
    shown: ShownStatus,
    signals: StopSignals,
    wake: threading.Event,
    *,
    note: Callable[[ExplainedFrame], None],
    notifier: Notifier,
    duration_s: float | None = None,
) -> str:
    """Watch over a pipeline that was started, until there is a reason to stop it.

    Args:
        pipeline: it is not stopped here.
        shown: shows its status.
        signals: that end it.
        wake: what those signals set.
        note: called with the newest frames, in another thread.
        notifier: to systemd.
        duration_s: for how long, seconds; None for no end.

    Returns:
        The reason in words: "its sources' end"; "its sinks' end", where there are some and none takes frames any more;
        "SIGTERM" and the like; "--duration".
    """
    ended = threading.Event()

    def follow() -> None:
        with suppress(GapcamError):  # `Pipeline.wait` raises it once more
            for frame in pipeline.frames():
                note(frame)
            pipeline.wait()
        ended.set()
        wake.set()

    threading.Thread(target=follow, name="gapcam follows", daemon=True).start()
    watchdog = Watchdog(notifier)
    began = time.monotonic()
    rounds = [
        _Round(watchdog.interval_s, lambda status: watchdog.round(status.idle_s)),
        _Round(shown.every_s, shown.show),
        _Round(_LOOK_S, lambda _: None),
        _Round(_SYSTEMD_STATUS_S, lambda status: notifier.send(STATUS=in_a_line(status))),
    ]
    while not (ended.is_set() or signals.asked.is_set()):
        now = time.monotonic()
        if duration_s is not None and now >= began + duration_s:
            return "--duration"
        due = [one for one in rounds if now >= one.next_at]
        if due:
            status = pipeline.status()
            if status.sinks and all(sink.state == "ended" for sink in status.sinks):
                return "its sinks' end"
            for one in due:
                one.show(status)
                one.next_at = now + one.every_s
        until = min(one.next_at for one in rounds)
        if duration_s is not None:
            until = min(until, began + duration_s)
        wake.wait(max(until - time.monotonic(), 0))
    if signals.number is None:
        return "its sources' end"
    name = Signals(signals.number).name
    LOG.info("%s: what is being written is finished; a second one ends it at once", name)
    return name


def in_a_line(status: PipelineStatus) -> str:
    """For `systemctl status`."""
    sources = ", ".join(
        f"{source.name} {source.state} at {source.fps:.1f}/s" + (f" ({source.problem})" if source.problem else "")
        for source in status.sources
    )
    wrong = ", ".join(f"{sink.name} {sink.state} ({sink.problem})" for sink in status.sinks if sink.problem)
    return f"{sources}; {wrong}" if wrong else sources


class _Round:
    """Something to do each so many seconds, for the first time after so many."""

    def __init__(self, every_s: float, show: Callable[[PipelineStatus], object]) -> None:
        self.every_s, self.show = every_s, show
        self.next_at = time.monotonic() + every_s
