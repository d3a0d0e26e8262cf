"""The page's server as a sink: it starts, serves, ends in time, and is started again."""

from __future__ import annotations

import logging
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from camera_frames import picture
from planned_camera import PATIENCE_S, FedSource, eventually, no_thread_left
from small_models import fake_red_and_blue
from watched_page import TOKEN, WatchedPage, watched_page
from websockets.exceptions import ConnectionClosed

import gapcam
from gapcam.camera.page import api as api_module
from gapcam.camera.page import connections as connections_module
from gapcam.camera.page import snapshots as snapshots_module
from gapcam.camera.page.server import PageServer
from gapcam.camera.page.server_options import ServerOptions, checked_origin, is_loopback, split_address
from gapcam.camera.page.token_source import TOKEN_VARIABLE, read_token
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.sinks.protocol import Sink
from gapcam.errors import DataError, UsageError


def address_of(watch) -> tuple[str, int]:
    return "127.0.0.1", int(watch.page.url.rstrip("/").rpartition(":")[2])


def test_it_is_a_sink():
    with watched_page() as watch:
        assert isinstance(watch.page, Sink)
        watch.feed()
        eventually(lambda: watch.pipeline.status().sinks[0].written == 1)


def test_it_serves_the_page_before_the_pipeline_runs_and_before_the_first_frame():
    with gapcam.Session(fake_red_and_blue()) as session:
        page = PageServer(Pipeline(session, [FedSource("cam")]), ServerOptions(address="127.0.0.1:0"))
        page.start()
        try:
            with httpx.Client(base_url=page.url, trust_env=False) as http:
                assert http.get("/").headers["content-type"] == "text/html; charset=utf-8"
                assert http.get("/healthz").status_code == 503
                assert http.get("/api/status").json()["running"] is False
                assert http.get("/api/frame").status_code == 503
        finally:
            page.close()


def test_it_ends_at_once_with_clients_of_every_kind_and_leaves_nothing_open():
    files = psutil.Process().num_fds()
    with no_thread_left(), watched_page() as watch:
        address = address_of(watch)
        with (
            watch.live(view={}) as client,
            watch.live(view={}) as stalled,
            watch.client() as http,
            http.stream("GET", "api/stream.mjpeg") as stream,
            socket.create_connection(address) as silent,
            socket.create_connection(address) as half,
        ):
            half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
            watch.feed()
            client.frame()
            stalled.frame()
            client.ready()
            began = time.monotonic()
            watch.page.close()
            assert time.monotonic() - began < 4
            with pytest.raises(ConnectionClosed) as closed:
                client.socket.recv(PATIENCE_S)
            assert closed.value.rcvd.code in (1001, 1012)
            for _ in stream.iter_raw():
                pass
            assert silent.recv(1) == b""
            assert half.recv(1) == b""
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(address)
    eventually(lambda: psutil.Process().num_fds() <= files, "that all files are closed")


def test_answers_and_frames_are_sent_at_once():
    """Nagle's algorithm would hold the second part of an answer back until the first is acknowledged: 40 ms."""
    with watched_page() as watch, watch.client() as http:
        assert http.get("healthz").status_code == 200
        (connection,) = watch.page._running._connections._open.values()
        option = connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option != 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_all_addresses_are_those_of_both_kinds():
    with watched_page(address="[::]:0", token=TOKEN) as watch:
        assert watch.page.url.startswith("http://[::1]:")
        port = address_of(watch)[1]
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/healthz", trust_env=False).status_code == 200


def test_closing_twice_or_before_the_start_does_nothing():
    with watched_page() as watch:
        watch.page.close()
        watch.page.close()
    with gapcam.Session(fake_red_and_blue()) as session:
        PageServer(Pipeline(session, [FedSource("cam")])).close()


def test_an_address_in_use_is_one_line_at_the_start():
    with watched_page() as watch:
        host, port = address_of(watch)
        second = PageServer(watch.pipeline, ServerOptions(address=f"{host}:{port}"), name="second")
        with pytest.raises(DataError) as error:
            second.start()
        assert str(error.value) == (
            f"cannot serve 127.0.0.1:{port}: address already in use; something serves it already: end that, or give "
            "another port"
        )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.2.1:0", "cannot serve 192.0.2.1:0: cannot assign requested address; give an address of this machine"),
        ("no-such-host.invalid:0", "cannot serve no-such-host.invalid:0: "),
    ],
)
def test_an_address_that_is_not_this_machines_is_one_line(address, said):
    with watched_page() as watch:
        page = PageServer(watch.pipeline, ServerOptions(address=address, token=TOKEN))
        with pytest.raises(DataError) as error:
            page.start()
        assert str(error.value).startswith(said)
        assert "\n" not in str(error.value)


