"""Live frames: each client its own view, its newest frame, at its own pace."""

from __future__ import annotations

import gc
import json
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np
import pytest
from camera_frames import noise
from planned_camera import PATIENCE_S, eventually
from watched_page import LABELS, WatchedPage, watched_page
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.page import gate as gate_module
from gapcam.camera.page import live as live_module
from gapcam.camera.page import mjpeg as mjpeg_module
from gapcam.camera.page import server as server_module
from gapcam.camera.page.adaptation import LONG_S, SHORT_S, STEPS, Adaptation
from gapcam.look import Look


@pytest.fixture(scope="module")
def shared() -> Iterator[WatchedPage]:
    with watched_page() as watch:
        yield watch


def jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class Clock:
    """Of `live` or `mjpeg`: it stands still, so that no round trip is long but where the test says so."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def clients(watch) -> int:
    with watch.client() as http:
        return http.get("api/status").json()["clients"]


def wait_for_clients(watch, count: int, what: str = "it") -> None:
    """Until so many watch. The API, which answers an address only so often, is asked once."""
    eventually(lambda: watch.page._seats.count() == count, what)
    assert clients(watch) == count


def test_a_frame_comes_with_all_that_is_known_of_it():
    with watched_page() as watch, watch.live(view={}) as client:
        explained = watch.feed()
        frame = client.frame()
        header = frame.header
        assert frame.data == jpeg(explained.picture(caption=False))
        assert header["source"] == "cam"
        assert (header["width"], header["height"], header["scale"], header["quality"]) == (160, 120, 1.0, 85)
        assert header["number"] == explained.captured.number
        assert header["time"] == round(explained.captured.time, 6)
        assert 0 < header["age_ms"] < 1000 * PATIENCE_S
        assert [best["label"] for best in header["top"]] == [best.label for best in explained.top]
        assert header["top"][0]["score"] == pytest.approx(explained.top[0].score, abs=1e-6)
        assert header["class"]["index"] == explained.shown
        assert header["map"] is True
        assert header["boxes"] == [[round(side, 2) for side in box] for box in explained.boxes()]
        assert header["boxes"], "the disc has a box"
        assert abs(header["now"] - time.time()) < 60
        assert header["run"] == watch.page._events.run
        assert header["timings_ms"].keys() >= {"wait", "preprocess", "inference"}


def test_the_next_frame_comes_when_the_client_is_ready_and_is_the_newest_then():
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed()
        assert client.frame().header["number"] == 0
        for _ in range(5):
            watch.feed()
        assert client.silent()
        assert client.next().header["number"] == 5
        client.ready()
        assert client.silent(), "there is no newer one"
        watch.feed()
        assert client.frame().header["number"] == 6


def test_saying_ready_twice_gives_no_second_credit():
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed()
        client.frame()
        client.ready()
        client.ready()
        watch.feed()
        client.frame()
        watch.feed()
        assert client.silent()


def test_nothing_is_sent_before_a_view_is_asked_for():
    with watched_page() as watch, watch.live() as client:
        watch.feed()
        client.ready()
        assert client.silent()
        client.view()
        assert client.frame().header["number"] == 0


def test_a_client_that_is_never_ready_slows_nobody():
    with watched_page() as watch, watch.live(view={}) as stalled, watch.live(view={}) as client:
        watch.feed()
        stalled.frame()
        assert client.frame().header["number"] == 0
        for number in range(1, 60):
            watch.feed()
            assert client.next().header["number"] == number
        stalled.ready()
        assert stalled.frame().header["number"] == 59


def test_a_client_that_reads_nothing_slows_nobody(monkeypatch):
    keep_deaf_clients(monkeypatch)
    with watched_page() as watch, watch.live(view={}) as client, deaf_client(watch) as deaf:
        ready = masked(b'{"type":"ready"}')
        deaf.sendall(masked(b'{"type":"view"}'))
        for number in range(40):
            watch.feed(noise(number, 480, 640))  # about 300 KB as a JPEG
            deaf.sendall(ready)
            frame = client.frame() if number == 0 else client.next()
            assert frame.header["number"] == number
        assert clients(watch) == 2
        deaf.close()
        wait_for_clients(watch, 1, "that the deaf one's seat is free")


def keep_deaf_clients(monkeypatch) -> None:
    """They are not cut off while a test lasts, however slow the machine is."""
    monkeypatch.setattr(gate_module, "SEND_S", 3600)
    monkeypatch.setattr(server_module, "_PING_S", 3600)


@contextmanager
def deaf_client(watch: WatchedPage) -> Iterator[socket.socket]:
    """The socket of a WebSocket that nobody reads."""
    address = "127.0.0.1", int(watch.page.url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(address, PATIENCE_S) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(
            b"GET /api/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += deaf.recv(1)
        assert b" 101 " in head
        yield deaf


def masked(text: bytes) -> bytes:
    """A text frame of a WebSocket's client, with a mask of zeros (RFC 6455)."""
    assert len(text) < 126
    return struct.pack(">BB", 0x81, 0x80 | len(text)) + bytes(4) + text


