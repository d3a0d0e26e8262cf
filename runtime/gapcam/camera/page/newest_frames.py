"""The newest explained frame of each source, from the pipeline's thread to the server's loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from threading import Lock
from typing import Any

from gapcam.camera.explained_frame import ExplainedFrame

_RATE_OVER_S = 2.0


class PublishedFrame:
    """A frame, and what was drawn and encoded of it for those who watch.

    Attributes:
        frame: as the pipeline gave it.
        serial: 1, 2, 3 ... among all that were published.
        pictures: used by `picture_encoder` alone, in the server's loop.
    """

    def __init__(self, frame: ExplainedFrame, serial: int) -> None:
        self.frame, self.serial = frame, serial
        self.pictures: dict[object, Any] = {}


class NewestFrames:
    """One frame a source is kept, however many watch: `publish` in any thread, all else in the server's loop."""

    def __init__(self) -> None:
        self._newest: dict[str, PublishedFrame] = {}
        self._moments: dict[str, deque[float]] = {}
        self._watchers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = Lock()
        self._waking = False
        self._published = 0

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """From now on watchers wait in this loop, or in none."""
        with self._lock:
            self._loop, self._waking = loop, False
        self._watchers.clear()
        for published in self._newest.values():
            published.pictures.clear()  # they are another loop's

    def publish(self, frame: ExplainedFrame) -> None:
        """Put a frame in the place of its source's last one, and wake those who wait. It takes no time."""
        source = frame.captured.source
        with self._lock:
            self._published += 1
            self._newest[source] = PublishedFrame(frame, self._published)
            self._moments.setdefault(source, deque(maxlen=240)).append(time.monotonic())
            loop, wake = self._loop, not self._waking
            if loop is None or not wake:
                return
            self._waking = True
        with suppress(RuntimeError):  # the loop ended between these two lines
            loop.call_soon_threadsafe(self.wake)

    def newest(self, source: str) -> PublishedFrame | None:
        """The last frame of a source; None before the first."""
        return self._newest.get(source)

    def rate(self, source: str) -> float:
        """Frames a second, of the last two seconds."""
        since = time.monotonic() - _RATE_OVER_S
        with self._lock:
            recent = [moment for moment in self._moments.get(source, ()) if moment >= since]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def watch(self, watcher: asyncio.Event) -> None:
        """Set this event whenever a frame comes."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: asyncio.Event) -> None:
        """No more."""
        self._watchers.discard(watcher)

    def wake(self) -> None:
        """Have all who watch look again."""
        with self._lock:
            self._waking = False
        for watcher in self._watchers:
            watcher.set()
