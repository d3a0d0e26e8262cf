"""The servers that the camera's tests stand on: real streams, real faults, and nothing left over."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import av
import cv2
import numpy as np
import paho.mqtt.client as mqtt
import psutil
import pytest
from camera_servers import rtsp
from camera_servers.fault_proxy import FaultProxy
from camera_servers.mjpeg import MjpegServer
from camera_servers.mqtt_broker import MqttBroker
from camera_servers.rtsp import RtspServer
from camera_servers.stamped_frame import Stamp, read_stamp, stamped_frame
from camera_servers.webhook import WebhookServer

needs_rtsp = pytest.mark.skipif(bool(rtsp.missing()), reason=rtsp.missing())


def frames(url: str, timeout_s: float = 5) -> Iterator[np.ndarray]:
    """As PyAV reads them."""
    options = {"rtsp_transport": "tcp"} if url.startswith("rtsp") else {"fflags": "nobuffer"}
    with av.open(url, options=options, timeout=timeout_s) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24")


def opencv_frames(url: str) -> Iterator[np.ndarray]:
    """As OpenCV reads them."""
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    try:
        while (read := capture.read())[0]:
            yield read[1]
    finally:
        capture.release()


def stamps(pictures: Iterator[np.ndarray], count: int) -> list[Stamp]:
    found = [read_stamp(picture) for picture in itertools.islice(pictures, count)]
    assert None not in found
    return found  # type: ignore[return-value]


def numbers(found: list[Stamp]) -> list[int]:
    return [stamp.number for stamp in found]


def consecutive(found: list[Stamp]) -> bool:
    return numbers(found) == list(range(found[0].number, found[0].number + len(found)))


def shape_becomes(pictures: Iterator[np.ndarray], shape: tuple[int, ...], within_s: float = 60) -> np.ndarray:
    """The first picture of that shape, however many of another one were on their way."""
    until = time.monotonic() + within_s
    for picture in pictures:
        if picture.shape == shape:
            return picture
        assert time.monotonic() < until
    raise AssertionError("the stream has ended")


# The stamp.


@pytest.mark.parametrize("size", [(64, 40), (160, 120), (322, 242), (1280, 720)])
def test_a_stamp_is_read_back_from_a_jpeg(size: tuple[int, int]) -> None:
    for number, time_ms in [(0, 0), (1, 2**32 - 1), (0xDEADBEEF, 0x12345678)]:
        frame = stamped_frame(number, *size, time_ms=time_ms)
        assert frame.shape == (size[1], size[0], 3)
        assert frame.dtype == np.uint8
        jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        assert read_stamp(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == (number, time_ms)


def test_what_has_no_stamp_or_a_damaged_one_has_none() -> None:
    for empty in (
        np.zeros((240, 320, 3), np.uint8),
        np.full((240, 320, 3), 255, np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ):
        assert read_stamp(empty) is None
    frame = stamped_frame(7, 320, 240)
    frame[:12, :20] = 255 - frame[:12, :20]  # one block
    assert read_stamp(frame) is None


def test_consecutive_frames_differ_below_the_stamp() -> None:
    one, other = stamped_frame(7, 320, 240), stamped_frame(8, 320, 240)
    assert (one[60:] != other[60:]).mean() > 0.5


# RTSP.


@pytest.fixture(scope="module")
def rtsp_server() -> Iterator[RtspServer]:
    if rtsp.missing():
        pytest.skip(rtsp.missing())
    with RtspServer(fps=30) as server:
        yield server


def test_pyav_reads_each_frame_of_an_rtsp_stream(rtsp_server: RtspServer) -> None:
    began = time.monotonic()
    found = stamps(frames(rtsp_server.url), 20)
    assert consecutive(found)
    assert 0 <= found[-1].age_s < time.monotonic() - began  # it was made while somebody watched


def test_opencv_reads_each_frame_of_an_rtsp_stream(rtsp_server: RtspServer) -> None:
    assert consecutive(stamps(opencv_frames(rtsp_server.url), 20))


def test_two_clients_see_the_same_rtsp_stream(rtsp_server: RtspServer) -> None:
    one, other = frames(rtsp_server.url), frames(rtsp_server.url)
    stamps(one, 1)
    second = stamps(other, 30)  # it joins late, and sees what the first sees then
    first: list[Stamp] = []
    while not first or first[-1].number < second[-1].number:
        first += stamps(one, 1)
    assert consecutive(first)
    assert consecutive(second)
    assert set(second) < set(first)


@needs_rtsp
def test_an_rtsp_stream_changes_its_size_and_goes_on() -> None:
    with RtspServer(320, 240, fps=30) as server:
        pictures = frames(server.url)
        before = stamps(pictures, 10)
        server.change_size(160, 120)
        after = read_stamp(shape_becomes(pictures, (120, 160, 3)))
        assert after is not None
        assert after.number > before[-1].number
        assert consecutive(stamps(pictures, 10))
        pictures.close()  # type: ignore[attr-defined]


@needs_rtsp
@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_an_rtsp_server_asks_for_a_password(auth: str) -> None:
    with RtspServer(user="me", password="pass word", auth=auth, fps=30) as server:  # type: ignore[arg-type]  # noqa: S106
        url = server.url.replace("pass word", "pass%20word")
        assert consecutive(stamps(frames(url), 3))
        for wrong in (url.replace("me:pass%20word@", ""), url.replace("pass", "word")):
            with pytest.raises(av.error.HTTPUnauthorizedError):
                next(frames(wrong))


@needs_rtsp
def test_a_killed_rtsp_server_comes_back_on_its_port() -> None:
    with RtspServer(fps=30) as server:
        url, port = server.url, server.port
        pictures = frames(url)
        assert consecutive(stamps(pictures, 3))
        server.kill()
        with suppress(av.error.FFmpegError):  # or it ends
            list(pictures)
        with pytest.raises(av.error.ConnectionRefusedError):
            next(frames(url))
        server.start()
        assert server.port == port
        assert consecutive(stamps(frames(url), 3))


@needs_rtsp
def test_a_stalled_rtsp_server_keeps_its_connection_and_goes_on() -> None:
    with RtspServer(fps=30) as server:
        pictures = frames(server.url, timeout_s=20)
        stamps(pictures, 5)
        server.stall()
        with pytest.raises(TimeoutError):
            server.tell(timeout_s=0.5, do="counts")
        server.resume()
        assert server._line(server._running(), 20)  # the answer to that
        assert consecutive(stamps(pictures, 10))
        pictures.close()  # type: ignore[attr-defined]


# MJPEG.


@pytest.mark.parametrize("boundary", ["plain", "quoted", "dashes"])
@pytest.mark.parametrize("content_length", [True, False])
def test_opencv_and_pyav_read_an_mjpeg_stream(boundary: str, content_length: bool) -> None:
    with MjpegServer(fps=30, boundary=boundary, content_length=content_length) as server:  # type: ignore[arg-type]
        raw = parts(server, 6)
        found = [read_stamp(cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)) for part in raw]
        made = [stamp.number for stamp in found if stamp is not None]
        assert len(made) == 6
        assert made == sorted(set(made))  # who is slow gets the newest: some may be missing, none comes twice
        assert len(stamps(opencv_frames(server.url), 3)) == 3
        assert len(stamps(frames(server.url), 3)) == 3


def parts(server: MjpegServer, count: int) -> list[bytes]:
    """JPEGs as they are between a JPEG's first and last bytes, without a look at boundaries."""
    found: list[bytes] = []
    with urllib.request.urlopen(server.url, timeout=5) as response:  # noqa: S310
        assert response.headers["Content-Type"].startswith("multipart/x-mixed-replace; boundary=")
        data = b""
        while len(found) < count:
            data += response.read1(65536)
            while (end := data.find(b"\xff\xd9\r\n--frame\r\n")) >= 0:
                found.append(data[data.find(b"\xff\xd8") : end + 2])
                data = data[end + 2 :]
    return found