def test_after_a_restart_it_has_the_same_address_and_who_signed_in_still_is():
    with watched_page(token=TOKEN) as watch, watch.client() as http:
        url = watch.page.url
        http.post("login", data={"token": TOKEN})
        assert http.get("api/status").status_code == 200
        watch.feed()
        watch.page.close()
        watch.page.open()
        assert watch.page.url == url
        assert http.get("api/status").status_code == 200
        assert http.get("api/frame").json()["frame"] == 0, "the newest frame is still there"
        assert http.get("api/snapshot.jpg").status_code == 200
        watch.feed()
        assert http.get("api/frame").json()["frame"] == 1


def test_a_server_that_fails_is_started_again_by_the_pipeline(caplog):
    with watched_page() as watch, watch.client() as http:
        watch.feed()
        first = watch.page._running
        first._loop.call_soon_threadsafe(first._loop.stop)
        first._thread.join(PATIENCE_S)
        watch.sources["cam"].feed(picture(3))
        eventually(lambda: watch.pipeline.status().sinks[0].restarts >= 1, "a restart")
        eventually(lambda: watch.page._running is not first and watch.page._running is not None)
        watch.feed()
        assert http.get("api/status").status_code == 200
        sink = watch.pipeline.status().sinks[0]
        assert sink.failed == 1
    assert "the page's server ended: RuntimeError" in caplog.text


def test_who_connects_and_says_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections_module, "_SWEEP_S", 0.1)
    with watched_page() as watch, watch.live(view={}) as client:
        monkeypatch.setattr(connections_module, "ASK_S", 1.0)
        with (
            socket.create_connection(address_of(watch), PATIENCE_S) as silent,
            socket.create_connection(address_of(watch), PATIENCE_S) as slow,
        ):
            stop = threading.Event()

            def drip() -> None:
                head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 1000
                for byte in head:
                    if stop.wait(0.02):
                        return
                    try:
                        slow.send(bytes([byte]))
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                for one in (silent, slow):
                    with suppress(ConnectionResetError):  # cut off, too
                        assert one.recv(100) == b""
            finally:
                stop.set()
                dripping.join()
        watch.feed()
        client.frame()  # one who watches, and was there before, is not cut off


def answers(watch: WatchedPage) -> bool:
    with suppress(httpx.TransportError), watch.client() as http:
        return http.get("healthz").status_code == 200
    return False


def half_sent(watch: WatchedPage, number: int, address: str) -> list[socket.socket]:
    """Connections from an address of this machine, each with half a request."""
    made = []
    for _ in range(number):
        one = socket.create_connection(address_of(watch), PATIENCE_S, (address, 0))
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        made.append(one)
    return made


def test_one_address_has_half_of_the_connections_and_its_oldest_idle_ones_make_way():
    allowed = (128 + 4) // 2
    with watched_page(max_clients=1) as watch, watch.live(view={}) as live, watch.client() as http:
        assert http.get("healthz").status_code == 200  # kept alive
        opened = half_sent(watch, allowed - 2 + 20, "127.0.0.1")
        try:
            eventually(lambda: set(select.select(opened, [], [], 0)[0]) == set(opened[:20]), "the first are cut off")
            assert len(watch.page._running._connections) == allowed
            watch.feed()
            live.frame()
            assert http.get("healthz").status_code == 200
            assert answers(watch), "there is room for one who asks"
        finally:
            for one in opened:
                one.close()


def test_other_addresses_lock_nobody_out():
    with watched_page(max_clients=1) as watch:
        opened = [one for last in range(2, 6) for one in half_sent(watch, 66, f"127.0.0.{last}")]
        try:
            assert answers(watch)
            assert len(watch.page._running._connections) <= 128 + 4
        finally:
            for one in opened:
                one.close()


def test_half_a_body_locks_nobody_out_either():
    with watched_page(max_clients=1) as watch:
        opened = []
        for last in (2, 3, 4):
            for one in half_sent(watch, 66, f"127.0.0.{last}"):
                with suppress(ConnectionError):  # it made way for others
                    one.sendall(b"Content-Length: 9\r\n\r\ntoken")
                opened.append(one)
            assert answers(watch)
        for one in opened:
            one.close()


def test_who_is_being_answered_makes_no_way(monkeypatch):
    """Snapshots that wait for a map which does not come."""
    monkeypatch.setattr(api_module, "MAP_WAIT_S", 60)
    monkeypatch.setattr(snapshots_module, "WAITING", 1000)
    asks = b"GET /api/snapshot.jpg?class=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with watched_page(max_clients=1) as watch:
        watch.feed(np.full((120, 160, 3), (20, 20, 220), np.uint8))
        connections = watch.page._running._connections
        opened = [socket.create_connection(address_of(watch), PATIENCE_S, (f"127.0.0.{n}", 0)) for n in (2, 3) * 66]
        try:
            for one in opened:
                one.sendall(asks)
            eventually(lambda: sum(one.requests for one in list(connections._open.values())) == 128 + 4)
            assert not answers(watch), "all are at work, and no more may"
            opened.pop().close()
            eventually(lambda: answers(watch), "that there is room again")
            assert not select.select(opened, [], [], 0)[0], "none was cut off"
        finally:
            for one in opened:
                one.close()