def test_each_client_has_its_own_view_and_a_class_picked_gets_its_map():
    with watched_page() as watch, watch.live(view={"class": 1}) as blue, watch.live(view={}) as best:
        eventually(lambda: watch.pipeline.demand.wanted() == (1,))
        explained = watch.feed()
        assert explained.shown == 0
        assert best.frame().data == jpeg(explained.picture(0, caption=False))
        frame = blue.frame()
        assert frame.data == jpeg(explained.picture(1, caption=False))
        assert frame.data != jpeg(explained.picture(0, caption=False))
        assert frame.header["class"]["label"] == LABELS[1]
        assert frame.header["class"]["score"] == pytest.approx(float(explained.scores[1]), abs=1e-6)


def test_what_a_client_wanted_is_wanted_no_more_when_it_picks_another_or_leaves():
    with watched_page() as watch:
        with watch.live(view={"class": 1}) as one, watch.live(view={"class": 1}):
            wait_for_clients(watch, 2)
            eventually(lambda: watch.pipeline.demand.wanted() == (1,))
            one.view(**{"class": 0})
            eventually(lambda: watch.pipeline.demand.wanted() == (0, 1))
            one.view(**{"class": None})
            eventually(lambda: watch.pipeline.demand.wanted() == (1,))
        eventually(lambda: watch.pipeline.demand.wanted() == ())
        wait_for_clients(watch, 0)


def test_a_class_whose_map_is_not_there_yet_shows_the_bare_frame():
    with watched_page() as watch:
        explained = watch.feed()
        assert 1 not in explained.maps
        with watch.live(view={"class": 1}) as client:
            frame = client.frame()
            assert frame.data == jpeg(explained.captured.image)
            assert frame.header["map"] is False
            assert frame.header["boxes"] == []
            assert frame.header["class"]["index"] == 1
            watch.feed()
            assert client.next().header["map"] is True


def test_a_quiet_scene_has_no_class_no_map_and_no_box():
    with watched_page(settings=ExplainSettings(above=1.0)) as watch, watch.live(view={}) as client:
        explained = watch.feed()
        frame = client.frame()
        assert frame.header["class"] is None
        assert (frame.header["map"], frame.header["boxes"]) == (False, [])
        assert frame.data == jpeg(explained.captured.image)


def test_the_look_the_boxes_and_the_width_are_the_clients(monkeypatch):
    monkeypatch.setattr(live_module, "time", Clock())
    with watched_page() as watch, watch.live(view={}) as client:
        explained = watch.feed()
        client.frame()

        def seen(**wishes: object):
            client.view(**wishes)
            return client.next()

        look = Look("viridis", 0.8)
        assert seen(alpha=0.8, colormap="viridis").data == jpeg(explained.picture(look=look, caption=False))
        assert seen(boxes=False).data == jpeg(explained.picture(look=look, boxes=False, caption=False))
        frame = seen(boxes=True, threshold=0.9)
        assert frame.data == jpeg(explained.picture(look=look, threshold=0.9, caption=False))
        assert frame.header["boxes"] == [[round(side, 2) for side in box] for box in explained.boxes(threshold=0.9)]
        frame = seen(map=False, boxes=False)
        assert frame.data == jpeg(explained.captured.image)
        assert frame.header["map"] is False
        frame = seen(map=False, boxes=True)
        assert frame.header["boxes"]
        assert frame.data != jpeg(explained.captured.image), "boxes are drawn on the bare frame"
        frame = seen(max_width=80)
        assert frame.image.shape == (60, 80, 3)
        assert frame.header["scale"] == 0.5
        assert (frame.header["width"], frame.header["height"]) == (160, 120), "the frame's own"
        assert seen(max_width=None).image.shape == (120, 160, 3)


