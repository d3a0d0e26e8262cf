"""Who may see the page, who may not, and what strangers learn: nothing."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trustme
from camera_frames import noise
from cryptography.hazmat.primitives import serialization as s
from planned_camera import PATIENCE_S, FedSource, eventually
from watched_page import TOKEN, WatchedPage, watched_page
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gapcam.camera.errors import SourceLostError
from gapcam.camera.page import gate as gate_module
from gapcam.camera.page import live as live_module
from gapcam.camera.page.allowed_hosts import AllowedHosts
from gapcam.camera.page.credentials import SESSION_S, Credentials
from gapcam.camera.page.gate import MAX_BODY_BYTES
from gapcam.camera.page.rates import AddressRates, TokenBucket
from gapcam.camera.page.server import PageServer
from gapcam.camera.page.server_options import ServerOptions
from gapcam.errors import DataError

BEARER = {"Authorization": f"Bearer {TOKEN}"}
GUARDED = (
    "/",
    "/metrics",
    "/openapi.json",
    "/api/status",
    "/api/classes",
    "/api/settings",
    "/api/events",
    "/api/frame",
    "/api/snapshot.jpg",
    "/api/snapshot.png",
    "/api/stream.mjpeg",
    "/nothing",
    "/static",
    "/healthz/",
    "/login/",
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[WatchedPage]:
    """With a token, and a frame."""
    with watched_page(token=TOKEN) as watch:
        watch.feed()
        yield watch


@pytest.fixture(scope="module")
def free() -> Iterator[WatchedPage]:
    """Without a token, on loopback."""
    with watched_page() as watch:
        watch.feed()
        yield watch


def port_of(watch: WatchedPage) -> int:
    return int(watch.page.url.rstrip("/").rpartition(":")[2])


def asked(watch: WatchedPage, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to bytes sent as they are: status, headers, body."""
    with socket.create_connection(("127.0.0.1", port_of(watch)), PATIENCE_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def warnings_of_the_page(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Without the cameras' own: one that is fed no more, as another test's may be, stalls after a while."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in said if not line.startswith("source ")]


# --- the token


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": f"gapcam={TOKEN}"},
    ],
    ids=lambda headers: str(*headers.values())[:12],
)
def test_without_the_token_nothing_is_answered(guarded, path, headers):
    page = guarded.page._running._state
    page.guesses._buckets.clear()  # how often one may guess is another test's
    page_requests(guarded)
    with guarded.client() as client:
        answer = client.get(path, headers={**headers, "Cookie": f"gapcam_{port_of(guarded)}={TOKEN}"})
    if path == "/" and "Authorization" not in headers:
        assert answer.status_code == 303
        assert answer.headers["location"] == "login"
    else:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json().keys() == {"error"}
    assert TOKEN not in answer.text


def page_requests(watch: WatchedPage) -> None:
    """Start the count of requests anew: the tests ask more than anybody does."""
    gate = watch.page._running._server.config.app
    for rates in (gate._requests, gate._strangers, gate._files):
        rates._buckets.clear()


def test_with_the_token_everything_is(guarded):
    page_requests(guarded)
    with guarded.client(headers=BEARER) as client:
        for path in GUARDED[:10]:
            assert client.get(path).status_code == 200, path
        assert client.get("/nothing").status_code == 404
        with guarded.live(view={}, additional_headers=BEARER) as live:
            live.frame()


