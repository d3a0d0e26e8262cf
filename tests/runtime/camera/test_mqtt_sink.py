"""Results at an MQTT broker: a real one, killed, stalled and restarted."""

from __future__ import annotations

import gc
import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

import pytest
import trustme
from camera_frames import FrameMaker
from camera_servers.mqtt_broker import MqttBroker
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from planned_camera import eventually

from gapcam.camera.sinks.mqtt import EVENTS_WAITING, FRAMES_WAITING, MqttSink
from gapcam.camera.sinks.mqtt_address import PASSWORD_VARIABLE, mqtt_address
from gapcam.camera.sinks.sink_options import SinkOptions

SENDER = """
import sys, time
from camera_frames import FrameMaker
from gapcam.camera.sinks.mqtt import MqttSink
from gapcam.camera.sinks.sink_options import SinkOptions

make = FrameMaker()
sink = MqttSink(sys.argv[1], SinkOptions())
sink.open()
for number in range(10_000):
    sink.write(make(number=number))
    time.sleep(0.05)
"""


class Subscriber:
    """Everything that is published, as it comes."""

    def __init__(self, port: int) -> None:
        self.messages: list[MQTTMessage] = []
        self._changed = Condition()
        self._subscribed = False
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.until(lambda: self._subscribed)

    def _on_subscribe(self, *_: object) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _on_message(self, _: object, __: object, message: MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def until(self, holds: Callable[[], bool], timeout_s: float = 20) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, timeout_s), [(m.topic, m.payload[:60]) for m in self.messages]

    def on(self, topic: str) -> list[dict]:
        return [json.loads(message.payload) for message in list(self.messages) if message.topic == topic]

    def texts(self, topic: str) -> list[str]:
        return [message.payload.decode() for message in list(self.messages) if message.topic == topic]

    def numbers(self) -> list[int]:
        return [row["frame"] for row in self.on("home/cam/frame")]

    def forget(self) -> None:
        with self._changed:
            self.messages.clear()
            self._subscribed = False

    def subscribed(self) -> None:
        self.until(lambda: self._subscribed)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def subscriber(broker: MqttBroker) -> Iterator[Subscriber]:
    one = Subscriber(broker.port)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def shared_broker() -> Iterator[MqttBroker]:
    with MqttBroker() as broker:
        yield broker


@contextmanager
def sink_at(
    broker: MqttBroker, *, scheme: str = "mqtt", user: str = "", options: SinkOptions | None = None
) -> Iterator[MqttSink]:
    sink = MqttSink(f"{scheme}://{user}127.0.0.1:{broker.port}/home", options or SinkOptions())
    sink.open()
    try:
        yield sink
    finally:
        sink.close()


def delivered(sink: MqttSink) -> bool:
    """Whether nothing waits, and the broker has said of everything that it has it."""
    with sink._sending:
        waiting = [*sink._events, *sink._frames]
        return not waiting and all(info.is_published() for info in sink._on_the_way)


def test_frames_events_and_whether_the_camera_is_there_are_published(
    frames: FrameMaker, shared_broker: MqttBroker
) -> None:
    with subscriber(shared_broker) as seen:
        with sink_at(shared_broker) as sink:
            given = [frames(number=n, events=("red",) if n == 2 else ()) for n in range(5)]
            for frame in given:
                sink.write(frame)
            # What has another quality of service may be overtaken.
            seen.until(lambda: len(seen.numbers()) == 5 and bool(seen.on("home/events")))
            eventually(lambda: delivered(sink))
        assert seen.on("home/cam/frame") == [json.loads(json.dumps(frame.to_dict())) for frame in given]
        assert seen.on("home/events") == [given[2].events[0].to_dict()]
        seen.until(lambda: seen.texts("home/status")[-1:] == ["offline"])
        assert "online" in seen.texts("home/status")
        assert not any(message.retain for message in seen.messages if message.topic != "home/status")
        assert sink.undelivered == 0
    with subscriber(shared_broker) as late:
        late.until(lambda: bool(late.messages))
        # Perhaps twice: amqtt may send the one that was just published, too.
        assert {(message.topic, message.payload) for message in late.messages} == {("home/status", b"offline")}


def published_headers(listener: socket.socket, count: int) -> dict[str, int]:
    """The first byte of each of so many PUBLISH packets by its topic, as a broker that confirms nothing gets them."""
    connection, _ = listener.accept()
    found: dict[str, int] = {}
    with connection, connection.makefile("rb") as stream:
        while len(found) < count:
            (header,) = stream.read(1)
            length = shift = 0
            more = True
            while more:
                (byte,) = stream.read(1)
                length, shift, more = length | (byte & 127) << shift, shift + 7, byte > 127
            body = stream.read(length)
            if header >> 4 == 1:  # CONNECT
                connection.sendall(b"\x20\x02\x00\x00")
            elif header >> 4 == 3:
                found[body[2 : 2 + int.from_bytes(body[:2], "big")].decode()] = header
    return found


