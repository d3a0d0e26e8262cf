"""/metrics: what Prometheus reads agrees with the pipeline's own counts."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from camera_frames import FrameMaker
from planned_camera import PATIENCE_S, eventually
from prometheus_client.parser import text_string_to_metric_families
from watched_page import WatchedPage, watched_page
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import connect

import gapcam
from gapcam.camera import capture_thread
from gapcam.camera.backoff import Reopen
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.page.frame_times import BOUNDS_S, FrameTimes, Histogram

RED, BLUE = (np.full((120, 160, 3), color, np.uint8) for color in ((20, 20, 220), (220, 20, 20)))


class Scraped:
    """What one scrape gave."""

    def __init__(self, watch: WatchedPage) -> None:
        with watch.client() as client:
            answer = client.get("metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        self.text = answer.text

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


def test_the_counts_are_the_pipelines_and_add_up():
    with watched_page(("door", "yard")) as watch:
        for image in (BLUE, RED, BLUE):
            watch.feed(image.copy(), "door")
        watch.feed(RED.copy(), "yard")
        watch.sources["yard"].feed(BrokenFrameError("half a frame"), SourceLostError("unplugged"))
        eventually(lambda: watch.pipeline.status().sources[1].reopened == 1, "that it is opened again")
        watch.feed(RED.copy(), "yard")
        eventually(lambda: all(sink.written == 5 for sink in watch.pipeline.status().sinks))
        eventually(lambda: all(source.waiting == 0 for source in watch.pipeline.status().sources))
        scraped, status = Scraped(watch), watch.pipeline.status()
        for source in status.sources:
            for name in ("captured", "explained", "dropped", "failed", "broken"):
                assert scraped(f"gapcam_frames_{name}_total", source=source.name) == getattr(source, name)
            assert scraped("gapcam_frames_waiting", source=source.name) == source.waiting == 0
            assert scraped("gapcam_source_reopened_total", source=source.name) == source.reopened
            assert scraped("gapcam_source_state", source=source.name, state="running") == 1
            assert scraped("gapcam_source_state", source=source.name, state="lost") == 0
            assert source.captured == source.explained + source.dropped + source.failed + source.waiting
        assert scraped("gapcam_frames_broken_total", source="yard") == 1
        assert scraped("gapcam_source_reopened_total", source="yard") == 1
        for sink in status.sinks:
            for name in ("received", "written", "dropped", "failed"):
                assert scraped(f"gapcam_sink_frames_{name}_total", sink=sink.name) == getattr(sink, name)
            assert scraped("gapcam_sink_frames_waiting", sink=sink.name) == 0
            assert scraped("gapcam_sink_restarts_total", sink=sink.name) == 0
            assert scraped("gapcam_sink_undelivered_total", sink=sink.name) == 0
            assert scraped("gapcam_sink_state", sink=sink.name, state="running") == 1
        assert scraped("gapcam_running") == 1
        assert 0 < scraped("gapcam_uptime_seconds") <= status.uptime_s
        assert scraped("gapcam_events_total", source="door", event="enters") == 1
        assert scraped("gapcam_events_total", source="door", event="leaves") == 1


def test_ages_and_stages_are_histograms_of_every_frame():
    with watched_page() as watch:
        ages, waits = [], []
        for _ in range(5):
            frame = watch.feed()
            ages.append(frame.explained_at - frame.captured.taken_at)
            waits.append(frame.timings_ms["wait"] / 1e3)
        scraped = Scraped(watch)
        assert scraped("gapcam_frame_age_seconds_count", source="cam") == 5
        assert scraped("gapcam_frame_age_seconds_sum", source="cam") == pytest.approx(sum(ages))
        assert scraped("gapcam_stage_seconds_sum", stage="wait") == pytest.approx(sum(waits))
        for bound in BOUNDS_S:
            below = scraped("gapcam_frame_age_seconds_bucket", source="cam", le=str(bound))
            assert below == sum(age <= bound for age in ages)
        assert scraped("gapcam_frame_age_seconds_bucket", source="cam", le="+Inf") == 5
        for stage in ("wait", "preprocess", "inference"):
            assert scraped("gapcam_stage_seconds_count", stage=stage) == 5


def test_of_a_frame_that_comes_once_more_only_the_events_are_counted(frames: FrameMaker):
    times, frame = FrameTimes(), frames(events=("red",))
    times.add(frame)
    once = (times.ages(), times.stages())
    times.add(replace(frame, again=True))
    assert (times.ages(), times.stages()) == once
    assert times.events() == [("cam", "enters", 2)]


def test_a_value_on_a_bound_belongs_below_it():
    histogram = Histogram()
    for value in (0.0, 0.001, 0.0011, 5.0, 5.1):
        histogram.add(value)
    rows = dict(histogram.buckets())
    assert (rows["0.001"], rows["0.0025"], rows["2.5"], rows["5.0"], rows["+Inf"]) == (2, 3, 3, 4, 5)
    assert histogram.sum == pytest.approx(10.1021)


def test_who_watches_and_who_was_refused_is_counted():
    with watched_page(max_clients=3) as watch, watch.live(view={}) as client:
        watch.feed()
        client.frame()
        with watch.client() as http:
            http.get("/", headers={"Host": "evil.example"})
        scraped = Scraped(watch)
        assert scraped("gapcam_page_clients", kind="live") == 1
        assert scraped("gapcam_page_clients", kind="mjpeg") == 0
        assert scraped("gapcam_page_clients_limit") == 3
        assert scraped("gapcam_page_frames_sent_total", kind="live") == 1
        assert scraped("gapcam_page_refused_total", status="421") == 1


def test_each_refusal_is_counted_once_whoever_refuses():
    handshake = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with watched_page(max_clients=1) as watch, watch.live(), watch.client() as http:
        url = watch.page.url.replace("http", "ws", 1)
        for said, ask in (
            (503, lambda: http.get("api/frame")),
            (422, lambda: http.get("api/snapshot.jpg", params={"alpha": 2})),
            (422, lambda: http.get("api/events", params={"after": "x"})),
            (404, lambda: http.get("nothing")),
            (405, lambda: http.delete("api/status")),
            (503, lambda: http.get("api/stream.mjpeg")),
            (413, lambda: http.post("login", content=b"x" * 5000)),
            (403, lambda: http.get("api/status", headers={"Sec-Fetch-Site": "cross-site"})),
            (503, lambda: _handshake(url + "api/live")),
            (403, lambda: _handshake(url + "api/live", origin="http://evil.example")),
            (404, lambda: _handshake(url + "nothing")),
        ):
            answer = ask()
            assert answer.status_code == said
            assert json.loads(answer.text if hasattr(answer, "text") else answer.body).keys() == {"error"}
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].strip("/"))), PATIENCE_S) as connection:
            connection.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n" + handshake + b"\r\n")
            assert b" 400 " in connection.recv(4096)
        scraped = Scraped(watch)
        counts = {sample.labels["status"]: sample.value for sample in scraped.families["gapcam_page_refused"].samples}
        assert counts == {"400": 1, "403": 2, "404": 2, "405": 1, "413": 1, "422": 2, "503": 3}


def _handshake(url: str, **how: Any) -> Response:
    """The answer to a WebSocket's handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused, connect(url, proxy=None, open_timeout=PATIENCE_S, **how):
        pass
    return refused.value.response