def test_the_word_bearer_is_in_any_case_as_rfc_6750_has_it(guarded):
    with guarded.client() as client:
        assert client.get("api/status", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200


def test_a_token_in_the_address_is_no_token(guarded):
    with guarded.client() as client:
        for name in ("token", "access_token"):
            assert client.get("api/status", params={name: TOKEN}).status_code == 401


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Cookie": "gapcam_1=x"}], ids=str)
def test_without_the_token_no_websocket_opens(guarded, headers):
    with pytest.raises(InvalidStatus) as refused, guarded.live(additional_headers=headers):
        pass
    assert refused.value.response.status_code == 401
    assert "token" in json.loads(refused.value.response.body)["error"]
    assert "content-security-policy" in refused.value.response.headers


def test_what_is_open_to_everyone_says_nothing(guarded):
    with guarded.client() as client:
        assert client.get("healthz").json() == {"status": "ok"}
        assert client.get("login").status_code == 200
        assert client.get("static/style.css").status_code == 200
        for path in ("login", "static/style.css", "static/login.html"):
            assert "cam" not in client.get(path).headers.get("set-cookie", "")


# --- signing in


def test_signing_in_gives_a_cookie_that_opens_the_page_until_one_signs_out(guarded):
    page_requests(guarded)
    with guarded.client() as client:
        answer = client.post("login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        cookie = answer.headers["set-cookie"]
        name, _, rest = cookie.partition("=")
        value = rest.partition(";")[0]
        assert name == f"gapcam_{port_of(guarded)}"
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert flags >= {"httponly", "samesite=strict", "path=/", f"max-age={int(SESSION_S)}"}
        assert "secure" not in flags, "there is no TLS"
        assert not any(flag.startswith("domain") for flag in flags)
        assert len(value) >= 43, "256 bits"
        assert TOKEN not in cookie
        assert client.get("/").status_code == 200
        assert client.get("login").status_code == 303, "one is signed in already"
        with guarded.live(view={}, additional_headers={"Cookie": f"{name}={value}"}) as live:
            live.frame()
            assert client.post("logout").headers["location"] == "login"
            with pytest.raises(ConnectionClosed) as closed:
                live.socket.recv(PATIENCE_S)
            assert closed.value.rcvd.code == live_module.SIGNED_OUT
        assert client.get("api/status", headers={"Cookie": f"{name}={value}"}).status_code == 401


def test_two_who_sign_in_have_different_sessions(guarded):
    with guarded.client() as one, guarded.client() as other:
        one.post("login", data={"token": TOKEN})
        other.post("login", data={"token": TOKEN})
        assert list(one.cookies.values()) != list(other.cookies.values())
        one.post("logout")
        assert other.get("api/status").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"token=",
        b"token=wrong",
        b"token=" + TOKEN.encode() + b"&token=wrong",
        b"\xff\xfe",
        b"&" * 50,
        b"{}",
        b"a=b",
    ],
)
def test_what_is_not_the_token_signs_nobody_in(guarded, body):
    guarded.page._running._state.guesses._buckets.clear()
    with guarded.client() as client:
        answer = client.post("login", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status_code == 401
        assert answer.json() == {"error": "this is not the token"}
        assert "set-cookie" not in answer.headers


def test_a_form_without_scripts_is_told_on_the_page(guarded):
    guarded.page._running._state.guesses._buckets.clear()
    with guarded.client() as client:
        answer = client.post("login", data={"token": "wrong"}, headers={"Accept": "text/html,*/*"})
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith("text/html")
        assert "This is not the token." in answer.text


def test_guessing_is_slowed_down_for_forms_and_programs_alike(caplog):
    with watched_page(token=TOKEN) as watch, watch.client() as client:
        said = [client.post("login", data={"token": f"wrong-{number}"}).status_code for number in range(3)]
        said += [client.get("api/status", headers={"Authorization": "Bearer x"}).status_code for _ in range(5)]
        assert said == [401] * 5 + [429] * 3
        late = client.post("login", data={"token": "wrong"})
        assert late.status_code == 429
        assert 0 < int(late.headers["retry-after"]) <= 12
        assert late.json() == {"error": "too many attempts; wait a while"}
        assert client.get("healthz").status_code == 200
        counted = client.get("metrics", headers=BEARER).text
        assert 'gapcam_page_refused_total{status="401"} 5.0' in counted
        assert 'gapcam_page_refused_total{status="429"} 4.0' in counted
    said = warnings_of_the_page(caplog)
    assert said[:1] == ["page: somebody gave a wrong token"]
    assert len(said) < 4, "now and then"


def test_whoever_guesses_locks_nobody_out(monkeypatch):
    """At the same address: behind a proxy all have one."""
    monkeypatch.setattr(gate_module, "REQUESTS_A_SECOND", 1)  # a slow machine's client asks more often than that
    with watched_page(token=TOKEN) as watch, watch.client() as client, watch.client() as honest:
        assert honest.post("login", data={"token": TOKEN}).status_code == 303
        for _ in range(8):
            late = client.get("api/status", headers={"Authorization": f"Bearer {TOKEN}x"})
        assert late.status_code == 429
        assert client.get("api/status", headers=BEARER).status_code == 200
        assert client.post("login", data={"token": TOKEN}).status_code == 303
        client.cookies.clear()
        while not client.get("api/status").json()["error"].startswith("too many requests"):
            pass
        assert honest.get("api/status").status_code == 200, "who is signed in has requests of their own"
        assert client.get("api/status", headers=BEARER).status_code == 200
        assert client.get("static/style.css").status_code == 200


def test_sessions_end_and_are_bounded():
    now = [0.0]
    credentials = Credentials(TOKEN, clock=lambda: now[0])
    first = credentials.sign_in()
    now[0] = SESSION_S - 1
    assert credentials.is_session(first)
    now[0] = SESSION_S
    assert not credentials.is_session(first)
    sessions = [credentials.sign_in() for _ in range(300)]
    assert len(credentials._sessions) == 256
    assert not credentials.is_session(sessions[0])
    assert credentials.is_session(sessions[-1])


def test_neither_the_token_nor_a_session_is_kept():
    credentials = Credentials(TOKEN)
    session = credentials.sign_in()
    kept = repr(vars(credentials))
    assert TOKEN not in kept
    assert session not in kept
    assert not credentials.is_token("")
    assert not Credentials(None).is_token("")
    assert not Credentials(None).needed


# --- other pages: hosts and origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("localhost:9999", 200),  # a tunnel
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.1.1", 421),
        ("localhost@evil.example", 421),
        ("evil.example@localhost", 421),
        ("localhost:x", 421),
        ("", 421),
        ("localhost/x", 421),
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(free, host, status):
    """DNS rebinding."""
    page_requests(free)
    value = host.format(port=port_of(free)).encode()
    for path in (b"/api/status", b"/", b"/healthz", b"/static/style.css"):
        answer, headers, body = asked(free, b"GET " + path + b" HTTP/1.1\r\nHost: " + value + b"\r\n\r\n")
        assert answer == status, path
        assert "content-security-policy" in headers
        if status != 200:
            assert json.loads(body)["error"].startswith("this server does not go by the name")


@pytest.mark.parametrize("more", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"], ids=["HTTP", "WebSocket"])
def test_two_hosts_are_no_request(free, more):
    for hosts in (b"Host: localhost\r\nHost: evil.example\r\n", b"Host: localhost\r\nHost: localhost\r\n"):
        answer, headers, body = asked(free, b"GET / HTTP/1.1\r\n" + hosts + more + b"\r\n")
        assert answer == 400
        assert json.loads(body) == {"error": "this is no HTTP request"}
        assert "content-security-policy" in headers


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({"address": "192.0.2.5:80"}, ["192.0.2.5", "192.0.2.5:80", "localhost"], ["192.0.2.6", "evil.example"]),
        ({"address": "cam.local:80"}, ["cam.local", "CAM.local:80"], ["cam", "192.0.2.5", "local"]),
        (
            {"address": "0.0.0.0:80"},
            ["192.0.2.5", "[2001:db8::1]:80", "localhost", socket.gethostname()],
            ["evil.example", ""],
        ),
        (
            {"address": "127.0.0.1:80", "origins": ("https://cams.example",)},
            ["cams.example", "cams.example:8443", "localhost"],
            ["evil.example", "www.cams.example"],
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_by_which_names_a_server_goes(options, good, bad):
    hosts = AllowedHosts(ServerOptions(**options, token=TOKEN))
    assert [host for host in good if not hosts.is_host(host)] == []
    assert [host for host in bad if hosts.is_host(host)] == []


ORIGINS = [
    ("http://127.0.0.1:{port}", True),
    ("http://localhost:{port}", False),  # the host that is asked for is 127.0.0.1
    ("https://127.0.0.1:{port}", False),
    ("http://127.0.0.1:1", False),
    ("http://evil.example", False),
    ("http://127.0.0.1:{port}.evil.example", False),
    ("null", False),
    ("", False),
    ("https://cams.example", True),
    ("http://cams.example", False),
]


@pytest.fixture(scope="module")
def proxied() -> Iterator[WatchedPage]:
    with watched_page(origins=("https://cams.example",)) as watch:
        watch.feed()
        yield watch


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
def test_another_pages_websocket_is_refused(proxied, origin, allowed):
    headers = {"Origin": origin.format(port=port_of(proxied))}
    if allowed:
        with proxied.live(view={}, additional_headers=headers) as live:
            live.frame()
        return
    with pytest.raises(InvalidStatus) as refused, proxied.live(additional_headers=headers):
        pass
    assert refused.value.response.status_code == 403
    assert "another page" in json.loads(refused.value.response.body)["error"]


def test_a_refused_websocket_is_no_fault(caplog):
    there = {"Origin": "http://evil.example"}
    with watched_page() as watch, pytest.raises(InvalidStatus), watch.live(additional_headers=there):
        pass
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
def test_another_pages_form_is_refused(proxied, origin, allowed):
    with proxied.client() as client:
        for path in ("login", "logout"):
            answer = client.post(path, headers={"Origin": origin.format(port=port_of(proxied))})
            assert answer.status_code == (303 if allowed else 403)


@pytest.mark.parametrize(
    ("site", "allowed"), [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)]
)
def test_another_page_can_lead_here_but_takes_no_picture(free, site, allowed):
    page_requests(free)
    with free.client(headers={"Sec-Fetch-Site": site}) as client:
        for path in ("", "healthz", "static/style.css"):
            assert client.get(path).status_code == 200, path
        assert client.get("login").status_code == 303
        for path in ("api/stream.mjpeg", "api/snapshot.jpg", "api/status", "metrics", "openapi.json"):
            with client.stream("GET", path) as answer:
                assert answer.status_code == (200 if allowed else 403), path
        assert client.post("logout").status_code == (303 if allowed else 403)
    eventually(lambda: free.page._seats.count() == 0)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_a_link_elsewhere_opens_the_metrics_and_no_picture(free, site):
    """As Prometheus has one, for each that it scrapes."""
    page_requests(free)
    opened = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with free.client(headers=opened) as client:
        for method in ("GET", "HEAD"):
            for path in ("metrics", "openapi.json"):
                assert client.request(method, path).status_code == 200, path
                for other in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}):
                    assert client.request(method, path, headers=other).status_code == 403, path
            for path in ("api/stream.mjpeg", "api/snapshot.jpg", "api/status", "metrics/"):
                assert client.request(method, path).status_code == 403, path
        assert client.post("metrics").status_code == 403


