"""A stream of JPEGs that any browser and most players show: multipart/x-mixed-replace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gapcam.camera.page.adaptation import Adaptation, Step
from gapcam.camera.page.live import CHECK_S
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.view import View
from gapcam.camera.page.waiting import left, wait_at_most

_BOUNDARY = b"--frame\r\n"


class MjpegStream(Response):
    """The newest frame, whenever the client took the last one, until it leaves.

    There is no answer to a frame, so what is measured for smaller pictures is how long drawing and sending one takes.

    Args:
        state: the server's.
        view: what is streamed.
        may_watch: whether the client may still watch.
    """

    def __init__(self, state: PageState, view: View, may_watch: Callable[[], bool]) -> None:
        super().__init__(media_type="multipart/x-mixed-replace; boundary=frame")
        del self.headers["content-length"]
        self._state, self._view, self._may_watch = state, view, may_watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Serve it."""
        changed = asyncio.Event()
        demand = self._state.pipeline.demand
        with self._state.seats.taken("mjpeg"):
            self._state.frames.watch(changed)
            if self._view.target is not None:
                demand.acquire(self._view.target)
            tasks = [asyncio.create_task(left(receive)), asyncio.create_task(self._stream(changed, send))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._state.frames.unwatch(changed)
                if self._view.target is not None:
                    demand.release(self._view.target)
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            for error in ended:
                if isinstance(error, Exception) and not isinstance(error, OSError):
                    raise error

    async def _stream(self, changed: asyncio.Event, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        # A browser shows a part when it sees the next boundary: each part brings it along.
        await send({"type": "http.response.body", "body": _BOUNDARY, "more_body": True})
        last, adaptation = 0, Adaptation()
        while self._may_watch() and not self._state.closing:
            began = time.monotonic()
            serial, part = await self._part(last, adaptation.step)
            if serial == last:
                await wait_at_most(changed, CHECK_S)
                changed.clear()
                continue
            last = serial
            await send({"type": "http.response.body", "body": part, "more_body": True})
            adaptation.took(time.monotonic() - began)
            self._state.seats.frames["mjpeg"] += 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, last: int, step: Step) -> tuple[int, bytes]:
        """The newest frame's serial number, and its part of the stream unless it was the last one."""
        published = self._state.frames.newest(self._view.source)
        if published is None or published.serial == last:
            return last, b""
        picture = await self._state.encoder.encoded(published, self._view, scale=step.scale, quality=step.quality)
        head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.data)
        return published.serial, head + picture.data + b"\r\n" + _BOUNDARY
