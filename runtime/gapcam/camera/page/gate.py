"""What stands before the API: everything that a request must pass before anything is done for it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected

from gapcam.camera.page.allowed_hosts import AllowedHosts
from gapcam.camera.page.connections import Connections, Peer
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.rates import AddressRates
from gapcam.camera.page.refusal import refuse_request, refuse_socket
from gapcam.camera.page.security_headers import security_headers

REQUESTS_A_SECOND, REQUESTS_AT_ONCE = 30, 150
"""Of an address: for those who may watch, and as many for strangers."""
FILES_A_SECOND, FILES_AT_ONCE = 300, 1500
"""Likewise, of the page's own files: each page that is opened takes a dozen at once."""
MAX_HEAD_BYTES = 16384
MAX_BODY_BYTES = 4096
_TOO_LONG = f"the body is too long, or too slow; {MAX_BODY_BYTES} bytes are allowed"
BODY_S = 10.0
"""For a request's body to arrive."""
SEND_S = 20.0
"""A client that takes nothing for this long, while there is something for it to take, is cut off."""

_FILES = "/static/"
_OPEN_PATHS = ("/healthz", "/login", _FILES)
_LINKED_PATHS = ("/metrics", "/openapi.json")
"""What Prometheus and Grafana link to: another page may open it for whoever watches, but reads nothing of it."""
_MAY_WATCH = "gapcam.may_watch"

_log = logging.getLogger("gapcam.camera")


