"""Posts events to a web address, one request each, by a thread of its own.

What fails for a reason that may pass (no connection, no answer in time, status 408, 425, 429 or 5xx) is posted again
after a while, the others wait meanwhile. What is refused for good is dropped, counted and logged. Redirects are not
followed: a secret is for the address that was given.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Thread, current_thread
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from gapcam import __version__
from gapcam.camera.backoff import Backoff
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.log_pace import LogPace
from gapcam.camera.sinks.picture_file import encoded
from gapcam.camera.sinks.secret_file import secret_from_file
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.tls_trust import client_tls
from gapcam.camera.sinks.undelivered import Undelivered
from gapcam.camera.uri import redacted, without_credentials
from gapcam.errors import DataError, UsageError

log = logging.getLogger("gapcam.camera")

WAITING = 256
"""Events that may wait beside the one that is posted; beyond that the oldest is dropped and counted. With pictures it
is a tenth of that."""

_TIMEOUT_S = 5.0
_FIRST_WAIT_S, _GREATEST_WAIT_S = 0.5, 30.0
_FINISHING_S = 3.0
_MAY_PASS = (408, 425, 429)


class WebhookSink:
    """A POST with a body of JSON for each event: its fields, and an `id` that is the same when it is posted again.

    With a secret, `X-Gapcam-Signature: sha256=HEX` is HMAC-SHA256 of the header `X-Gapcam-Timestamp`, a dot and the
    body.

    Args:
        uri: `http://` or `https://`; user and password in it are sent as basic authorisation.
        options: `sources`, `secret_file`, `ca_file`, `picture` and `quality` concern it.
        first_wait_s: before an event is posted again; it doubles up to half a minute.

    Attributes:
        posted: events that were taken.

    Raises:
        UsageError: the URI is none.
        DataError: the file of the secret or of the certificates cannot be read.
    """

    capacity = 8
    """`write` only hands over; what has to wait waits here as text, not as pictures."""

    def __init__(self, uri: str, options: SinkOptions, *, first_wait_s: float = _FIRST_WAIT_S) -> None:
        self._uri, host = uri, _host(uri)
        # Not the path: at many services it is all the secret that there is.
        self.name = f"{urlsplit(uri).scheme}://{host}"
        self.posted = 0
        self._lost_events = Undelivered("events")
        self._refusals = LogPace()
        self._options = options
        self._secret = None if options.secret_file is None else secret_from_file(options.secret_file).encode()
        self._tls = client_tls(options.ca_file)
        self._most = max(1, WAITING // 10) if options.picture else WAITING
        self._first_wait_s = first_wait_s
        self._waiting: deque[bytes] = deque()
        self._trying: bytes | None = None
        self._changed = Condition()
        self._sender: Thread | None = None
        self._end_at: float | None = None

    @property
    def undelivered(self) -> int:
        """Events that were refused, or waited in vain."""
        return self._lost_events.count

    def open(self) -> None:
        """Start the thread that posts."""
        self.close()
        self._end_at = None
        self._sender = Thread(target=self._post_all, name=f"gapcam {self.name}", daemon=True)
        self._sender.start()

    def write(self, frame: ExplainedFrame) -> None:
        """Hand over the frame's events, if it has some.

        Raises:
            DataError: the sink is not open, or its thread ended.
        """
        if not frame.events or not self._options.takes(frame.captured.source):
            return
        extra = {}
        if self._options.picture:
            extra["picture_jpeg"] = b64encode(encoded(frame.picture(), "jpg", self._options.quality)).decode()
        if self._sender is None or not self._sender.is_alive():
            raise DataError(f"the thread that posts to {self.name} ended")
        with self._changed:
            for event in frame.events:
                row = {"id": str(uuid4()), **event.to_dict(), **extra}
                self._waiting.append(json.dumps(row, allow_nan=False).encode())
                if len(self._waiting) > self._most:
                    self._waiting.popleft()
                    self._lost_events.add()
            self._changed.notify_all()
        self._lost_events.say(self.name)

    def close(self) -> None:
        """Post what waits, for three seconds at most."""
        with self._changed:
            sender, self._sender = self._sender, None
            self._end_at = time.monotonic() + _FINISHING_S
            self._changed.notify_all()
        if sender is None:
            return
        sender.join(_FINISHING_S + 1)
        with self._changed:
            self._lost_events.add(len(self._waiting) + (self._trying is not None))
            self._waiting.clear()
            self._trying = None
        self._lost_events.say(self.name, at_once=True)

    def _post_all(self) -> None:
        """Until the sink is closed and nothing waits, or its time is over."""
        backoff = Backoff(self._first_wait_s, _GREATEST_WAIT_S)
        problem = ""
        with _unlogged(self._uri), httpx.Client(verify=self._tls, timeout=_TIMEOUT_S, follow_redirects=False) as client:
            while (body := self._next()) is not None:
                failed = self._try(client, body)
                if failed is None:
                    if problem:
                        self._say(logging.INFO, "posts again")
                        backoff, problem = Backoff(self._first_wait_s, _GREATEST_WAIT_S), ""
                    continue
                if failed != problem:
                    self._say(logging.WARNING, "%s; it is tried again", failed)
                    problem = failed
                self._pause(backoff.failed(0))

    def _next(self) -> bytes | None:
        with self._changed:
            while self._trying is None and not self._waiting and self._is_open():
                self._changed.wait()
            if not self._is_open() and (self._end_at is None or time.monotonic() >= self._end_at):
                return None
            if self._trying is None and self._waiting:
                self._trying = self._waiting.popleft()
            return self._trying

    def _is_open(self) -> bool:
        """For the thread that asks: one that did not end in time is none of a sink that was opened again."""
        return self._end_at is None and self._sender is current_thread()

    def _pause(self, seconds: float) -> None:
        """Wait, but not past the end."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := min(until, self._end_at or until) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _try(self, client: httpx.Client, body: bytes) -> str | None:
        """Post one. What went wrong where it is worth another try; else it no longer waits."""
        seconds_left = _TIMEOUT_S if self._end_at is None else max(0.1, self._end_at - time.monotonic())
        timeout_s = min(_TIMEOUT_S, seconds_left)
        headers = self._headers(body)
        try:
            # What the answer says beyond its status is not read: it could be endless.
            with client.stream("POST", self._uri, content=body, headers=headers, timeout=timeout_s) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:
            why = redacted(str(error), self._uri) or type(error).__name__
            return f"is not reached: {why}"
        if status in _MAY_PASS or status >= 500:
            return f"answers {status}"
        taken = 200 <= status < 300
        with self._changed:
            if self._trying is not body:  # it was closed meanwhile, and this one counted as not delivered
                return None
            self._trying = None
            self.posted += taken
            self._lost_events.add(not taken)
        if not taken and (unsaid := self._refusals.due()) is not None:
            self._say(logging.WARNING, "answers %d; the event is dropped%s", status, unsaid)
        self._lost_events.say(self.name)
        return None

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"gapcam/{__version__}"}
        if self._secret is not None:
            moment = str(int(time.time()))
            signature = hmac.new(self._secret, moment.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers |= {"X-Gapcam-Timestamp": moment, "X-Gapcam-Signature": f"sha256={signature}"}
        return headers

    def _say(self, level: int, message: str, *values: Any) -> None:
        log.log(level, f"sink %s: {message}", self.name, *values, extra={"sink": self.name})


@contextmanager
def _unlogged(uri: str) -> Iterator[None]:
    """Without httpx's own log lines about this address, which hold all of it."""
    own = httpx.URL(uri)

    def about_others(record: logging.LogRecord) -> bool:
        addresses = [part for part in record.args or () if isinstance(part, httpx.URL)]
        return not any((part.host, part.path) == (own.host, own.path) for part in addresses)

    logger = logging.getLogger("httpx")
    logger.addFilter(about_others)
    try:
        yield
    finally:
        logger.removeFilter(about_others)


def _host(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        httpx.URL(uri)
        host, port = parts.hostname, parts.port
    except (ValueError, httpx.InvalidURL):
        host, port = None, None
    if not host:
        raise UsageError(f"{without_credentials(uri)!r} is no address of a webhook; expected https://HOST/PATH")
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"