def test_a_view_that_changes_shows_the_same_frame_anew():
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed()
        client.frame()
        client.ready()
        assert client.silent()
        client.view(map=False)
        assert client.frame().header["number"] == 0


def test_several_sources_and_one_at_a_time():
    with watched_page(("door", "yard")) as watch, watch.live(view={"source": "yard"}) as client:
        watch.feed(source="door")
        assert client.silent()
        watch.feed(source="yard")
        assert client.frame().header["source"] == "yard"
        client.view(source="door")
        assert client.next().header["source"] == "door"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "view", "alpha": 1.5}, "alpha is 1.5; give a number from 0"),
        ({"type": "view", "alpha": "0.5"}, "alpha is '0.5'; give a number"),
        ({"type": "view", "alpha": True}, "alpha is 'True'; give a number"),
        ({"type": "view", "alpha": float("nan")}, "alpha is 'nan'; give a number"),
        ({"type": "view", "alpha": 10**400}, "give a number"),
        ({"type": "view", "threshold": 1}, "threshold is 1.0; give a number from 0"),
        ({"type": "view", "class": 7}, "there is no class 7: this model has 2"),
        ({"type": "view", "class": -1}, "there is no class -1"),
        ({"type": "view", "class": 0.5}, "got '0.5' as a class"),
        ({"type": "view", "class": "x" * 3000}, "give its index"),
        ({"type": "view", "class": [1]}, "got '[1]' as a class"),
        ({"type": "view", "class": [1] * 900}, ", 1, 1, 1...' as a class"),
        ({"type": "view", "class": 10**4000}, "there is no class '1000000"),
        ({"type": "view", "class": 1e300}, "there is no class '1000000"),
        ({"type": "view", "colormap": ["x"] * 600}, "colormap is \"['x', "),
        ({"type": "view", "x" * 3900: 1}, "a view has no field 'xxx"),
        ({"type": "view", "source": "x" * 3900}, "there is no source 'xxx"),
        ({"type": "view", "source": "cat"}, "there is no source 'cat'. Did you mean 'cam'? There are: cam"),
        ({"type": "view", "source": None}, "there is no source 'None'"),
        ({"type": "view", "colormap": "jett"}, "Did you mean 'jet'?"),
        ({"type": "view", "colormap": 3}, "colormap is '3'; give its name"),
        ({"type": "view", "map": "no"}, "map is 'no'; give true or false"),
        ({"type": "view", "boxes": 1}, "boxes is '1'; give true or false"),
        ({"type": "view", "max_width": 3}, "max_width is 3; give pixels from 64"),
        ({"type": "view", "max_width": "wide"}, "max_width is 'wide'"),
        ({"type": "view", "zoom": 2}, "a view has no field 'zoom'; it has source, class"),
        ({"type": "veiw"}, "got a message of type 'veiw'; expected 'view' or 'ready'"),
        ({}, "no JSON object with a type"),
        ([], "no JSON object"),
        ("{", "no JSON object"),
        ("[" * 2000, "no JSON object"),
        (b"\x00\xff", "no JSON object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_message_is_answered_in_a_line_and_changes_nothing(message, said, shared):
    watch = shared
    with watch.live(view={"map": False}) as client:
        watch.feed()
        assert client.frame().header["map"] is False
        client.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        answer = client.error()
        assert said in answer
        assert "\n" not in answer
        assert len(answer) < 400
        watch.feed()
        assert client.next().header["map"] is False


def test_a_view_with_a_mistake_is_not_followed_in_part():
    with watched_page() as watch, watch.live(view={"class": 1}) as client:
        client.view(**{"class": 0, "alpha": 2})
        client.error()
        assert watch.pipeline.demand.wanted() == (1,)


def test_each_client_gets_each_event_once():
    red, blue = (np.full((120, 160, 3), color, np.uint8) for color in ((20, 20, 220), (220, 20, 20)))
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed(blue.copy())
        events = client.frame().header["events"]
        for image in (red, blue, red):
            watch.feed(image.copy())
        events += client.next().header["events"]
        assert [event["id"] for event in events] == [1, 2, 3]
        assert [event["event"] for event in events] == ["enters", "leaves", "enters"]
        watch.feed(red.copy())
        assert client.next().header["events"] == []
        with watch.live(view={}) as late:
            assert late.frame().header["events"] == [], "what was before is in /api/events"


def test_a_client_that_is_not_ready_keeps_no_frame():
    with watched_page() as watch, watch.live(view={}) as client, watch.client() as http:
        watch.feed()
        client.frame()
        with http.stream("GET", "api/stream.mjpeg") as stream:
            next(parts(stream.iter_raw()))
            published = weakref.ref(watch.page._frames.newest("cam"))
            watch.feed()
            eventually(lambda: gc.collect() >= 0 and published() is None, "that the first frame is let go")


def test_what_two_clients_see_alike_is_drawn_once():
    with watched_page() as watch, watch.live(view={}) as one, watch.live(view={}) as other:
        watch.feed()
        assert one.frame().data == other.frame().data
        assert len(watch.page._frames.newest("cam").pictures) == 1


def test_a_slow_client_gets_smaller_pictures_and_better_ones_again_when_it_is_fast(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed()
        frame = client.frame()
        assert (frame.header["quality"], frame.header["scale"]) == STEPS[0]
        while frame.header["scale"] == 1:
            clock.now += LONG_S + 0.02
            watch.feed()
            frame = client.next()
        assert frame.header["quality"] < STEPS[0].quality
        assert frame.image.shape[1] == round(160 * frame.header["scale"]) < 160
        with watch.live(view={}) as other:
            assert other.frame().header["scale"] == 1, "the other client's are as they were"
        for _ in range(200):
            watch.feed()
            frame = client.next()
            if frame.header["quality"] == STEPS[0].quality:
                break
        assert (frame.header["quality"], frame.header["scale"]) == STEPS[0]


def test_who_waits_for_the_encoder_gets_smaller_pictures(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    with watched_page() as watch, watch.live(view={}) as client:
        watch.feed()
        assert client.frame().header["quality"] == STEPS[0].quality
        encoder, free = watch.page._running._state.encoder, threading.Event()
        for _ in range(encoder._pool._max_workers):
            encoder._pool.submit(free.wait, PATIENCE_S)  # others' pictures
        watch.feed()
        client.ready()
        eventually(lambda: watch.page._frames.newest("cam").pictures, "that its picture waits")
        clock.now += 1.1
        free.set()
        client.frame()
        watch.feed()
        assert client.next().header["quality"] == STEPS[2].quality, "more than a second: two steps"


def test_a_client_that_sends_too_much_is_closed():
    with watched_page() as watch, watch.live(view={}) as client:
        with suppress(ConnectionClosed):
            for _ in range(2000):
                client.ready()
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.recv(PATIENCE_S)
        assert closed.value.rcvd.code == 1008


def test_a_message_that_is_too_long_closes_the_client():
    with watched_page() as watch, watch.live(view={}) as client:
        client.socket.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.recv(PATIENCE_S)
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(("view", "limit"), [(None, "FIRST_VIEW_S"), ({}, "READY_S")])
def test_a_client_that_does_not_ask_is_closed_after_a_while(monkeypatch, view, limit):
    monkeypatch.setattr(live_module, "CHECK_S", 0.05)
    monkeypatch.setattr(live_module, limit, 0.3)
    with watched_page() as watch:
        with watch.live(view=view) as client:
            if view is not None:
                watch.feed()
                client.frame()
            with pytest.raises(ConnectionClosed) as closed:
                client.socket.recv(PATIENCE_S)
            assert closed.value.rcvd.code == live_module.TOO_SLOW
        wait_for_clients(watch, 0)


def test_a_client_that_answers_no_ping_is_cut_off(monkeypatch):
    monkeypatch.setattr(server_module, "_PING_S", 3.0)  # the other one, too, may take its time to answer
    monkeypatch.setattr(live_module, "FIRST_VIEW_S", 3600)
    with watched_page() as watch, watch.live(view={}) as alive, deaf_client(watch) as dead:
        wait_for_clients(watch, 2)
        wait_for_clients(watch, 1, "that it is cut off")
        received = b""
        with suppress(ConnectionResetError):
            while chunk := dead.recv(4096):
                received += chunk
        assert received[:2] == bytes([0x89, 4]), "a ping (RFC 6455)"
        watch.feed()
        alive.frame()


def test_one_more_than_may_watch_is_refused_until_one_leaves():
    with watched_page(max_clients=2) as watch, watch.live(view={}):
        with watch.live(view={}):
            wait_for_clients(watch, 2)
            with pytest.raises(InvalidStatus) as refused, watch.live():
                pass
            assert refused.value.response.status_code == 503
            assert "2 watch already" in json.loads(refused.value.response.body)["error"]
            with watch.client() as http:
                assert http.get("api/stream.mjpeg").status_code == 503
        wait_for_clients(watch, 1)
        with watch.live(view={}) as client:
            watch.feed()
            client.frame()


# --- MJPEG


def parts(stream) -> tuple[dict[str, str], bytes]:
    """Yields (headers, JPEG) of a multipart stream."""
    data = b""
    for chunk in stream:
        data += chunk
        while True:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                break
            lines = head.decode().split("\r\n")
            assert lines[0] == "--frame" or lines[0] == ""
            headers = dict(line.split(": ") for line in lines if ": " in line)
            length = int(headers["Content-Length"])
            if len(rest) < length + 2:
                break
            yield headers, rest[:length]
            data = rest[length + 2 :]


def test_mjpeg_gives_the_newest_frames_in_the_view_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(mjpeg_module, "time", Clock())
    with watched_page() as watch, watch.client() as http:
        explained = watch.feed()
        with http.stream("GET", "api/stream.mjpeg", params={"class": "blue", "alpha": 0.3}) as answer:
            assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
            frames = parts(answer.iter_raw())
            headers, data = next(frames)
            assert headers["Content-Type"] == "image/jpeg"
            assert data == jpeg(explained.captured.image), "nobody wanted this map until now"
            for _ in range(3):
                explained = watch.feed()
                _, data = next(frames)
                assert data == jpeg(explained.picture(1, look=Look(alpha=0.3), caption=False))
            assert watch.pipeline.demand.wanted() == (1,)
            assert clients(watch) == 1
        wait_for_clients(watch, 0, "that the seat is free")
        assert watch.pipeline.demand.wanted() == ()


def test_a_player_that_reads_nothing_misses_frames_and_holds_nobody_up(monkeypatch):
    keep_deaf_clients(monkeypatch)
    with (
        watched_page() as watch,
        watch.live(view={}) as client,
        watch.client() as http,
        http.stream("GET", "api/stream.mjpeg", params={"map": False, "boxes": False}) as answer,
    ):
        for number in range(60):
            watch.feed(with_number(number))
            frame = client.frame() if number == 0 else client.next()
            assert frame.header["number"] == number
        seen = []
        for _, data in parts(answer.iter_raw()):
            seen.append(number_in(data))
            if seen[-1] == 59:
                break
        assert seen == sorted(set(seen)), "each once, in their order"
        assert len(seen) < 60, "what it missed was skipped, not kept for it"


def with_number(number: int) -> np.ndarray:
    """Noise, which makes large files, below a bar of plain colour that a JPEG of any quality or size keeps."""
    image = noise(number, 480, 640)
    image[:100] = 4 * number
    return image


def number_in(data: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return round(float(image[: image.shape[0] // 8].mean()) / 4)


# --- the steps themselves


def test_two_long_round_trips_take_a_step_down_and_eight_short_ones_a_step_up():
    client = Adaptation()
    client.took(LONG_S + 0.01)
    assert client.step == STEPS[0]
    client.took(LONG_S + 0.01)
    assert client.step == STEPS[1]
    for _ in range(7):
        client.took(SHORT_S - 0.01)
    assert client.step == STEPS[1]
    client.took(SHORT_S - 0.01)
    assert client.step == STEPS[0]


def test_a_round_trip_in_between_changes_nothing_and_breaks_a_row():
    client = Adaptation()
    for _ in range(20):
        client.took(LONG_S + 0.01)
        client.took((LONG_S + SHORT_S) / 2)
    assert client.step == STEPS[0]


def test_it_ends_at_the_smallest_pictures():
    client = Adaptation()
    for _ in range(50):
        client.took(5.0)
    assert client.step == STEPS[-1]


def test_better_pictures_that_are_too_much_are_tried_less_and_less_often():
    """A link that can take the second step for ever, and the first never."""
    client = Adaptation()
    ups, before, trips = [], client.step, 0
    for trips in range(5000):
        client.took(LONG_S + 0.05 if client.step == STEPS[0] else SHORT_S - 0.05)
        if client.step == STEPS[0] and before != STEPS[0]:
            ups.append(trips)
        before = client.step
    gaps = np.diff(ups)
    assert len(ups) < 20
    assert gaps[0] < 30
    assert (np.diff(gaps) >= 0).all()
    assert gaps[-1] >= 512
