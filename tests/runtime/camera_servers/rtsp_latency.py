# ruff: noqa: T201 - it prints what it measured
"""How old an RTSP frame is when PyAV or OpenCV hands it over: both are FFmpeg, and ask different things of it.

    PYTHONPATH=tests/runtime python -m camera_servers.rtsp_latency --fps 15 --rounds 4

Each frame carries the time at which it was made. The clients take turns, since a machine has its moods; one more
watches all the time, so that the encoder runs as a camera's does.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice

import av
import cv2
import numpy as np

from camera_servers.rtsp import RtspServer
from camera_servers.stamped_frame import read_stamp
from gapcam.camera.sources.network_stream import NetworkStream
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.frame import Frame

FIRST = 15
"""Frames of a client that are not counted: what had piled up while it was opened."""


def with_opencv(uri: str, options: str, parameters: list[int]) -> Iterator[Frame]:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options  # there is no way to tell one capture alone
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, parameters)
    try:
        while (read := capture.read())[0]:
            yield np.asarray(read[1], np.uint8)
    finally:
        capture.release()


def with_pyav(uri: str) -> Iterator[Frame]:
    with av.open(uri, options={"rtsp_transport": "tcp"}, timeout=5) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24")


def with_gapcam(uri: str) -> Iterator[Frame]:
    source = NetworkStream(uri, name="latency", options=SourceOptions())
    source.open()
    try:
        while (frame := source.read()) is not None:
            yield frame.image
    finally:
        source.close()


CLIENTS: dict[str, Callable[[str], Iterator[Frame]]] = {
    "OpenCV": lambda uri: with_opencv(uri, "rtsp_transport;tcp", []),
    "OpenCV, nobuffer, low_delay, 1 thread": lambda uri: with_opencv(
        uri, "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay", [cv2.CAP_PROP_N_THREADS, 1]
    ),
    "PyAV": with_pyav,
    "PyAV as gapcam asks it": with_gapcam,
}


def watch(uri: str, stop: threading.Event) -> None:
    for _ in with_gapcam(uri):
        if stop.is_set():
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frames", type=int, default=75, help="of each client in each round")
    asked = parser.parse_args()
    width, height = map(int, asked.size.split("x"))
    opens: dict[str, list[float]] = {name: [] for name in CLIENTS}
    ages: dict[str, list[float]] = {name: [] for name in CLIENTS}
    stop = threading.Event()
    with RtspServer(width, height, asked.fps, keyframe_every=2 * asked.fps) as server:
        watcher = threading.Thread(target=watch, args=(server.url, stop))
        watcher.start()
        for _ in range(asked.rounds):
            for name, client in CLIENTS.items():
                begin = time.monotonic()
                frames = client(server.url)
                for at, frame in enumerate(islice(frames, FIRST + asked.frames)):
                    if at == 0:
                        opens[name].append(time.monotonic() - begin)
                    if at >= FIRST and (stamp := read_stamp(frame)) is not None:
                        ages[name].append(stamp.age_s * 1e3)
                frames.close()  # type: ignore[attr-defined]
        stop.set()
        watcher.join()
    print(f"{asked.size} at {asked.fps} a second, {asked.rounds} rounds of {asked.frames} frames; milliseconds")
    for name, values in ages.items():
        p50, p99 = np.percentile(values, [50, 99])
        first = np.median(opens[name]) * 1e3
        print(f"{name:38} age p50 {p50:6.1f}  p99 {p99:6.1f}  open to first frame {first:6.0f}")


if __name__ == "__main__":
    main()
