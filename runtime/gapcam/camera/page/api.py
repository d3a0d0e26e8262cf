"""The API behind the page."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import fields
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gapcam._version import __version__
from gapcam.camera.page.answers import (
    ClassAnswer,
    ClassesAnswer,
    EventAnswer,
    EventsAnswer,
    FrameAnswer,
    Health,
    Problem,
    SettingsAnswer,
    StatusAnswer,
)
from gapcam.camera.page.class_search import search_labels
from gapcam.camera.page.described_api import OPEN_TO_ALL, DescribedApi
from gapcam.camera.page.gate import may_watch
from gapcam.camera.page.live import LiveClient
from gapcam.camera.page.metrics import metrics_answer
from gapcam.camera.page.mjpeg import MjpegStream
from gapcam.camera.page.newest_frames import PublishedFrame
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.picture_encoder import EncodedPicture, PictureFormat
from gapcam.camera.page.query_names import known_names_only
from gapcam.camera.page.refusal import refuse_socket
from gapcam.camera.page.seats import NoSeatError
from gapcam.camera.page.sign_in import add_sign_in
from gapcam.camera.page.snapshots import SnapshotsBusyError
from gapcam.camera.page.static_files import static_answer
from gapcam.camera.page.view import View
from gapcam.camera.page.view_query import AskedView, SourceQuery, view_of
from gapcam.camera.page.waiting import unless_left, wait_at_most
from gapcam.errors import GapcamError
from gapcam.overlay import COLORMAPS

WELL_S = 10.0
"""The thread that runs the network is not well when it has not come round for this long."""
MAP_WAIT_S = 2.0
"""How long a snapshot waits for the map of a class that nobody watched until then."""
_GREATEST_ID = 2**53 - 1
"""JavaScript knows no greater whole number."""

_JSON_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong"},
    403: {"model": Problem, "description": "The request comes from another page"},
    421: {"model": Problem, "description": "The server does not go by this name"},
    429: {"model": Problem, "description": "Too many requests"},
}
_WRONG_VALUE: dict[int | str, dict[str, Any]] = {422: {"model": Problem, "description": "A value is out of its range"}}
_NO_FRAME: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "There is no frame yet"}}
_NO_SNAPSHOT: dict[int | str, dict[str, Any]] = {
    503: {"model": Problem, "description": "There is no frame yet, or too many wait for a snapshot"}
}
_NO_SEAT: dict[int | str, dict[str, Any]] = {503: {"model": Problem, "description": "As many watch as may"}}


def _content(media_type: str, **more: str) -> dict[str, Any]:
    return {"content": {media_type: {"schema": {"type": "string", **more}}}}


def build_api(state: PageState) -> FastAPI:
    """The application, without what guards it: `Gate` stands before it."""
    api = DescribedApi(
        title="gapcam camera",
        version=__version__,
        description="Explained camera frames, as they come. Live frames come over the WebSocket /api/live.",
        docs_url=None,  # they load from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=_JSON_PROBLEMS,
        dependencies=[Depends(known_names_only)],
        # A slash too many is no page.
        redirect_slashes=False,
    )
    api.state.page = state
    _add_errors(api)
    _add_files(api)
    add_sign_in(api, state)
    _add_facts(api, state)
    _add_pictures(api, state)
    return api


def _add_files(api: FastAPI) -> None:
    @api.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _found(static_answer("index.html", request))

    @api.get("/static/{name}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return _found(static_answer(name, request))


def _add_facts(api: FastAPI, state: PageState) -> None:
    @api.get("/healthz", responses={503: {"model": Health, "description": "It is not"}}, openapi_extra=OPEN_TO_ALL)
    async def healthz() -> Health:
        """Whether the thread that runs the network is well. Open to everyone."""
        status = state.pipeline.status()
        if status.running and status.idle_s < WELL_S:
            return Health(status="ok")
        return JSONResponse({"status": "not ok"}, 503)  # type: ignore[return-value]

    @api.get("/metrics", response_class=Response, responses={200: _content("text/plain")})
    async def metrics() -> Response:
        """For Prometheus."""
        return metrics_answer(state)

    @api.get("/api/status")
    async def status() -> StatusAnswer:
        """How the sources, the network and the sinks are doing, in figures that add up."""
        now = state.status()
        return StatusAnswer(
            **{field.name: getattr(now, field.name) for field in fields(now)},
            clients=state.seats.count(),
            max_clients=state.seats.limit,
            token=state.credentials.needed,
            now=time.time(),
        )

    @api.get("/api/classes", responses=_WRONG_VALUE)
    async def classes(
        search: Annotated[str, Query(description="in any part of the label, or an index", max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=10000, description="how many are listed, at the most")] = 20,
    ) -> ClassesAnswer:
        """Classes whose label holds a text, those that begin with it first."""
        labels = state.pipeline.session.labels
        found = search_labels(labels, search)
        listed = [ClassAnswer(index=index, label=labels[index]) for index in found[:limit]]
        return ClassesAnswer(count=len(labels), found=len(found), classes=listed)

    @api.get("/api/settings")
    async def settings() -> SettingsAnswer:
        """How the pipeline explains, and where a view begins."""
        used, now = state.pipeline.settings, state.pipeline.status()
        return SettingsAnswer(
            sources=list(state.sources),
            model=now.model,
            engine=now.engine,
            exact=state.pipeline.session.exact,
            threshold=used.threshold,
            alpha=used.look.alpha,
            colormap=used.look.colormap,
            colormaps=sorted(COLORMAPS),
            steady=used.steady,
        )

    @api.get("/api/events", responses=_WRONG_VALUE, response_model_exclude_unset=True)
    async def events(
        after: Annotated[int, Query(ge=0, le=_GREATEST_ID, description="an id: only later events")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000, description="how many are listed, at the most")] = 1000,
    ) -> EventsAnswer:
        """The events after a given one, oldest first. The last 1000 are kept."""
        found = [EventAnswer(**row) for row in state.events.after(after, limit)]
        return EventsAnswer(events=found, latest=state.events.latest, run=state.events.run)

    @api.get("/api/frame", responses=_WRONG_VALUE | _NO_FRAME, response_model_exclude_unset=True)
    async def frame(source: SourceQuery = None) -> FrameAnswer:
        """What is known of a source's newest frame."""
        newest = _newest(state, view_of(state, source=source))
        return FrameAnswer(**await asyncio.to_thread(newest.frame.to_dict))


