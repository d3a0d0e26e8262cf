"""RTSP sources against a real server on loopback, with real faults."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from av.codec.context import CodecContext
from av.container import InputContainer
from camera_servers import rtsp
from camera_servers.rtsp import RtspServer
from camera_servers.stamp import now_ms
from camera_servers.stamped_frame import Stamp, read_stamp
from native_threads import back_to, native_threads
from planned_camera import PATIENCE_S, eventually
from read_streams import opened, read_all, read_corrupted, read_frames, read_until, read_until_lost, stamps

from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.network_stream import NetworkStream
from gapcam.camera.sources.source_options import SourceOptions

pytestmark = pytest.mark.skipif(bool(rtsp.missing()), reason=rtsp.missing())


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    with RtspServer(320, 240, fps=30) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[RtspServer]:
    """For a test that does something to it."""
    with RtspServer(320, 240, fps=30) as running:
        yield running


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_frame_comes_once_in_order_and_young(server: RtspServer, transport: Any) -> None:
    source = opened(server.url, transport=transport)
    frames, broken = read_all(source, 60)
    source.close()
    numbers = [stamp.number for stamp in stamps(frames)]
    assert numbers == sorted(set(numbers))
    assert np.median(np.diff(numbers)) == 1
    if transport == "tcp":  # of UDP a busy machine loses some
        assert broken == []
        assert numbers == list(range(numbers[0], numbers[0] + 60))


def test_a_stream_that_is_joined_between_two_key_frames_begins_with_the_next_one() -> None:
    with RtspServer(320, 240, fps=30, keyframe_every=40) as server:
        for wait_s in (0.0, 0.4, 0.9):
            time.sleep(wait_s)
            source = opened(server.url)
            numbers = [stamp.number for stamp in stamps(read_frames(source, 20))]  # none of them broken
            source.close()
            assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_a_stream_whose_key_frames_build_upon_each_other_is_joined_anywhere() -> None:
    with RtspServer(320, 240, fps=30, keyframe_every=20, open_groups=True) as server:
        for wait_s in (1.0, 0.2, 0.3, 0.4):
            time.sleep(wait_s)
            source = opened(server.url)
            numbers = [stamp.number for stamp in stamps(read_frames(source, 45))]  # none of them broken
            source.close()
            assert numbers[0] > 20
            assert numbers == list(range(numbers[0], numbers[0] + 45))


def test_a_frame_is_little_older_than_one_interval(server: RtspServer) -> None:
    """FFmpeg hands a frame over when it sees the next one begin."""
    source = opened(server.url)
    read_frames(source, 10)
    ages, waits = [], []
    for _ in range(60):
        frame = read_frames(source, 1)[0]
        stamp = read_stamp(frame.image)
        assert stamp is not None
        ages.append(stamp.age_s)
        waits.append(time.monotonic() - frame.taken_at)
    source.close()
    assert min(waits) >= 0
    assert np.median(waits) < 1
    assert np.percentile(ages, 10) < 2 / 30  # 37 ms on an idle machine


def test_frames_are_scaled_rotated_and_thinned_as_asked(server: RtspServer) -> None:
    source = opened(server.url, size=(160, 120), rotate=90, fps=10)
    frames = read_frames(source, 15)
    source.close()
    assert {frame.image.shape for frame in frames} == {(160, 120, 3)}
    assert np.median(np.diff([frame.taken_at for frame in frames])) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_credentials_are_sent_and_never_shown(auth: Any) -> None:
    with RtspServer(user="admin", password="s3cr:t", auth=auth) as server:  # noqa: S106 - the test server's
        source = opened(server.url)
        assert len(read_frames(source, 3)) == 3
        assert source.uri == f"rtsp://***@127.0.0.1:{server.port}/camera"
        source.close()
        wrong = NetworkStream(server.url.replace("s3cr:t", "wr0ng!"), name="a", options=SourceOptions())
        with pytest.raises(SourceLostError, match="401 Unauthorized") as raised:
            wrong.open()
        wrong.close()
        assert "wr0ng" not in str(raised.value)
        assert "admin" not in str(raised.value)
        assert "wr0ng" not in " ".join(thread.name for thread in threading.enumerate())


def test_a_change_of_resolution_amid_the_stream_changes_the_frames(own_server: RtspServer) -> None:
    source = opened(own_server.url)
    read_frames(source, 5)
    own_server.change_size(480, 360)
    frames, broken = read_until(source, lambda frames, _: len(frames) > 5 and frames[-5].image.shape[0] == 360)
    source.close()
    assert broken == []
    sizes = [frame.image.shape[:2] for frame in frames]
    assert sizes[-1] == (360, 480)
    assert sizes == sorted(sizes)  # it changes once
    assert all(isinstance(read_stamp(frame.image), Stamp) for frame in frames)


def test_a_server_that_is_killed_is_lost_at_once_and_found_again(own_server: RtspServer) -> None:
    source = opened(own_server.url, timeout_s=60)
    read_frames(source, 5)
    own_server.kill()
    begin = time.monotonic()
    assert "ended the stream" in read_until_lost(source)
    assert time.monotonic() - begin < 20  # not the time-out
    source.close()
    with pytest.raises(SourceLostError, match="Connection refused"):
        source.open()
    source.close()
    own_server.start()
    source.open()
    assert len(read_frames(source, 5)) == 5
    source.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_stall_is_lost_within_the_time_out(own_server: RtspServer, transport: Any) -> None:
    source = opened(own_server.url, transport=transport, timeout_s=2.0)
    begin = read_frames(source, 5)[-1].taken_at
    own_server.stall()
    assert "sent no frame for 2 s" in read_until_lost(source)
    assert 2 < time.monotonic() - begin < 12
    source.close()
    with pytest.raises(SourceLostError, match="did not answer for 2 s"):
        source.open()
    source.close()
    resumed = now_ms()
    own_server.resume()
    source.open()
    stamp = read_stamp(read_frames(source, 10)[-1].image)
    assert stamp is not None
    assert stamp.time_ms >= resumed  # not what had piled up
    source.close()


def test_an_interrupt_ends_a_read_that_waits(own_server: RtspServer) -> None:
    source = opened(own_server.url, timeout_s=60)
    read_frames(source, 5)
    own_server.stall()
    threading.Timer(0.3, source.interrupt).start()
    begin = time.monotonic()
    assert "interrupted" in read_until_lost(source)
    source.close()
    assert time.monotonic() - begin < 20  # not the time-out, which FFmpeg still waits for
    own_server.resume()


def test_an_interrupt_ends_an_open_that_waits(own_server: RtspServer) -> None:
    own_server.stall()
    source = NetworkStream(own_server.url, name="a", options=SourceOptions(timeout_s=60))
    threading.Timer(0.3, source.interrupt).start()
    begin = time.monotonic()
    with pytest.raises(SourceLostError, match="interrupted"):
        source.open()
    assert time.monotonic() - begin < 20  # not the time-out
    source.close()
    own_server.resume()


def test_broken_bytes_are_counted_and_no_broken_frame_is_shown(own_server: RtspServer) -> None:
    shown = 0
    for frames, _ in read_corrupted(own_server):
        assert all(read_stamp(frame.image) is not None for frame in frames)
        shown += len(frames)
    assert shown > 0


def test_who_keeps_the_errors_of_a_stream_keeps_no_decoder(own_server: RtspServer) -> None:
    source = opened(own_server.url, timeout_s=1.0)
    source.close()
    eventually(lambda: not own_threads())
    before, kept = native_threads(), []
    gc.collect()
    gc.disable()  # nothing waits for it
    try:
        for _ in range(2):
            source = opened(own_server.url, timeout_s=1.0)
            read_frames(source, 3)
            own_server.kill()
            with pytest.raises(SourceLostError) as raised:
                read_all(source, 1000)
            kept.append(raised)
            source.close()
            own_server.start()
        eventually(lambda: not own_threads())
        assert back_to(before, within_s=PATIENCE_S)
        left = [kind for kind in map(type, gc.get_objects()) if issubclass(kind, (CodecContext, InputContainer))]
    finally:
        gc.enable()
    assert left == []


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "gapcam stream" in thread.name]


def test_no_thread_and_no_connection_is_left(own_server: RtspServer) -> None:
    for _ in range(3):
        source = opened(own_server.url)
        read_frames(source, 3)
        source.close()
    source = opened(own_server.url, timeout_s=0.5)
    own_server.stall()
    read_until_lost(source)
    source.close()
    eventually(lambda: not own_threads())
    own_server.resume()