def test_an_mjpeg_stream_changes_its_size_and_goes_on() -> None:
    with MjpegServer(fps=30) as server:
        pictures = mjpeg_frames(server)
        assert next(pictures).shape == (240, 320, 3)
        server.change_size(640, 360)
        assert read_stamp(shape_becomes(pictures, (360, 640, 3))) is not None


def mjpeg_frames(server: MjpegServer) -> Iterator[np.ndarray]:
    """Those that are pictures: the newest frame may be a broken one still."""
    while True:
        for part in parts(server, 5):
            picture = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)
            if picture is not None:
                yield picture


@pytest.mark.parametrize("kind", ["garbage", "truncated", "flipped", "empty"])
def test_broken_jpegs_are_broken(kind: str) -> None:
    with MjpegServer(fps=30) as server:
        whole = server.counts()
        assert whole["broken"] == 0
        server.break_frames(1.0, kind)  # type: ignore[arg-type]
        with urllib.request.urlopen(server.url, timeout=5) as response:  # noqa: S310
            data = b""
            while data.count(b"--frame\r\n") < 4:
                data += response.read1(65536)
        assert server.counts()["broken"] > 0
        last = data.rsplit(b"--frame\r\n", 2)[-2].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        if kind == "flipped":
            picture = cv2.imdecode(np.frombuffer(last, np.uint8), cv2.IMREAD_COLOR)
            good = stamped_frame(0, 320, 240)
            assert picture is None or np.abs(picture[60:].astype(int) - good[60:]).mean() > 1
        elif kind == "truncated":
            assert last.startswith(b"\xff\xd8")
            assert not last.endswith(b"\xff\xd9")
        else:
            assert not last.startswith(b"\xff\xd8")
        server.break_frames(0)
        assert any(read_stamp(picture) for picture in itertools.islice(mjpeg_frames(server), 5))


