"""MJPEG over HTTP against a real server on loopback, with real faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from random import Random
from threading import Event
from typing import Any

import numpy as np
import pytest
from camera_servers.mjpeg import MjpegServer
from camera_servers.stamp import now_ms
from camera_servers.stamped_frame import read_stamp
from planned_camera import eventually
from read_streams import opened, read_all, read_corrupted, read_frames, read_until, read_until_lost, stamps

from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.network_stream import NetworkStream, _Connection
from gapcam.camera.sources.source_options import SourceOptions


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer(320, 240, fps=30) as running:
        yield running


@pytest.mark.parametrize("boundary", ["plain", "quoted", "dashes", "wrong"])
@pytest.mark.parametrize("content_length", [True, False])
def test_frames_come_once_and_in_order_however_parts_are_marked(boundary: Any, content_length: bool) -> None:
    with MjpegServer(320, 240, fps=30, boundary=boundary, content_length=content_length) as server:
        source = opened(server.url)
        numbers = [stamp.number for stamp in stamps(read_frames(source, 30))]
        source.close()
    assert numbers == sorted(set(numbers))
    assert np.median(np.diff(numbers)) == 1  # some that a busy machine's server left out are none that were lost


def test_a_frame_is_young_where_parts_say_their_length(server: MjpegServer) -> None:
    source = opened(server.url)
    read_frames(source, 10)
    ages = [stamps(read_frames(source, 1))[0].age_s for _ in range(60)]
    source.close()
    assert np.percentile(ages, 10) < 0.03  # 3 ms on an idle machine; one that waited for the next is 33 ms old


def test_credentials_are_sent_and_never_shown() -> None:
    with MjpegServer(user="admin", password="s3cr:t/@#?") as server:  # noqa: S106 - the test server's
        quoted = f"http://admin:s3cr%3At%2F%40%23%3F@127.0.0.1:{server.port}/stream.mjpg"
        source = opened(quoted)
        assert len(read_frames(source, 3)) == 3
        assert source.uri == f"http://***@127.0.0.1:{server.port}/stream.mjpg"
        source.close()
        wrong = NetworkStream(quoted.replace("s3cr", "wr0ng"), name="a", options=SourceOptions())
        with pytest.raises(SourceLostError, match=r"401 Unauthorized.*; check the user and the password$") as raised:
            wrong.open()
        wrong.close()
        for secret in ("wr0ng", "admin"):
            assert secret not in str(raised.value)


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_of_the_server_is_said(server: MjpegServer, status: int) -> None:
    server.answer_with(status)
    source = NetworkStream(server.url, name="a", options=SourceOptions())
    with pytest.raises(SourceLostError, match=r"404 Not Found|5XX") as raised:
        source.open()
    source.close()
    assert "\n" not in str(raised.value)
    server.answer_with(200)
    source.open()
    assert len(read_frames(source, 3)) == 3
    source.close()


def test_a_change_of_resolution_amid_the_stream_changes_the_frames(server: MjpegServer) -> None:
    source = opened(server.url)
    read_frames(source, 5)
    server.change_size(480, 360)
    frames, broken = read_until(source, lambda frames, _: len(frames) > 5 and frames[-5].image.shape[0] == 360)
    source.close()
    assert broken == []
    sizes = [frame.image.shape[:2] for frame in frames]
    assert sizes[-1] == (360, 480)
    assert sizes == sorted(sizes)
    stamps(frames)


@pytest.mark.parametrize("kind", ["garbage", "truncated"])
def test_a_broken_jpeg_is_counted_and_the_next_one_comes(server: MjpegServer, kind: Any) -> None:
    source = opened(server.url)
    read_frames(source, 5)
    server.break_frames(0.3, kind)
    frames, _ = read_until(source, lambda frames, broken: len(broken) >= 5 and len(frames) >= 20)
    server.break_frames(0)
    made = server.counts()["frames"]
    numbers = [stamp.number for stamp in stamps(frames)]
    assert numbers == sorted(set(numbers))
    read_until(source, lambda frames, _: bool(frames) and stamps(frames)[-1].number >= made)  # what was on its way
    assert len(read_frames(source, 20)) == 20
    source.close()


def test_an_empty_part_costs_the_connection_at_most(server: MjpegServer) -> None:
    source = opened(server.url)
    read_frames(source, 5)
    server.break_frames(0.5, "empty")
    try:
        frames, _ = read_all(source, 60)
    except SourceLostError:
        frames = []
    stamps(frames)
    server.break_frames(0)
    made = server.counts()["frames"]
    eventually(lambda: server.counts()["frames"] > made)  # who connects gets the newest one first
    source.close()
    source.open()
    assert len(read_frames(source, 5)) == 5
    source.close()


def test_broken_bytes_never_show_an_older_picture(server: MjpegServer) -> None:
    """A decoder that stops amid a picture leaves what was there before in its memory."""
    for frames, _ in read_corrupted(server):
        numbers = [stamp.number for frame in frames if (stamp := read_stamp(frame.image)) is not None]
        assert numbers == sorted(set(numbers))


def test_the_end_of_a_response_and_a_killed_server_are_lost_at_once(server: MjpegServer) -> None:
    source = opened(server.url, timeout_s=60)
    read_frames(source, 5)
    server.end_responses()
    begin = time.monotonic()
    read_until_lost(source)
    assert time.monotonic() - begin < 20  # not the time-out
    source.open()
    read_frames(source, 5)
    server.kill()
    begin = time.monotonic()
    read_until_lost(source)
    assert time.monotonic() - begin < 20
    server.start()
    source.open()
    assert len(read_frames(source, 5)) == 5
    source.close()


def test_a_stall_is_lost_within_the_time_out(server: MjpegServer) -> None:
    source = opened(server.url, timeout_s=2.0)
    begin = read_frames(source, 5)[-1].taken_at
    server.stall()
    assert "sent no frame for 2 s" in read_until_lost(source)
    assert 2 < time.monotonic() - begin < 12
    source.close()
    resumed = now_ms()
    server.resume()
    source.open()
    assert stamps(read_frames(source, 5))[-1].time_ms >= resumed
    source.close()


def test_endless_bytes_without_a_frame_are_lost_and_do_not_fill_the_memory(server: MjpegServer) -> None:
    source = opened(server.url, timeout_s=2.0)
    read_frames(source, 5)
    server.send_endlessly()
    begin = time.monotonic()
    read_until_lost(source)
    assert time.monotonic() - begin < 12
    source.close()
    server.send_endlessly(False)


def test_an_interrupt_ends_a_read_that_waits(server: MjpegServer) -> None:
    source = opened(server.url, timeout_s=60)
    read_frames(source, 5)
    server.stall()
    threading.Timer(0.3, source.interrupt).start()
    begin = time.monotonic()
    assert "interrupted" in read_until_lost(source)
    assert time.monotonic() - begin < 20  # not the time-out
    source.close()
    server.resume()


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1:1"])
def test_a_host_that_is_not_there_is_lost_and_its_password_not_shown(scheme: str, host: str) -> None:
    source = NetworkStream(f"{scheme}://admin:geheim@{host}/a", name="a", options=SourceOptions(timeout_s=60))
    with pytest.raises(SourceLostError) as raised:
        source.open()
    source.close()
    assert str(raised.value).startswith(f"{scheme}://***@{host}/a")
    assert ("there is no host 'nowhere.invalid' that is known here" in str(raised.value)) == (host == "nowhere.invalid")
    assert "geheim" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("camera_fps", "wanted"), [(10, 10), (30, 10), (25, 10), (12, 10), (5, 10)])
def test_a_rate_takes_no_more_frames_and_loses_none_to_a_camera_s_jitter(camera_fps: int, wanted: int) -> None:
    connection = _Connection("http://cam/a.mjpg", SourceOptions(fps=wanted), Event())
    random = Random(5)  # noqa: S311 - the same jitter each time
    times = [1000 + (n + random.uniform(-0.2, 0.2)) / camera_fps for n in range(20 * camera_fps)]
    taken = sum(connection._is_due(at) for at in times)
    if camera_fps <= wanted:
        assert taken == len(times)
    else:
        assert taken == pytest.approx(20 * wanted, rel=0.03)


def test_frames_that_come_in_bursts_of_the_right_rate_are_all_taken() -> None:
    connection = _Connection("http://cam/a.mjpg", SourceOptions(fps=10), Event())
    times = [1000 + 0.3 * burst + within for burst in range(50) for within in (0, 0.01, 0.07)]
    assert all(connection._is_due(at) for at in times)
