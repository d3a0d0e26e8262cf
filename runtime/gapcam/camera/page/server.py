"""The page's server: a sink that people watch."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

import uvicorn

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.page.api import build_api
from gapcam.camera.page.connections import Connections
from gapcam.camera.page.credentials import Credentials
from gapcam.camera.page.event_history import EventHistory
from gapcam.camera.page.frame_times import FrameTimes
from gapcam.camera.page.gate import MAX_HEAD_BYTES, Gate
from gapcam.camera.page.live import MAX_MESSAGE_BYTES
from gapcam.camera.page.newest_frames import NewestFrames
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.picture_encoder import PictureEncoder
from gapcam.camera.page.protocols import PacedLog, http_protocol, socket_protocol
from gapcam.camera.page.seats import Seats
from gapcam.camera.page.server_options import ServerOptions, is_loopback
from gapcam.camera.page.snapshots import Snapshots
from gapcam.camera.page.tls import tls_context
from gapcam.camera.page.watched import Watched
from gapcam.errors import DataError

_START_S, _STOP_S = 20.0, 5.0
_GRACE_S = 0.5
"""How long clients have to take a farewell; then they are cut off."""
_HANDSHAKE_S = 10.0
_PING_S = 15.0

_log = logging.getLogger("gapcam.camera")

_DEFAULT_OPTIONS = ServerOptions()


class PageServer:
    """Serves the page and its API from a thread of its own. It takes the newest frame of each source, and no time.

    Args:
        pipeline: what is watched; the server is one of its sinks: `pipeline.add_sink(page)`.
        options: where it is served, and to whom.
        name: as a sink.

    Attributes:
        name: as given.
        capacity: enough for a frame of each source at once, since a frame that waits here may bring an event.

    Example:
        >>> pipeline = Pipeline(session, [source_from_uri("test://")])  # doctest: +SKIP
        >>> page = PageServer(pipeline, ServerOptions(address="127.0.0.1:8080"))  # doctest: +SKIP
        >>> page.start()  # now, so that an address in use is known before the camera runs  # doctest: +SKIP
        >>> pipeline.add_sink(page)  # doctest: +SKIP
        >>> pipeline.run()  # doctest: +SKIP
    """

    def __init__(self, pipeline: Watched, options: ServerOptions = _DEFAULT_OPTIONS, *, name: str = "page") -> None:
        self.name = name
        self.capacity = 64
        self._pipeline, self._options = pipeline, options
        self._frames, self._events, self._times = NewestFrames(), EventHistory(), FrameTimes()
        self._seats, self._credentials = Seats(options.max_clients), Credentials(options.token)
        self._lock = Lock()
        self._running: _Running | None = None
        self._port = options.port

    @property
    def url(self) -> str:
        """Where this machine finds the page. With port 0, after the start."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._options.host, self._options.host)  # noqa: S104
        scheme = "https" if self._options.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def start(self) -> None:
        """Serve from now on. `open` does it, too; before, an address that is in use is known before the camera runs.

        Raises:
            DataError: the address cannot be served, or the files for TLS cannot be used.
        """
        with self._lock:
            if self._running is not None and self._running.alive:
                return
            options = self._options
            tls = tls_context(options.tls_cert, options.tls_key) if options.tls_cert else None
            listener = _listener(options.host, self._port)
            self._port = listener.getsockname()[1]  # the same one after a restart
            state = PageState(
                pipeline=self._pipeline,
                options=options,
                port=self._port,
                frames=self._frames,
                events=self._events,
                times=self._times,
                seats=self._seats,
                credentials=self._credentials,
                encoder=PictureEncoder(),
                snapshots=Snapshots(),
            )
            try:
                self._running = _Running(state, listener, tls)
            except BaseException:
                listener.close()
                raise
            self._warn()

    def open(self) -> None:
        """As a sink."""
        self.start()

    def write(self, frame: ExplainedFrame) -> None:
        """Show a frame to all who watch its source.

        Raises:
            DataError: the server ended by itself; it can be opened again.
        """
        running = self._running
        if running is None or not running.alive:
            raise DataError(f"the page's server ended: {running.failure if running else 'it was closed'}")
        self._times.add(frame)
        self._events.add(frame.events)
        self._frames.publish(frame)

    def newest(self, source: str) -> ExplainedFrame | None:
        """The last frame of a source that it was given, in this run or an earlier one."""
        published = self._frames.newest(source)
        return None if published is None else published.frame

    def close(self) -> None:
        """End it: clients are told, and cut off where they do not listen."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _warn(self) -> None:
        options = self._options
        if is_loopback(options.host):
            return
        if options.token is None:
            _log.warning("page: everybody who reaches %s may watch", options.address)
        elif options.tls_cert is None:
            _log.warning("page: the token and the pictures travel in the clear; give a certificate for TLS")


class _Running:
    """A server in its thread, from its start to its end."""

    def __init__(self, state: PageState, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._state, self._listener = state, listener
        self._connections = Connections(limit=128 + 4 * state.options.max_clients)
        self._loop = _Loop()
        self.failure = ""
        self._up = Event()
        self._server = _Server(self._config(tls), self._up)
        self._thread = Thread(target=self._run, name="gapcam page", daemon=True)
        self._thread.start()
        if not self._up.wait(_START_S) or not self._thread.is_alive():
            self.stop()
            raise DataError(f"the page's server did not start: {self.failure or 'it took too long'}")

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it, and wait for that."""
        with suppress(RuntimeError):  # it ended by itself, and its loop with it
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join(_STOP_S)

    def _config(self, tls: ssl.SSLContext | None) -> uvicorn.Config:
        strangers = PacedLog(self._state.refusals)
        config = uvicorn.Config(
            Gate(build_api(self._state), self._state, self._connections),
            loop="none",
            http=http_protocol(self._connections, strangers),
            ws=socket_protocol(self._connections, strangers),
            interface="asgi3",
            lifespan="off",
            # Its debug lines hold cookies, its access lines queries.
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # anybody could write them
            server_header=False,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            ws_per_message_deflate=False,  # JPEGs do not get smaller
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_graceful_shutdown=2,
            backlog=128,
        )
        config.load()
        config.ssl = tls
        return config

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is said by `write`, in the sink's thread
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._state.frames.attach(None)
            self._listener.close()
            self._connections.cut_all()
            self._loop.run_until_complete(_end_tasks())
            self._state.encoder.close()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._up.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._state.frames.attach(loop)
        sweeper = loop.create_task(self._connections.sweep())  # a name, or nobody keeps it
        await self._server.serve(sockets=[self._listener])
        sweeper.cancel()

    def _end(self) -> None:
        self._state.closing = True
        self._state.frames.wake()
        self._server.should_exit = True
        self._loop.call_later(_GRACE_S, self._connections.cut_all)