class Gate:
    """An ASGI application around another.

    In this order: the host's name, how often the address asks, the body's length, the origin, the credentials. Each
    refusal is a line of JSON. Whatever goes wrong behind the gate is one, too, without a word of what it was.

    What is refused for its origin or its credentials, and what another page asks for, is counted apart: nobody who may
    watch is refused because of strangers at the same address, or of another page in the same browser.

    Args:
        app: what is behind it.
        state: the server's.
        connections: all there are.
    """

    def __init__(self, app: ASGIApp, state: PageState, connections: Connections) -> None:
        self._app, self._state, self._connections = app, state, connections
        self._hosts = AllowedHosts(state.options)
        self._requests = AddressRates(REQUESTS_A_SECOND, REQUESTS_AT_ONCE)
        self._strangers = AddressRates(REQUESTS_A_SECOND, REQUESTS_AT_ONCE)
        self._files = AddressRates(FILES_A_SECOND, FILES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        peer = _peer(scope)
        answer = _Answer(scope, send, lambda: self._connections.cut(peer), self._state.refusals)
        self._connections.begins(peer)
        try:
            await self._guarded(scope, receive, answer)
        except (WebSocketDisconnect, ClientDisconnected):
            pass  # the client is gone, or has all that it asked for
        except Exception:  # noqa: BLE001 - a fault of ours must not end the server, nor show strangers where it is
            _log.exception("the page's server failed at a request")
            if not answer.begun:
                await self._refuse(scope, answer, 500, "the server failed at this request; its log says more")
            elif scope["type"] == "websocket":
                await answer({"type": "websocket.close", "code": 1011, "reason": "the server failed"})
        finally:
            self._connections.ends(peer)
        return None

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            return await self._refuse(scope, answer, 431, f"the head is too long; {MAX_HEAD_BYTES} bytes are allowed")
        host = headers.get("host", "")
        if not self._hosts.is_host(host):
            why = "this server does not go by the name that was asked for; see --origin"
            return await self._refuse(scope, answer, 421, why)
        address = scope["client"][0] if scope.get("client") else ""
        allowed = self._credential(scope, headers)
        welcome = self._origin_allowed(scope, headers, host)
        if not _is_near(headers) or not welcome:
            rates = self._strangers
        elif path.startswith(_FILES):
            rates = self._files
        else:
            rates = self._requests if allowed else self._strangers
        bucket = rates.of(address)
        if not bucket.take():
            wait = {"retry-after": str(math.ceil(bucket.wait_s()))}
            return await self._refuse(scope, answer, 429, "too many requests; wait a second", wait)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return await self._refuse(scope, answer, 413, _TOO_LONG)
        if not welcome:
            return await self._refuse(scope, answer, 403, "the request comes from another page than this server's")
        if allowed is not None:
            scope[_MAY_WATCH] = allowed
        elif not _is_open(path):
            return await self._refuse_stranger(scope, answer, address, headers)
        if scope["type"] == "http":
            with self._connections.reading(_peer(scope)):
                body = await _read_body(receive) if scope["method"] == "POST" else b""
            if body is None:
                return await self._refuse(scope, answer, 413, _TOO_LONG)
            receive = _after(body, receive)
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # the answer ends after its head
        return await self._app(scope, receive, answer)

    def _origin_allowed(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Browsers name the origin on WebSockets and with POST, and say of the rest where it comes from.

        Another page may lead to this one by a link, but not take pictures from it. Programs say nothing of that kind.
        """
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            linked = scope["path"] in _LINKED_PATHS and _is_opened(headers)
            return _is_near(headers) or scope["path"] == "/" or _is_open(scope["path"]) or linked
        origin = headers.get("origin")
        if origin is None:
            return _is_near(headers)
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        return self._hosts.is_origin(origin, scheme, host)

    def _credential(self, scope: Scope, headers: Headers) -> Callable[[], bool] | None:
        """Whether the request's credential still holds, for later; None where one is needed and it has none that does.

        The right token is always let in: whoever guesses at the same address locks nobody out.
        """
        credentials = self._state.credentials
        if not credentials.needed:
            return lambda: True
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return (lambda: True) if credentials.is_token(token.strip()) else None
        session = session_of(scope, self._state.cookie)
        return (lambda: credentials.is_session(session)) if credentials.is_session(session) else None

    async def _refuse_stranger(self, scope: Scope, answer: _Answer, address: str, headers: Headers) -> None:
        if "authorization" in headers and (wait_s := self._state.guesses.wait_s(address)):
            wait = {"retry-after": str(wait_s)}
            return await self._refuse(scope, answer, 429, "too many attempts; wait a while", wait)
        if scope["type"] == "http" and scope["path"] == "/" and "authorization" not in headers:
            return await self._refuse(scope, answer, 303, "sign in", {"location": "login"})
        why = "this needs the token: sign in at /login, or send it as Authorization: Bearer"
        return await self._refuse(scope, answer, 401, why, {"www-authenticate": "Bearer"})

    async def _refuse(
        self, scope: Scope, answer: _Answer, status: int, why: str, headers: dict[str, str] | None = None
    ) -> None:
        refuse = refuse_request if scope["type"] == "http" else refuse_socket
        await refuse(answer, status, why, headers)


class _Answer:
    """An ASGI send that adds the security headers, counts refusals, ends after the head where no more was asked for,
    and does not wait for ever.
    """

    def __init__(self, scope: Scope, send: Send, cut: Callable[[], None], refusals: Counter[int]) -> None:
        host = Headers(scope=scope).get("host", "").rpartition(":")[0].strip("[]")
        self._headers = security_headers(scope["path"], scope["scheme"], host)
        self._send, self._cut, self._refusals = send, cut, refusals
        self._head_only = scope["type"] == "http" and scope["method"] == "HEAD"
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            self.begun = True
            rows: list[tuple[bytes, bytes]] = list(message.get("headers", []))
            present = {name.lower() for name, _ in rows}
            wanted = {**self._headers, "cache-control": "no-store"}
            rows += [(k.encode(), v.encode()) for k, v in wanted.items() if k.encode() not in present]
            message["headers"] = rows
            if (status := message.get("status", 0)) >= 400:
                self._refusals[status] += 1
        # Whoever waits for the client to take something hears that it is gone.
        timer = asyncio.get_running_loop().call_later(SEND_S, self._cut)
        try:
            await self._send(message)
            if self._head_only:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                raise ClientDisconnected  # so that a stream ends, too
        finally:
            timer.cancel()


def may_watch(scope: Scope) -> Callable[[], bool]:
    """Whether whoever sent a request may still watch, for as long as it is answered."""
    found: Any = scope.get(_MAY_WATCH, lambda: True)
    return cast("Callable[[], bool]", found)


def session_of(scope: Scope, cookie: str) -> str:
    """The session in a request's cookie of this name; empty where there is none."""
    try:
        cookies = SimpleCookie(Headers(scope=scope).get("cookie", ""))
    except CookieError:
        return ""
    morsel = cookies.get(cookie)
    return morsel.value if morsel else ""


def _peer(scope: Scope) -> Peer | None:
    return cast("Peer | None", tuple(scope["client"]) if scope.get("client") else None)


def _is_open(path: str) -> bool:
    return any(path == allowed or (allowed.endswith("/") and path.startswith(allowed)) for allowed in _OPEN_PATHS)


def _is_near(headers: Headers) -> bool:
    """Whether no other page asks, as far as the browser says it; over HTTP, other than on loopback, none does."""
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _is_opened(headers: Headers) -> bool:
    """Whether a browser opens it for its user, in a tab: not in a frame, nor for a page."""
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")


async def _read_body(receive: Receive) -> bytes | None:
    """The body; None where it is too long, or does not come in time."""

    async def read() -> bytes | None:
        body = b""
        while True:
            message = await receive()
            body += cast(bytes, message.get("body", b""))
            if len(body) > MAX_BODY_BYTES:
                return None
            if not message.get("more_body", False):
                return body

    try:
        return await asyncio.wait_for(read(), BODY_S)
    except asyncio.TimeoutError:
        return None


def _after(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read already, then what comes next: that the client left."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