def test_an_mjpeg_server_asks_for_a_password() -> None:
    with MjpegServer(user="me", password="s3cret", fps=30) as server:  # noqa: S106
        assert "me:s3cret@" in server.url
        assert len(stamps(opencv_frames(server.url), 1)) == 1
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server.url.replace("me:s3cret@", ""), timeout=5)  # noqa: S310
        assert refused.value.code == 401
        refused.value.close()


def test_an_mjpeg_server_ends_responses_refuses_and_sends_without_end() -> None:
    with MjpegServer(fps=30) as server:
        with urllib.request.urlopen(server.url, timeout=5) as response:  # noqa: S310
            response.read1(1000)
            assert server.counts()["watching"] == 1
            server.end_responses()
            assert response.read().endswith(b"--frame--\r\n")
        server.answer_with(503)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server.url, timeout=5)  # noqa: S310
        assert refused.value.code == 503
        refused.value.close()
        server.answer_with(200)
        server.send_endlessly()
        with urllib.request.urlopen(server.url, timeout=5) as response:  # noqa: S310
            assert response.read(5_000_000) == bytes(5_000_000)


# The proxy.


@pytest.fixture
def through_proxy() -> Iterator[tuple[MjpegServer, FaultProxy]]:
    with MjpegServer(fps=30) as server, FaultProxy(server.port, seed=3) as proxy:
        yield server, proxy


def open_stream(port: int, timeout_s: float = 5) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout_s)
    connection.sendall(b"GET /stream.mjpg HTTP/1.0\r\n\r\n")
    return connection


def drain(connection: socket.socket) -> None:
    """Read until it ends."""
    while connection.recv(65536):
        pass


def test_the_proxy_passes_bytes_as_they_are(through_proxy: tuple[MjpegServer, FaultProxy]) -> None:
    _, proxy = through_proxy
    with open_stream(proxy.port) as connection:
        data = b""
        while data.count(b"--frame\r\n") < 4:
            data += connection.recv(65536)
    part = data.split(b"--frame\r\n")[2].split(b"\r\n\r\n", 1)[1]
    assert read_stamp(cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)) is not None
    assert proxy.counts()["accepted"] == 1


def test_the_proxy_stalls_and_goes_on(through_proxy: tuple[MjpegServer, FaultProxy]) -> None:
    _, proxy = through_proxy
    with open_stream(proxy.port) as connection:
        assert connection.recv(100)
        proxy.stall()
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            drain(connection)
        connection.settimeout(5)
        proxy.pass_all()
        assert connection.recv(100)


@pytest.mark.parametrize("reset", [False, True])
def test_the_proxy_cuts_connections_and_takes_new_ones(
    through_proxy: tuple[MjpegServer, FaultProxy], reset: bool
) -> None:
    _, proxy = through_proxy
    with open_stream(proxy.port) as connection:
        assert connection.recv(100)
        proxy.cut(reset=reset)
        if reset:
            with pytest.raises(ConnectionResetError):
                drain(connection)
        else:
            drain(connection)
    with open_stream(proxy.port) as connection:
        assert connection.recv(100)
    proxy.refuse()
    with open_stream(proxy.port) as connection, suppress(ConnectionResetError):  # where it did not read the request
        assert connection.recv(100) == b""