# --- limits


def test_one_address_asks_only_so_often(monkeypatch):
    monkeypatch.setattr(gate_module, "REQUESTS_A_SECOND", 5)  # a slow machine's client asks more often than that
    with watched_page() as watch, watch.client() as client:
        began, said = time.monotonic(), 0
        while (late := client.get("healthz")).status_code == 200:
            said += 1
            assert said < 5000
        took = time.monotonic() - began
        assert said >= gate_module.REQUESTS_AT_ONCE
        assert said <= gate_module.REQUESTS_AT_ONCE + gate_module.REQUESTS_A_SECOND * took + 1
        assert late.status_code == 429
        assert late.headers["retry-after"] == "1"
        assert late.json()["error"].startswith("too many requests")
        time.sleep(1.1)
        assert client.get("api/status").status_code == 200


def test_the_pages_own_files_take_none_of_the_requests():
    """Ten who open it at once, behind one address."""
    with watched_page() as watch, watch.client() as client:
        for _ in range(gate_module.REQUESTS_AT_ONCE + 100):
            assert client.get("static/icon.svg").status_code == 200
        for _ in range(gate_module.REQUESTS_AT_ONCE):
            assert client.get("healthz").status_code == 200


@pytest.mark.parametrize("path", ["api/status", "static/icon.svg", "login"])
def test_another_page_in_the_same_browser_takes_none_of_the_requests(path, monkeypatch):
    monkeypatch.setattr(gate_module, "REQUESTS_A_SECOND", 5)  # a slow machine's client asks more often than that
    with watched_page() as watch, watch.client() as client:
        there = {"Sec-Fetch-Site": "cross-site"}
        for _ in range(5 * gate_module.REQUESTS_AT_ONCE):
            late = client.get(path, headers=there)
            if late.status_code == 429:
                break
        assert late.status_code == 429, "it has an end, too"
        for _ in range(gate_module.REQUESTS_AT_ONCE):
            assert client.get("api/status").status_code == 200
        assert client.get("static/icon.svg").status_code == 200