def test_every_metric_is_named_with_its_unit_and_explained():
    with watched_page() as watch:
        watch.feed()
        scraped = Scraped(watch)
        for name, family in scraped.families.items():
            assert name.startswith("gapcam_")
            assert family.documentation
            assert family.type in ("gauge", "counter", "histogram")
        assert "_created" not in scraped.text
        assert (
            scraped("gapcam_info", version=gapcam.__version__, model="small.onnx", engine=watch.pipeline.session.engine)
            == 1
        )


def test_names_from_programs_are_written_out():
    """On the command line they are refused."""
    with watched_page(("zw\u202eei\x1b[31m\udcff",)) as watch:
        watch.feed(source="zw\u202eei\x1b[31m\udcff")
        scraped = Scraped(watch)
        shown = r"zw\u202eei\x1b[31m\udcff"
        assert scraped("gapcam_frames_captured_total", source=shown) == 1
        assert scraped("gapcam_frame_age_seconds_count", source=shown) == 1
        assert scraped.text.replace("\n", "").isprintable()


class HurriedClock:
    """The true one, and so many seconds more as the test says."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.more_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.more_s


def test_a_source_that_says_nothing_is_stalled_in_metrics_and_status(monkeypatch):
    clock = HurriedClock()
    monkeypatch.setattr(capture_thread, "time", clock)
    with watched_page(reopen=Reopen(stall_s=60)) as watch, watch.client() as client:
        watch.feed()

        def stalled_a_minute_later() -> bool:
            clock.more_s += 61
            return watch.pipeline.status().sources[0].state == "stalled"

        eventually(stalled_a_minute_later)
        assert Scraped(watch)("gapcam_source_state", source="cam", state="stalled") == 1
        said = client.get("api/status").json()["sources"][0]
        assert said["state"] == "stalled"
        assert said["problem"].startswith("no frame and no error for ")
        document = client.get("openapi.json").text
        assert '"stalled"' in document
        watch.feed()
        assert Scraped(watch)("gapcam_source_state", source="cam", state="stalled") == 0


def test_an_accept_header_changes_nothing():
    with watched_page() as watch:
        for accept in ("application/openmetrics-text; version=x", "text/plain;version=1.0.0;escaping=y", "*/*"):
            answer = httpx.get(f"{watch.page.url}metrics", headers={"Accept": accept}, trust_env=False)
            assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")