async def _end_tasks() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)  # transports end in the next turn


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, up: Event) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()


class _Loop(asyncio.SelectorEventLoop):
    """Gives a TLS handshake ten seconds instead of sixty."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        if kwargs.get("ssl") is not None:
            kwargs.setdefault("ssl_handshake_timeout", _HANDSHAKE_S)
        return await super().create_server(*args, **kwargs)


def check_address(options: ServerOptions) -> None:
    """Try whether the page can be served there, before anything that takes time is done.

    Raises:
        DataError: the address cannot be served, or the files for TLS cannot be used.
    """
    if options.tls_cert:
        tls_context(options.tls_cert, options.tls_key)
    _listener(options.host, options.port).close()


def _listener(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        DataError: it is in use, not this machine's, or not allowed; the message says which.
    """
    shown = f"{f'[{host}]' if ':' in host else host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Without the protocol asyncio would leave Nagle's algorithm on, and an answer would take 40 ms more.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise _unserved(shown, error) from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _unserved(shown, error) from None
    return listener


def _unserved(shown: str, error: Exception) -> DataError:
    code = getattr(error, "errno", None)
    advice = {
        errno.EADDRINUSE: "; something serves it already: end that, or give another port",
        errno.EACCES: "; give a port from 1024 on",
        errno.EADDRNOTAVAIL: "; give an address of this machine, or 0.0.0.0 for all of them",
    }.get(code or 0, "")
    reason = os.strerror(code) if code and code > 0 else str(getattr(error, "strerror", None) or error)
    return DataError(f"cannot serve {shown}: {reason[:1].lower()}{reason[1:]}{advice}")