def test_buckets_fill_at_their_rate_and_are_bounded():
    now = [0.0]
    bucket = TokenBucket(2.0, 3, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s() == pytest.approx(0.5)
    now[0] = 0.49
    assert not bucket.take()
    now[0] = 0.51
    assert bucket.take()
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False], "no more than it holds"
    rates = AddressRates(1, 1, kept=10, clock=lambda: now[0])
    for number in range(50):
        rates.of(f"192.0.2.{number}").take()
    assert len(rates) == 10
    rates.of("2001:db8::1").take()
    assert not rates.of("2001:db8::ffff:1").take(), "one network of 64 bits"
    assert rates.of("2001:db8:0:1::1").take()
    rates.of("::ffff:192.0.2.99").take()
    assert not rates.of("192.0.2.99").take(), "the same address"


def test_a_body_that_is_too_long_is_refused_unread(free):
    page_requests(free)
    with free.client() as client:
        answer = client.post("login", content=b"x" * (MAX_BODY_BYTES + 1))
        assert answer.status_code == 413
        assert "4096 bytes are allowed" in answer.json()["error"]

        def chunks() -> Iterator[bytes]:
            for _ in range(8):
                yield b"x" * 1024

        assert client.post("login", content=chunks()).status_code == 413
        assert client.post("login", content=b"x" * MAX_BODY_BYTES).status_code == 303
    status, _, _ = asked(
        free, b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n"
    )
    assert status == 413
    status, _, _ = asked(free, b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n")
    assert status == 413


def test_a_body_that_never_comes_is_not_waited_for(free, monkeypatch):
    monkeypatch.setattr(gate_module, "BODY_S", 0.3)
    status, _, _ = asked(free, b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\ntoken=")
    assert status == 413


def test_a_head_that_is_too_long_is_refused(free):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n"
    status, _, body = asked(free, head)
    assert status == 431
    assert "16384 bytes are allowed" in json.loads(body)["error"]
    with socket.create_connection(("127.0.0.1", port_of(free)), PATIENCE_S) as connection:
        with suppress(OSError):
            for line in range(200):
                connection.sendall(b"X: " + b"a" * 1000 + b"\r\n" if line else b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(ConnectionResetError):
            assert b" 200 " not in connection.recv(4096), "a head without an end is not read for ever"


def test_what_is_no_http_does_no_harm(free):
    for junk in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port_of(free)), PATIENCE_S) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    with free.client() as client:
        assert client.get("healthz").status_code == 200


def test_what_is_no_http_is_counted_and_logged_now_and_then(caplog):
    def junk(watch: WatchedPage, request: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port_of(watch)), PATIENCE_S) as connection:
            connection.sendall(request)
            with suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass

    with watched_page() as watch:
        for _ in range(50):
            junk(watch, b"\x00\x00\r\n\r\n")
            asked(watch, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        with watch.client() as client:
            assert 'gapcam_page_refused_total{status="400"} 50.0' in client.get("metrics").text
    said = warnings_of_the_page(caplog)
    assert said == ["page: Invalid HTTP request received."]


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(gate_module, "SEND_S", 0.5)
    with watched_page() as watch, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port_of(watch)))
        deaf.sendall(b"GET /api/stream.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: watch.page._seats.count("mjpeg") == 1)
        stop_at = time.monotonic() + PATIENCE_S
        number = 0
        while watch.page._seats.count():
            watch.feed(noise(number, 720, 1280))
            number += 1
            assert time.monotonic() < stop_at


# --- files


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static/%2e%2e%2fserver.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/style.css%00.html",
        "/static/style.css/",
        "/static/.",
        "/static/",
        "/static",
        "/static/style.css/../../server.py",
        "//etc/passwd",
        "/static/" + "a" * 5000,
        "/static/%ff%fe",
    ],
)
def test_no_path_leads_out_of_the_pages_own_files(free, path):
    page_requests(free)
    status, headers, body = asked(free, b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status == 404
    assert json.loads(body).keys() == {"error"}
    assert headers["content-type"] == "application/json"


def test_files_are_the_folders_and_are_kept_by_browsers(free):
    page_requests(free)
    folder = Path(gate_module.__file__).parent / "static"
    with free.client() as client:
        for file in folder.iterdir():
            answer = client.get(f"static/{file.name}")
            assert answer.content == file.read_bytes(), file.name
            assert answer.headers["cache-control"] == "no-cache"
            again = client.get(f"static/{file.name}", headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


# --- headers and errors


def test_every_answer_has_the_security_headers(free):
    page_requests(free)
    with free.client() as client:
        answers = [
            client.get(path)
            for path in ("/", "/login", "/static/style.css", "/api/status", "/healthz", "/metrics", "/api/snapshot.jpg")
        ]
        answers += [client.get("/nothing"), client.get("/api/frame?source=x"), client.post("/api/status")]
        answers += [client.put("/"), client.get("/", headers={"Host": "evil.example"})]
    for answer in answers:
        headers = answer.headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' blob: data:",
            "connect-src": "'self'",
            "form-action": "'self'",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
            "manifest-src": "'self'",
        }
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "camera=()" in headers["permissions-policy"]
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "strict-transport-security" not in headers
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_a_fault_is_a_line_that_says_nothing_of_it(free, caplog):
    """A real one: the pipeline's status cannot be taken."""
    page_requests(free)
    state = free.page._running._state
    sound = state.pipeline
    try:
        state.pipeline = None  # type: ignore[assignment]
        with free.client() as client:
            answer = client.get("api/status")
            assert answer.status_code == 500
            assert answer.json() == {"error": "the server failed at this request; its log says more"}
            assert "content-security-policy" in answer.headers
    finally:
        state.pipeline = sound
    eventually(lambda: "Traceback" in caplog.text, "the log's word of it")
    with free.client() as client:
        assert client.get("api/status").status_code == 200


# --- what is logged


def test_no_secret_is_ever_logged(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    secret = "a-very-secret-value"  # noqa: S105
    with watched_page(token=TOKEN) as watch, watch.client() as client:
        watch.feed()
        client.get(f"api/status?secret={secret}", headers=BEARER)
        client.get("api/status", headers={"Authorization": f"Bearer {secret}"})
        client.post("login", data={"token": secret})
        cookie = client.post("login", data={"token": TOKEN}).headers["set-cookie"].partition("=")[2].partition(";")[0]
        for headers in (BEARER, {"Cookie": f"gapcam_{port_of(watch)}={cookie}"}):
            with watch.live(view={}, additional_headers=headers) as live:
                live.frame()
        with pytest.raises(InvalidStatus), watch.live(additional_headers={"Cookie": f"a={secret}"}):
            pass
        asked(watch, b"GET /?" + secret.encode() + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        asked(watch, b"GET /\x00" + secret.encode() + b"\r\n\r\n")
        client.get("api/frame", headers=BEARER, params={"source": "x"})
    out, err = capfd.readouterr()
    ours = "\n".join(
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "websockets.client"))
    )
    for text in (ours, out, err):
        for word in (TOKEN, secret, cookie):
            assert word not in text


def test_credentials_in_a_sources_address_are_shown_nowhere():
    with watched_page() as watch, watch.client() as client:
        source = watch.sources["cam"]
        source.uri = "rtsp://admin:hunter22@192.0.2.7/live?password=hunter22"  # as no source should say it
        watch.feed()
        source.feed(SourceLostError("cannot read rtsp://admin:hunter22@192.0.2.7/live: it said no"))
        eventually(lambda: watch.pipeline.status().sources[0].problem)
        for path in ("api/status", "metrics", "api/frame", "api/settings"):
            text = client.get(path).text
            assert "hunter22" not in text, path
            assert "admin" not in text, path
        shown = client.get("api/status").json()["sources"][0]
        assert shown["uri"].startswith("rtsp://***@192.0.2.7/live")
        assert "it said no" in shown["problem"]


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_files(authority, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return certificate, key


@contextmanager
def over_tls(authority: trustme.CA, tls_files: tuple[Path, Path]) -> Iterator[tuple[WatchedPage, ssl.SSLContext]]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with watched_page(token=TOKEN, tls_cert=tls_files[0], tls_key=tls_files[1]) as watch:
        yield watch, context


def test_behind_a_proxy_that_does_tls_the_cookie_is_secure():
    with watched_page(token=TOKEN, origins=("https://cams.example",)) as watch, watch.client() as client:
        for origin, secure in (("https://cams.example", True), (watch.page.url.rstrip("/"), False)):
            said = client.post("login", data={"token": TOKEN}, headers={"Origin": origin})
            assert said.status_code == 303
            assert ("; secure" in said.headers["set-cookie"].lower()) is secure
        signed_out = client.post("logout", headers={"Origin": "https://cams.example"})
        assert "; secure" in signed_out.headers["set-cookie"].lower()


def test_over_tls_everything_works_and_cookies_are_secure(authority, tls_files):
    with over_tls(authority, tls_files) as (watch, context), watch.client(verify=context) as client:
        assert watch.page.url.startswith("https://127.0.0.1:")
        watch.feed()
        answer = client.post("login", data={"token": TOKEN}, headers={"Origin": watch.page.url.rstrip("/")})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"__Host-gapcam_{port_of(watch)}=")
        assert "; secure" in cookie.lower()
        assert client.get("/").status_code == 200
        assert "strict-transport-security" not in client.get("/").headers, "it would hold for all of localhost's ports"
        lan = client.get("healthz", headers={"Host": "192.0.2.7"})
        assert lan.headers["strict-transport-security"] == "max-age=31536000"
        session = cookie.partition(";")[0]
        origin = watch.page.url.rstrip("/")
        with watch.live(view={}, ssl=context, additional_headers={"Cookie": session}, origin=origin) as live:
            live.frame()
        with (
            pytest.raises(InvalidStatus),
            watch.live(ssl=context, additional_headers={"Cookie": session, "Origin": origin.replace("https", "http")}),
        ):
            pass


def test_old_tls_and_no_tls_are_refused(authority, tls_files):
    with over_tls(authority, tls_files) as (watch, context):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            httpx.get(f"http://127.0.0.1:{port_of(watch)}/healthz", trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", port_of(watch)), PATIENCE_S) as connection,
            pytest.raises((ssl.SSLError, ConnectionResetError)),
        ):
            old.wrap_socket(connection)
        with (
            socket.create_connection(("127.0.0.1", port_of(watch)), PATIENCE_S) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as wrapped,
        ):
            assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


def test_files_that_are_no_certificate_are_one_line(authority, tls_files, tmp_path):
    certificate, key = tls_files
    other = tmp_path / "other.pem"
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(other))
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    locked = tmp_path / "locked.pem"
    loaded = s.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"passphrase"))
    )
    pipeline = FedSource  # never reached
    for files, said in (
        ((tmp_path / "missing.pem", key), "cannot read .*missing.pem for TLS: No such file"),
        ((certificate, tmp_path / "missing.pem"), "cannot read .*missing.pem for TLS: No such file"),
        ((junk, key), "cannot serve TLS with .*junk.pem"),
        ((certificate, junk), "cannot serve TLS with"),
        ((certificate, other), "cannot serve TLS with .*other.pem: KEY_VALUES_MISMATCH"),
        ((certificate, locked), "cannot serve TLS with .*without a passphrase"),
    ):
        page = PageServer(pipeline, ServerOptions(address="127.0.0.1:0", tls_cert=files[0], tls_key=files[1]))  # type: ignore[arg-type]
        with pytest.raises(DataError, match=said) as error:
            page.start()
        assert "\n" not in str(error.value)