@pytest.mark.parametrize("qos", [0, 1])
def test_frames_have_the_quality_of_service_that_was_asked_for_and_events_have_1(frames: FrameMaker, qos: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink = MqttSink(f"mqtt://127.0.0.1:{listener.getsockname()[1]}/home", SinkOptions(qos=qos))
        sink.open()
        sink.write(frames(events=("red",)))
        headers = published_headers(listener, 3)
    sink.close()
    # kind 3, then the bits DUP, QoS (two) and RETAIN
    assert list(headers) == ["home/status", "home/events", "home/cam/frame"]  # events before frames
    assert headers == {"home/status": 0x33, "home/events": 0x32, "home/cam/frame": 0x30 | qos << 1}


def test_a_source_of_any_name_is_one_level_of_the_topic(frames: FrameMaker, shared_broker: MqttBroker) -> None:
    with subscriber(shared_broker) as seen, sink_at(shared_broker) as sink:
        for n, source in enumerate(["a/b", "+", "#", "Tür"]):
            sink.write(frames(number=n, source=source))
        seen.until(lambda: len([m for m in seen.messages if m.topic.endswith("/frame")]) == 4)
        topics = [message.topic for message in seen.messages if message.topic.endswith("/frame")]
        assert topics == ["home/a%2Fb/frame", "home/%2B/frame", "home/%23/frame", "home/T%C3%BCr/frame"]


def test_what_is_cut_off_is_offline_by_its_last_will() -> None:
    with MqttBroker() as broker, subscriber(broker) as seen:
        uri = f"mqtt://127.0.0.1:{broker.port}/home"
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        process = subprocess.Popen([sys.executable, "-c", SENDER, uri], env=environment)
        try:
            seen.until(lambda: len(seen.numbers()) >= 3 and bool(seen.texts("home/status")))
        finally:
            process.kill()
            process.wait()
        assert seen.texts("home/status")[0] == "online"
        seen.until(lambda: seen.texts("home/status")[-1] == "offline")


def test_a_broker_that_is_killed_and_comes_back_gets_what_is_new_and_every_event(
    frames: FrameMaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    with MqttBroker() as broker, subscriber(broker) as seen, sink_at(broker) as sink:
        sink.write(frames(number=0))
        seen.until(lambda: seen.numbers() == [0])
        broker.kill()
        eventually(lambda: "the connection is lost" in caplog.text)
        seen.forget()
        began = time.monotonic()
        for n in range(1, 201):
            sink.write(frames(number=n, events=("red",) if n % 50 == 0 else ()))
        assert time.monotonic() - began < 5  # nothing waits for the broker
        broker.start()
        seen.subscribed()
        eventually(lambda: "connected again" in caplog.text)
        eventually(lambda: delivered(sink))  # else the next one would take the oldest one's place
        sink.write(frames(number=201))
        seen.until(lambda: 201 in seen.numbers())
        eventually(lambda: delivered(sink))
        assert sink.undelivered == 200 - FRAMES_WAITING
        assert [row["frame"] for row in seen.on("home/events")] == [50, 100, 150, 200] or len(
            seen.on("home/events")
        ) < 4  # the subscriber may have come after them
        expected = list(range(201 - FRAMES_WAITING, 202))
        assert seen.numbers() == expected[-len(seen.numbers()) :]
    assert caplog.text.count("the connection is lost") == 1
    said = re.findall(r"(\d+) messages could not be delivered, (\d+) in all", caplog.text)
    assert len(said) <= 3  # at the first one, when it was back, and perhaps while it was away for ten seconds
    assert (sum(int(more) for more, _ in said), said[-1][1]) == (136, "136")


def test_events_that_nobody_takes_are_bounded_and_counted(frames: FrameMaker) -> None:
    sink = MqttSink("mqtt://127.0.0.1:1/home", SinkOptions())
    many = ("red",) * 100
    for n in range(EVENTS_WAITING // 100 + 3):
        sink.write(frames(number=n, events=many))
    assert sink.undelivered == 300


def test_a_broker_that_stalls_holds_nothing_up_and_gets_the_newest_later(frames: FrameMaker) -> None:
    with MqttBroker() as broker, subscriber(broker) as seen, sink_at(broker, options=SinkOptions(qos=1)) as sink:
        sink.write(frames(number=0))
        seen.until(lambda: seen.numbers() == [0])
        eventually(lambda: all(info.is_published() for info in sink._on_the_way))  # the broker has said that it has it
        broker.stall()
        try:
            began = time.monotonic()
            for n in range(1, 301):
                sink.write(frames(number=n))
            assert time.monotonic() - began < 5
            assert sink.undelivered == 300 - FRAMES_WAITING - 20  # 20 are on the way
        finally:
            broker.resume()
        seen.until(lambda: seen.numbers()[-1:] == [300])
        assert seen.numbers() == [0, *range(1, 21), *range(301 - FRAMES_WAITING, 301)]


def test_an_event_given_to_paho_just_when_the_connection_is_lost_is_sent_later(frames: FrameMaker) -> None:
    with MqttBroker() as broker:
        broker.kill()
        with sink_at(broker) as sink:
            sink._connected = True  # its end is not known yet
            sink.write(frames(events=("red",)))
            assert [message.topic for message in sink._frames] == ["home/cam/frame"]
            assert not sink._events
            sink._connected = False
            broker.start()
            with subscriber(broker) as seen:
                sink.write(frames(number=1))
                eventually(lambda: sink._connected)
                sink.write(frames(number=2))
                seen.until(lambda: 2 in seen.numbers())
                eventually(lambda: all(info.is_published() for info in sink._on_the_way))
                sink.write(frames(number=3))
            assert sink.undelivered == 0


def test_a_broker_that_is_not_there_costs_a_log_line_and_no_time(
    frames: FrameMaker, caplog: pytest.LogCaptureFixture
) -> None:
    with MqttBroker() as broker:
        pass
    with caplog.at_level(logging.INFO, "gapcam.camera"):
        began = time.monotonic()
        with sink_at(broker) as sink:
            sink.write(frames())
            eventually(lambda: "is not reached" in caplog.text)
        assert time.monotonic() - began < 10
    assert sink.undelivered == 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        f"sink mqtt://127.0.0.1:{broker.port}/home: the broker is not reached: [Errno 111] Connection refused; "
        "it is tried again",
        f"sink mqtt://127.0.0.1:{broker.port}/home: 1 messages could not be delivered, 1 in all",
    ]


def test_it_can_be_opened_again_after_it_was_closed(frames: FrameMaker, shared_broker: MqttBroker) -> None:
    with subscriber(shared_broker) as seen, sink_at(shared_broker) as sink:
        for n in range(2):
            sink.write(frames(number=n))
            seen.until(lambda n=n: n in seen.numbers())
            sink.close()
            sink.open()


def test_who_has_the_password_gets_in_and_it_is_never_shown(
    frames: FrameMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tmp_path / "secret"
    secret.write_text("p@ss:w/rd\n")
    with MqttBroker(password=secret.read_text().strip()) as broker:
        with sink_at(broker, user="camera:hunter2@") as sink:
            eventually(lambda: "the broker refuses" in caplog.text)
        assert "connected" not in caplog.text
        with sink_at(broker, user="camera:p%40ss%3Aw%2Frd@") as sink:
            sink.write(frames())
            eventually(lambda: caplog.text.count("connected") == 1)
        with sink_at(broker, user="camera@", options=SinkOptions(password_file=secret)) as sink:
            eventually(lambda: caplog.text.count("connected") == 2)
        monkeypatch.setenv(PASSWORD_VARIABLE, "p@ss:w/rd")
        with sink_at(broker, user="camera@") as sink:
            eventually(lambda: caplog.text.count("connected") == 3)
        shown = caplog.text + sink.name + repr(mqtt_address("mqtt://camera:hunter2@host/a"))
    for part in ("p@ss", "p%40ss", "hunter2"):
        assert part not in shown


# paho leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_over_tls_to_a_broker_whose_certificate_is_trusted_and_to_no_other(
    frames: FrameMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "broker.pem"))
    with MqttBroker(certificate=str(tmp_path / "broker.pem")) as broker:
        with sink_at(broker, scheme="mqtts", options=SinkOptions(ca_file=tmp_path / "stranger.pem")):
            eventually(lambda: "certificate verify failed" in caplog.text)
        assert "connected" not in caplog.text
        with sink_at(broker, scheme="mqtts", options=SinkOptions(ca_file=tmp_path / "authority.pem")) as sink:
            sink.write(frames())
            eventually(lambda: "connected" in caplog.text)
            eventually(lambda: delivered(sink))
        assert sink.undelivered == 0
    gc.collect()  # here, not within another test
