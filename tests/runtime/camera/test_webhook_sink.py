"""Events at a web address: a real HTTP server on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread

import cv2
import numpy as np
import pytest
import trustme
from camera_frames import FrameMaker
from camera_servers.server_process import lasting_port
from planned_camera import eventually

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks import webhook
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.webhook import WAITING, WebhookSink


class Receiver:
    """Takes what is posted, and answers with the statuses planned, then with 204.

    Attributes:
        requests: (path, headers, body, when), of any answer.
        hold: while it is set, no answer is given.
    """

    def __init__(self, statuses: tuple[int, ...] = (), tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes, float]] = []
        self.statuses = list(statuses)
        self.hold = Event()
        self.free = Event()
        self._changed = Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.take(self.path, dict(self.headers.items()), body)
                if receiver.hold.is_set():
                    receiver.free.wait(20)
                self.send_response(status)
                if status in (302, 307):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that went away, or that does not trust the certificate."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self._changed:
            self.requests.append((path, headers, body, time.monotonic()))
            self._changed.notify_all()
            return self.statuses.pop(0) if self.statuses else 204

    def until(self, count: int) -> list[dict]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, 20), self.requests
            return self.rows()

    def rows(self) -> list[dict]:
        return [json.loads(body) for _, _, body, _ in self.requests]

    def close(self) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def start() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def new(*statuses: int, tls: ssl.SSLContext | None = None) -> Receiver:
        started.append(Receiver(statuses, tls))
        return started[-1]

    yield new
    for receiver in started:
        receiver.close()


@pytest.fixture
def sink_at() -> Iterator[Callable[..., WebhookSink]]:
    opened: list[WebhookSink] = []

    def new(uri: str, **options: object) -> WebhookSink:
        opened.append(WebhookSink(uri, SinkOptions(**options), first_wait_s=0.05))  # type: ignore[arg-type]
        opened[-1].open()
        return opened[-1]

    yield new
    for sink in opened:
        sink.close()


def test_each_event_is_posted_as_json(
    frames: FrameMaker, start: Callable[..., Receiver], sink_at: Callable[..., WebhookSink]
) -> None:
    receiver = start()
    sink = sink_at(f"http://127.0.0.1:{receiver.port}/hooks/cam?room=1")
    given = [frames(number=n, events=("red", "blue") if n == 1 else ()) for n in range(3)]
    for frame in given:
        sink.write(frame)
    rows = receiver.until(2)
    sink.close()
    assert len({row.pop("id") for row in rows}) == 2
    assert rows == [event.to_dict() for event in given[1].events]
    path, headers, _, _ = receiver.requests[0]
    assert path == "/hooks/cam?room=1"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("gapcam/")
    assert "X-Gapcam-Signature" not in headers
    assert (sink.posted, sink.undelivered) == (2, 0)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_posted_again_with_longer_and_longer_waits(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    receiver = start(status, status, status)
    sink = sink_at(f"http://127.0.0.1:{receiver.port}/")
    sink.write(frames(events=("red",)))
    rows = receiver.until(4)
    eventually(lambda: sink.posted == 1)
    assert [row == rows[0] for row in rows] == [True] * 4  # with the same id
    moments = [at for *_, at in receiver.requests]
    waits = np.diff(moments)
    assert waits[0] >= 0.05 * 0.75
    assert waits[1] >= 0.1 * 0.75
    assert waits[2] >= 0.2 * 0.75
    eventually(lambda: len(caplog.records) == 2)
    assert [record.getMessage() for record in caplog.records] == [
        f"sink http://127.0.0.1:{receiver.port}: answers {status}; it is tried again",
        f"sink http://127.0.0.1:{receiver.port}: posts again",
    ]


@pytest.mark.parametrize("status", [400, 401, 404, 410, 302, 307])
def test_what_is_refused_is_dropped_and_the_next_one_posted(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = start(status)
    sink = sink_at(f"http://127.0.0.1:{receiver.port}/here")
    sink.write(frames(number=1, events=("red",)))
    sink.write(frames(number=2, events=("red",)))
    assert [row["frame"] for row in receiver.until(2)] == [1, 2]
    eventually(lambda: sink.posted == 1)
    assert sink.undelivered == 1
    assert {path for path, *_ in receiver.requests} == {"/here"}  # no redirect is followed
    assert f"answers {status}; the event is dropped" in caplog.text


def test_many_refusals_are_few_log_lines_and_all_counted(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = start(*[404] * 50)
    sink = sink_at(f"http://127.0.0.1:{receiver.port}/")
    sink.write(frames(events=("red",) * 50))
    receiver.until(50)
    sink.close()
    assert (sink.posted, sink.undelivered) == (0, 50)
    assert caplog.text.count("answers 404; the event is dropped") == 1
    said = re.findall(r"(\d+) events could not be delivered, (\d+) in all", caplog.text)
    assert len(said) <= 2  # at the first one, and at the end
    assert (sum(int(more) for more, _ in said), said[-1][1]) == (50, "50")


def test_an_answer_that_comes_after_the_end_changes_no_count(
    frames: FrameMaker, start: Callable[..., Receiver]
) -> None:
    receiver = start()
    receiver.hold.set()
    sink = WebhookSink(f"http://127.0.0.1:{receiver.port}/", SinkOptions())
    sink.open()
    sink.write(frames(events=("red",)))
    receiver.until(1)
    poster = sink._sender
    assert poster is not None
    with sink._changed:
        sink._trying = None  # as `close` does when the time is over
        sink._lost_events.add()
    receiver.hold.clear()
    receiver.free.set()
    sink.write(frames(number=1, events=("red",)))
    assert [row["frame"] for row in receiver.until(2)] == [0, 1]
    sink.close()
    assert (sink.posted, sink.undelivered) == (1, 1)
    assert not poster.is_alive()


def test_a_receiver_that_is_away_gets_all_when_it_is_back(
    frames: FrameMaker, sink_at: Callable[..., WebhookSink], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    port = lasting_port()
    sink = sink_at(f"http://127.0.0.1:{port}/")
    for n in range(5):
        sink.write(frames(number=n, events=("red",)))
    eventually(lambda: "is not reached: [Errno 111] Connection refused" in caplog.text)
    rows = []
    with socket.create_server(("127.0.0.1", port)) as back:
        back.settimeout(20)
        while len(rows) < 5:
            connection, _ = back.accept()
            with connection, connection.makefile("rb") as stream:
                length = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
                rows.append(json.loads(stream.read(length)))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nendless")
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    eventually(lambda: sink.posted == 5)


def test_a_receiver_that_does_not_answer_holds_nothing_up_and_what_waits_is_bounded(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 60.0)
    receiver = start()
    receiver.hold.set()
    sink = sink_at(f"http://127.0.0.1:{receiver.port}/")
    sink.write(frames(number=0, events=("red",)))
    receiver.until(1)
    began = time.monotonic()
    for n in range(1, 11):
        sink.write(frames(number=n, events=("red",) * 40))
    assert time.monotonic() - began < 20
    assert sink.undelivered == 400 - WAITING  # and one is being posted
    receiver.hold.clear()
    receiver.free.set()
    rows = receiver.until(1 + WAITING)
    eventually(lambda: sink.posted == 1 + WAITING)
    assert sink.undelivered == 400 - WAITING
    assert [row["frame"] for row in rows] == [0, *[n for n in range(1, 11) for _ in range(40)][-WAITING:]]


def test_closing_posts_what_waits_but_not_for_ever(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = start()
    sink = WebhookSink(f"http://127.0.0.1:{receiver.port}/", SinkOptions())
    sink.open()
    sink.write(frames(events=("red",) * 20))
    with monkeypatch.context() as patient:
        patient.setattr(webhook, "_FINISHING_S", 60.0)
        sink.close()
    assert len(receiver.requests) == 20
    receiver.hold.set()
    sink.open()
    sink.write(frames(events=("red",) * 2))
    began = time.monotonic()
    sink.close()
    assert 2 < time.monotonic() - began < 15  # nor until the answer comes, after 20
    assert sink.undelivered == 2
    assert "2 events could not be delivered, 2 in all" in caplog.text


def test_closing_ends_the_wait_for_another_try(frames: FrameMaker, start: Callable[..., Receiver]) -> None:
    receiver = start(500)
    sink = WebhookSink(f"http://127.0.0.1:{receiver.port}/", SinkOptions(), first_wait_s=60)
    sink.open()
    sink.write(frames(events=("red",)))
    receiver.until(1)
    sink.close()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == f"gapcam {sink.name}"])
    assert sink.undelivered == 1


def test_a_secret_signs_the_time_and_the_body(
    frames: FrameMaker, start: Callable[..., Receiver], sink_at: Callable[..., WebhookSink], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("open sesame\n")
    receiver = start()
    sink_at(f"http://127.0.0.1:{receiver.port}/", secret_file=tmp_path / "secret").write(frames(events=("red",)))
    receiver.until(1)
    _, headers, body, _ = receiver.requests[0]
    assert abs(int(headers["X-Gapcam-Timestamp"]) - time.time()) < 10
    signed = headers["X-Gapcam-Timestamp"].encode() + b"." + body
    expected = hmac.new(b"open sesame", signed, hashlib.sha256).hexdigest()
    assert headers["X-Gapcam-Signature"] == f"sha256={expected}"


def test_the_picture_comes_along_where_it_is_wanted(
    frames: FrameMaker, start: Callable[..., Receiver], sink_at: Callable[..., WebhookSink]
) -> None:
    receiver = start()
    frame = frames(events=("red",))
    sink_at(f"http://127.0.0.1:{receiver.port}/", picture=True, quality=95).write(frame)
    (row,) = receiver.until(1)
    shown = cv2.imdecode(np.frombuffer(b64decode(row["picture_jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - frame.picture()).mean() < 6


def test_user_password_and_path_are_sent_and_shown_nowhere(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = start(500, 404)
    sink = sink_at(f"http://camera:hunter2@127.0.0.1:{receiver.port}/services/T0/open-sesame?token=mellon")
    for n in range(3):
        sink.write(frames(number=n, events=("red",)))
    receiver.until(4)
    eventually(lambda: sink.posted == 2)
    path, headers, _, _ = receiver.requests[0]
    assert path == "/services/T0/open-sesame?token=mellon"
    assert b64decode(headers["Authorization"].removeprefix("Basic ")) == b"camera:hunter2"
    shown = caplog.text + sink.name
    assert "answers 500" in shown
    for secret in ("hunter2", "open-sesame", "mellon"):
        assert secret not in shown


def test_over_tls_to_whom_is_trusted_and_to_nobody_else(
    frames: FrameMaker,
    start: Callable[..., Receiver],
    sink_at: Callable[..., WebhookSink],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    receiver = start(tls=tls)
    uri = f"https://127.0.0.1:{receiver.port}/"
    stranger = sink_at(uri)
    stranger.write(frames(events=("red",)))
    eventually(lambda: "certificate verify failed" in caplog.text)
    assert receiver.requests == []
    sink_at(uri, ca_file=tmp_path / "authority.pem").write(frames(events=("red",)))
    receiver.until(1)


def test_it_is_said_where_it_is_not_open(frames: FrameMaker) -> None:
    sink = WebhookSink("http://127.0.0.1:1/", SinkOptions())
    sink.write(frames())  # nothing happened
    with pytest.raises(Exception, match=r"the thread that posts to http://127\.0\.0\.1:1 ended") as raised:
        sink.write(frames(events=("red",)))
    assert not isinstance(raised.value, SinkEndedError)