# --- options


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:9000", "::1", 9000),
        ("[::1]", "::1", 8080),
        (":9000", "127.0.0.1", 9000),
        ("9000", "127.0.0.1", 9000),
        ("localhost", "localhost", 8080),
        ("cam-1.local:80", "cam-1.local", 80),
        ("0.0.0.0:0", "0.0.0.0", 0),  # noqa: S104 - nothing listens there
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
    ],
)
def test_addresses(address, host, port):
    assert split_address(address) == (host, port)


@pytest.mark.parametrize(
    "address", ["", "http://127.0.0.1:80", "a b", "::1", "host:", "h:x", "[::1", "user@host:80", "h:80/x"]
)
def test_what_is_no_address_is_said_to_be_none(address):
    with pytest.raises(UsageError, match="give HOST:PORT"):
        ServerOptions(address=address)


def test_a_port_that_is_too_great_is_refused():
    with pytest.raises(UsageError, match="got port 65536"):
        ServerOptions(address="127.0.0.1:65536")


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "192.168.1.5:80", "cam.local:80", "128.0.0.1:80"])
def test_what_other_machines_reach_needs_a_token_or_the_word_insecure(address):
    with pytest.raises(UsageError, match=r"needs a token.*--token-file.*--insecure"):
        ServerOptions(address=address)
    assert ServerOptions(address=address, token=TOKEN).token == TOKEN
    assert ServerOptions(address=address, insecure=True).token is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_none(host):
    assert is_loopback(host)
    assert not is_loopback(f"{host}.example")


def test_other_options_that_are_wrong():
    for wrong, said in (
        ({"token": "short"}, "the token has 5 characters; give at least 16"),
        ({"token": "sixteen characters"}, "has blanks or other characters"),
        ({"tls_key": Path("key.pem")}, "but no certificate"),
        ({"max_clients": 0}, "max_clients is 0"),
        ({"origins": ("cameras.example",)}, "got 'cameras.example' as an origin"),
        ({"origins": ("https://a.example/path",)}, "as an origin"),
        ({"origins": ("https://a@b.example",)}, "as an origin"),
        ({"origins": ("ftp://a.example",)}, "as an origin"),
        ({"origins": ("http://a.example:x",)}, "as an origin"),
    ):
        with pytest.raises(UsageError, match=said):
            ServerOptions(**wrong)


def test_origins_are_written_as_browsers_write_them():
    assert checked_origin("HTTPS://Cameras.Example:443/") == "https://cameras.example"
    assert checked_origin("http://[::1]:80") == "http://[::1]"
    assert checked_origin("http://a.example:8080") == "http://a.example:8080"


def test_options_are_printed_without_the_token():
    assert TOKEN not in repr(ServerOptions(token=TOKEN))


def test_the_token_comes_from_a_file_or_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    other = "another-token-0123456789"
    assert read_token(file, {TOKEN_VARIABLE: other}) == TOKEN
    assert read_token(None, {TOKEN_VARIABLE: other}) == other
    assert read_token(None, {}) is None
    with pytest.raises(DataError, match=r"cannot read the token from .*missing: No such file"):
        read_token(tmp_path / "missing", {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="it is no text"):
        read_token(file, {})
    file.write_text("secret\n")
    with pytest.raises(UsageError, match=r"token: the token has 6 characters") as error:
        read_token(file, {})
    assert "secret" not in str(error.value).replace("import secrets; print(secrets", "")
    with pytest.raises(UsageError, match=TOKEN_VARIABLE):
        read_token(None, {TOKEN_VARIABLE: ""})


def test_who_may_watch_is_said_where_others_reach_it(caplog):
    caplog.set_level(logging.WARNING, "gapcam.camera")
    with watched_page(address="0.0.0.0:0", token=TOKEN):
        assert "travel in the clear" in caplog.text
    caplog.clear()
    with watched_page(address="0.0.0.0:0", insecure=True) as watch:
        assert "everybody who reaches 0.0.0.0:0 may watch" in caplog.text
        assert watch.page.url.startswith("http://127.0.0.1:")
    caplog.clear()
    with watched_page(token=TOKEN):
        assert "page:" not in caplog.text


def test_nothing_of_it_is_imported_with_gapcam_camera():
    code = "import sys, gapcam.camera; print([n for n in sys.modules if n.partition('.')[0] in {%s}])"
    packages = "'fastapi', 'starlette', 'uvicorn', 'websockets', 'prometheus_client', 'pydantic'"
    done = subprocess.run([sys.executable, "-c", code % packages], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