def test_the_proxy_corrupts_a_share_of_the_bytes(through_proxy: tuple[MjpegServer, FaultProxy]) -> None:
    server, proxy = through_proxy
    server.send_endlessly()
    proxy.corrupt(0.01)
    with open_stream(proxy.port) as connection:
        data = b""
        while len(data) < 1_000_000:
            data += connection.recv(65536)
    changed = np.count_nonzero(np.frombuffer(data[1000:], np.uint8)) / (len(data) - 1000)
    assert 0.005 < changed < 0.02


def test_the_proxy_delays_and_throttles(through_proxy: tuple[MjpegServer, FaultProxy]) -> None:
    server, proxy = through_proxy
    proxy.delay(0.5)
    began = time.monotonic()
    with open_stream(proxy.port) as connection:
        assert connection.recv(100)
        assert time.monotonic() - began > 0.5
    proxy.throttle(50_000)
    server.send_endlessly()
    began, count = time.monotonic(), 0
    with open_stream(proxy.port) as connection:
        while count < 50_000:
            count += len(connection.recv(65536))
        assert time.monotonic() - began > 0.5


# The broker and the receiver of webhooks.


def test_the_broker_passes_messages_on_and_comes_back_on_its_port() -> None:
    with MqttBroker() as broker:
        port = broker.port
        assert publish_and_receive(port, b"one") == b"one"
        broker.kill()
        with pytest.raises(ConnectionRefusedError):
            publish_and_receive(port, b"two")
        broker.start()
        assert broker.port == port
        assert publish_and_receive(port, b"three") == b"three"


def publish_and_receive(port: int, payload: bytes) -> bytes:
    received: queue.Queue[bytes] = queue.Queue()
    subscribed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: received.put(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        client.subscribe("camera/#", qos=1)
        assert subscribed.wait(10)
        client.publish("camera/door", payload, qos=1)
        return received.get(timeout=10)
    finally:
        client.disconnect()
        client.loop_stop()


def test_the_receiver_of_webhooks_counts_what_is_posted() -> None:
    with WebhookServer() as server:
        for body in (b"abc", b"de"):
            with urllib.request.urlopen(server.url, data=body, timeout=5) as response:  # noqa: S310
                assert response.status == 204
        assert server.counts() == {"posts": 2, "bytes": 5}


# What is left.


def test_nothing_is_left_over() -> None:
    threads, files = native_threads(), open_files()
    with MjpegServer() as server, FaultProxy(server.port) as proxy:
        pids = [server.pid, proxy.pid]
        assert all(psutil.pid_exists(pid) for pid in pids)
        server.stall()  # a stopped process can be ended, too
    assert not any(psutil.pid_exists(pid) for pid in pids)
    # What another test left behind may end meanwhile.
    assert not native_threads() - threads
    assert not open_files() - files


def native_threads() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def open_files() -> set[tuple[int, int, int]]:
    """The number of each, and what it is: a number is used again."""
    found = set()
    for number in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - names, not places
        with suppress(OSError):  # that of the listing itself
            status = os.fstat(number)
            found.add((number, status.st_dev, status.st_ino))
    return found


def test_a_server_ends_when_its_test_does() -> None:
    with MjpegServer(fps=1000) as server:
        process = psutil.Process(server.pid)
        running = server._running()
        assert running.stdin is not None
        running.stdin.close()  # as when the test is killed
        assert running.wait(timeout=10) == 0
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_port_that_is_taken_is_said() -> None:
    with MjpegServer() as first:
        second = MjpegServer()
        second.port = first.port
        with pytest.raises(RuntimeError, match="Address already in use"):
            second.start()


def test_the_reason_to_skip_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for python in ("/nowhere/python3", shutil.which("false") or "/bin/false"):
        monkeypatch.setattr(rtsp, "PYTHON", python)
        rtsp.missing.cache_clear()
        assert "gir1.2-gst-rtsp-server-1.0" in rtsp.missing()
        assert "gstreamer1.0-plugins-ugly" in rtsp.missing()
    rtsp.missing.cache_clear()