def _add_pictures(api: FastAPI, state: PageState) -> None:
    def add_snapshot(form: PictureFormat, media_type: str) -> None:
        @api.get(
            f"/api/snapshot.{form}",
            response_class=Response,
            responses=_WRONG_VALUE | _NO_SNAPSHOT | {200: _content(media_type, format="binary")},
            operation_id=f"snapshot_{form}",
        )
        async def snapshot(request: Request, view: AskedView) -> Response:
            """The newest frame as a picture to keep, in full size unless `max_width` is given."""
            newest, encoded = await unless_left(_snapshot(state, view, form), request.receive)
            captured = newest.frame.captured
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", captured.source).strip("-.")[:80] or "camera"
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(captured.time))
            headers = {
                "content-disposition": f'attachment; filename="{name}-{stamp}-{captured.number}.{form}"',
                "cache-control": "no-store",
            }
            return Response(encoded.data, headers=headers, media_type=media_type)

    add_snapshot("jpg", "image/jpeg")
    add_snapshot("png", "image/png")

    @api.get(
        "/api/stream.mjpeg",
        response_class=Response,
        responses=_WRONG_VALUE | _NO_SEAT | {200: _content("multipart/x-mixed-replace", format="binary")},
    )
    async def stream(request: Request, view: AskedView) -> Response:
        """The newest frames as they come, for an <img> or a player."""
        return MjpegStream(state, view, may_watch(request.scope))

    @api.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        try:
            with state.seats.taken("live"):
                await LiveClient(socket, state, may_watch(socket.scope)).run()
        except NoSeatError as error:
            await refuse_socket(socket.send, 503, str(error))

    @api.websocket("/{path:path}")
    async def nowhere(socket: WebSocket) -> None:
        await refuse_socket(socket.send, 404, "live frames come over /api/live")


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(GapcamError)
    async def wrong(_: Request, error: GapcamError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @api.exception_handler(NoSeatError)
    async def full(_: Request, error: NoSeatError) -> Response:
        return JSONResponse({"error": str(error)}, 503, {"retry-after": "10"})

    @api.exception_handler(SnapshotsBusyError)
    async def busy(_: Request, error: SnapshotsBusyError) -> Response:
        return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)

    @api.exception_handler(Exception)
    async def fault(_: Request, __: Exception) -> Response:
        """The gate logs it."""
        return JSONResponse({"error": "the server failed at this request; its log says more"}, 500)

    @api.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _newest(state: PageState, view: View) -> PublishedFrame:
    newest = state.frames.newest(view.source)
    if newest is None:
        raise HTTPException(503, f"there is no frame of {view.source} yet", {"retry-after": "1"})
    return newest


async def _snapshot(state: PageState, view: View, form: PictureFormat) -> tuple[PublishedFrame, EncodedPicture]:
    with state.snapshots.asked():
        newest = await _with_map(state, view)
        async with state.snapshots.turn():
            return newest, await state.encoder.encoded(newest, view, quality=92, form=form, snapshot=True)


async def _with_map(state: PageState, view: View) -> PublishedFrame:
    """The newest frame; where a class was named whose map nobody wanted so far, the first that has it, if one comes."""
    newest = _newest(state, view)
    if view.target is None or not view.map or view.target in newest.frame.maps:
        return newest
    changed = asyncio.Event()
    state.frames.watch(changed)
    state.pipeline.demand.acquire(view.target)
    until = time.monotonic() + MAP_WAIT_S
    try:
        while view.target not in newest.frame.maps and (left := until - time.monotonic()) > 0:
            await wait_at_most(changed, left)
            changed.clear()
            newest = _newest(state, view)
    finally:
        state.pipeline.demand.release(view.target)
        state.frames.unwatch(changed)
    return newest


def _found(answer: Response | None) -> Response:
    if answer is None:
        raise HTTPException(404, "there is no such page")
    return answer
