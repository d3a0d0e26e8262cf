"""Live frames over a WebSocket: each client its newest frame, at its own pace, as it wants to see it."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gapcam.camera.page.adaptation import Adaptation
from gapcam.camera.page.newest_frames import PublishedFrame
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.picture_encoder import EncodedPicture
from gapcam.camera.page.rates import TokenBucket
from gapcam.camera.page.view import View
from gapcam.camera.page.waiting import wait_at_most
from gapcam.errors import GapcamError, UsageError

FIRST_VIEW_S = 10.0
"""A client that does not say what it wants to see in this time is closed."""
READY_S = 60.0
"""A client that is not ready for another frame for this long is closed; a page that comes to light again reconnects."""
CHECK_S = 2.0
"""How often, at the least, it is checked whether a client may still watch."""
MESSAGES_A_SECOND, MESSAGES_AT_ONCE = 120, 240
MAX_MESSAGE_BYTES = 4096

TOO_SLOW, SIGNED_OUT, TOO_MUCH, GOING_AWAY = 4408, 4401, 1008, 1001
"""The codes with which a client is closed: it does not ask, it may no longer, it sends too much, the server ends."""


class LiveClient:
    """One WebSocket. `run` serves it to its end, and leaves nothing behind.

    A frame is sent when the client is ready (it has one credit, and gets it back by saying so) and there is a frame
    that it has not seen, or it wants to see the same one in another way. Between the two nothing is drawn for it,
    nothing is queued, and nobody waits for it.

    Args:
        socket: not accepted yet.
        state: the server's.
        may_watch: whether the client may still watch.
    """

    def __init__(self, socket: WebSocket, state: PageState, may_watch: Callable[[], bool]) -> None:
        self._socket, self._state, self._may_watch = socket, state, may_watch
        self._view: View | None = None
        self._wanted: int | None = None  # the class that this client acquired
        self._changed = asyncio.Event()
        self._ready = False
        self._stale = False  # whether the view changed since the last frame
        self._last = 0  # its serial number: a client that waits keeps no frame
        self._last_event = state.events.latest
        self._drawn_since = 0.0
        self._sent_at: float | None = None
        self._adaptation = Adaptation()
        self._messages = TokenBucket(MESSAGES_A_SECOND, MESSAGES_AT_ONCE)

    async def run(self) -> None:
        """Until the client leaves, or is closed."""
        await self._socket.accept()
        self._state.frames.watch(self._changed)
        tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            try:
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._state.frames.unwatch(self._changed)
                self._acquire(None)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, WebSocketDisconnect | OSError):
                raise error

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            parsed = _parsed(message)
            earned = parsed.get("type") == "ready" and self._sent_at is not None  # it answers a frame
            if not earned and not self._messages.take():
                return await self._close(TOO_MUCH, "too many messages")
            try:
                self._heed(parsed)
            except GapcamError as error:
                await self._socket.send_text(json.dumps({"type": "error", "message": str(error)}))

    def _heed(self, message: dict[str, Any]) -> None:
        kind = message.pop("type", None)
        if kind == "ready":
            if self._sent_at is not None:
                self._adaptation.took(time.monotonic() - self._drawn_since)
                self._sent_at, self._ready = None, True
        elif kind == "view":
            view = self._view or self._state.first_view
            view = view.changed(message, self._state.sources, self._state.pipeline.session.classes)
            if self._view is None:
                self._ready = True
            self._acquire(view.target)
            self._view, self._stale = view, True
        elif kind is None:
            raise UsageError("got a message that is no JSON object with a type; expected {'type': 'view'} or 'ready'")
        else:
            raise UsageError(f"got a message of type {str(kind)[:40]!r}; expected 'view' or 'ready'")
        self._changed.set()

    async def _send(self) -> None:
        began = time.monotonic()
        while True:
            await wait_at_most(self._changed, CHECK_S)
            self._changed.clear()
            if self._state.closing:
                return await self._close(GOING_AWAY, "the server ends")
            if not self._may_watch():
                return await self._close(SIGNED_OUT, "signed out")
            if self._view is None and time.monotonic() - began > FIRST_VIEW_S:
                return await self._close(TOO_SLOW, "no view was asked for")
            if self._sent_at is not None and time.monotonic() - self._sent_at > READY_S:
                return await self._close(TOO_SLOW, "not ready for another frame")
            if self._view is not None and self._ready:
                await self._send_frame(self._view)

    async def _send_frame(self, view: View) -> None:
        published = self._state.frames.newest(view.source)
        if published is None or (published.serial == self._last and not self._stale):
            return
        self._ready = self._stale = False
        self._last = published.serial
        self._drawn_since = time.monotonic()  # a wait for the encoder, too, is a reason for smaller pictures
        step = self._adaptation.step
        picture = await self._state.encoder.encoded(published, view, scale=step.scale, quality=step.quality)
        header = json.dumps(self._header(published, view, picture), separators=(",", ":")).encode()
        self._sent_at = time.monotonic()
        await self._socket.send_bytes(struct.pack(">I", len(header)) + header + picture.data)
        self._state.seats.frames["live"] += 1

    def _header(self, published: PublishedFrame, view: View, picture: EncodedPicture) -> dict[str, Any]:
        frame = published.frame
        height, width = frame.captured.image.shape[:2]
        events = self._state.events.after(self._last_event)
        self._last_event = events[-1]["id"] if events else self._last_event
        labels = frame.classes.labels
        return {
            "source": frame.captured.source,
            "number": frame.captured.number,
            "time": round(frame.captured.time, 6),
            "age_ms": round((time.monotonic() - frame.captured.taken_at) * 1e3, 2),
            "width": width,
            "height": height,
            "top": [{"index": best.index, "label": best.label, "score": round(best.score, 6)} for best in frame.top],
            "class": None
            if picture.shown is None
            else {
                "index": picture.shown,
                "label": labels[picture.shown],
                "score": round(float(frame.scores[picture.shown]), 6),
            },
            "map": picture.map,
            "boxes": [box.to_list() for box in picture.boxes],
            "events": events,
            "run": self._state.events.run,
            "now": round(time.time(), 6),
            "timings_ms": {stage: round(value, 3) for stage, value in frame.timings_ms.items()},
            "fps": round(self._state.frames.rate(view.source), 2),
            "quality": self._adaptation.step.quality,
            "scale": round(picture.scale, 4),
        }

    def _acquire(self, target: int | None) -> None:
        if target == self._wanted:
            return
        demand = self._state.pipeline.demand
        if target is not None:
            demand.acquire(target)
        if self._wanted is not None:
            demand.release(self._wanted)
        self._wanted = target

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.close(code, reason)


def _parsed(message: Any) -> dict[str, Any]:
    """The JSON object that a message holds; an empty one where it holds none."""
    text = message.get("text")
    try:
        parsed = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {}
