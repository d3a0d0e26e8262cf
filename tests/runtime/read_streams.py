"""Reading streams in tests, as the pipeline does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from camera_servers.fault_proxy import FaultProxy
from camera_servers.mjpeg import MjpegServer
from camera_servers.rtsp import RtspServer
from camera_servers.stamped_frame import Stamp, read_stamp
from planned_camera import PATIENCE_S

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.sources.network_stream import NetworkStream
from gapcam.camera.sources.source_options import SourceOptions


def opened(url: str, **options: Any) -> NetworkStream:
    source = NetworkStream(url, name="camera", options=SourceOptions(**options))
    source.open()
    return source


def read_all(source: NetworkStream, count: int) -> tuple[list[SourceFrame], list[str]]:
    """So many frames, broken ones included: the good ones, and what was said of the broken ones."""
    frames: list[SourceFrame] = []
    broken: list[str] = []
    while len(frames) + len(broken) < count:
        try:
            frame = source.read()
        except BrokenFrameError as error:
            broken.append(str(error))
            continue
        assert frame is not None  # a live stream has no end
        frames.append(frame)
    return frames, broken


def read_until(
    source: NetworkStream, holds: Callable[[list[SourceFrame], list[str]], bool]
) -> tuple[list[SourceFrame], list[str]]:
    """As `read_all`, until it holds of what was read: what was on its way, however much that is, came before."""
    frames: list[SourceFrame] = []
    broken: list[str] = []
    until = time.monotonic() + PATIENCE_S
    while not holds(frames, broken):
        assert time.monotonic() < until, (len(frames), broken)
        more_frames, more_broken = read_all(source, 1)
        frames += more_frames
        broken += more_broken
    return frames, broken


def read_frames(source: NetworkStream, count: int) -> list[SourceFrame]:
    """So many frames, none of them broken."""
    frames, broken = read_all(source, count)
    assert broken == []
    return frames


def read_corrupted(server: MjpegServer | RtspServer) -> Iterator[tuple[list[SourceFrame], list[str]]]:
    """As `read_all`, of one connection after another in which bytes are broken, until three frames were."""
    said = 0
    until = time.monotonic() + 60
    with FaultProxy(server.port) as proxy:
        while said < 3 and time.monotonic() < until:
            proxy.pass_all()
            source = opened(server.url_at(proxy.port))
            proxy.corrupt(3e-5)
            try:
                frames, broken = read_all(source, 45)
            except SourceLostError:  # a byte of the protocol itself was hit
                continue
            finally:
                source.close()
            said += len(broken)
            yield frames, broken
    assert said >= 3


def stamps(frames: list[SourceFrame]) -> list[Stamp]:
    """What they carry; each must be readable."""
    found = [read_stamp(frame.image) for frame in frames]
    assert None not in found
    return found  # type: ignore[return-value]


def read_until_lost(source: NetworkStream) -> str:
    """What is said when the source is lost."""
    with pytest.raises(SourceLostError) as raised:
        _read_on(source)
    return str(raised.value)


def _read_on(source: NetworkStream) -> None:
    while True:
        read_all(source, 1)
