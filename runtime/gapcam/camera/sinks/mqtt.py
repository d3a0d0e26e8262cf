"""Publishes results and events at an MQTT broker.

    TOPIC/SOURCE/frame   each frame, JSON as in a file of JSON lines
    TOPIC/events         each event, JSON
    TOPIC/status         "online", and "offline" when the camera ends or is cut off (retained, and the last will)

While the broker is away a bounded number of messages waits; beyond that the oldest are dropped and counted. paho-mqtt
connects again by itself.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections import deque
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.sinks.file_names import source_part
from gapcam.camera.sinks.mqtt_address import mqtt_address
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.tls_trust import client_tls
from gapcam.camera.sinks.undelivered import Undelivered

log = logging.getLogger("gapcam.camera")

FRAMES_WAITING = 64
EVENTS_WAITING = 1000
_ON_THE_WAY = 20
_KEEP_ALIVE_S = 20
_FIRST_WAIT_S, _GREATEST_WAIT_S = 1, 30
_FINISHING_S = 2.0


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    qos: int


class MqttSink:
    """Messages of frames and of events.

    Args:
        uri: `mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC`, or `mqtts://`.
        options: `sources`, `qos`, `password_file` and `ca_file` concern it.

    Raises:
        UsageError: the URI is none.
        DataError: the file of the password or of the certificates cannot be read.
    """

    capacity = 8
    """`write` only hands over; what has to wait waits here as text, not as pictures."""

    def __init__(self, uri: str, options: SinkOptions) -> None:
        self._address = mqtt_address(uri, options.password_file)
        self._tls = client_tls(options.ca_file) if self._address.tls else None
        self.name = self._address.shown
        self._lost_messages = Undelivered("messages")
        self._options = options
        self._client: Client | None = None
        self._connected = False
        self._problem = ""
        self._events: deque[_Message] = deque()
        self._frames: deque[_Message] = deque()
        self._on_the_way: list[MQTTMessageInfo] = []
        self._sending = Lock()

    @property
    def undelivered(self) -> int:
        """Messages that waited in vain for the broker, or were cut off on their way to it."""
        return self._lost_messages.count

    def open(self) -> None:
        """Begin to connect; nothing waits for that."""
        self.close()
        address = self._address
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"gapcam-{secrets.token_hex(6)}")
        client.max_inflight_messages_set(_ON_THE_WAY)
        client.reconnect_delay_set(_FIRST_WAIT_S, _GREATEST_WAIT_S)
        client.will_set(self._topic("status"), b"offline", qos=1, retain=True)
        if address.user:
            client.username_pw_set(address.user, address.password or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        client.connect_async(address.host, address.port, keepalive=_KEEP_ALIVE_S)
        self._client = client
        client.loop_start()

    def write(self, frame: ExplainedFrame) -> None:
        """Hand over what the frame says. It is sent by a thread of its own."""
        source = frame.captured.source
        if not self._options.takes(source):
            return
        row = frame.to_dict()
        with self._sending:
            for event in row["events"]:
                self._wait_with(self._events, EVENTS_WAITING, _Message(self._topic("events"), _json(event), 1))
            topic = self._topic(source_part(source), "frame")
            self._wait_with(self._frames, FRAMES_WAITING, _Message(topic, _json(row), self._options.qos))
            self._send()
        self._lost_messages.say(self.name)

    def close(self) -> None:
        """Send what waits, for two seconds at most, say goodbye, and disconnect."""
        client, self._client = self._client, None
        if client is None:
            return
        deadline = time.monotonic() + _FINISHING_S
        while self._connected and time.monotonic() < deadline:
            with self._sending:
                self._send(client)
                if not (self._events or self._frames or self._on_the_way):
                    break
            time.sleep(0.01)
        if self._connected:
            goodbye = client.publish(self._topic("status"), b"offline", qos=1, retain=True)
            if goodbye.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                goodbye.wait_for_publish(max(0.1, deadline - time.monotonic()))
        client.disconnect()
        # paho's thread ends at once, unless it is looking for a host that does not answer.
        stopping = Thread(target=client.loop_stop, name=f"gapcam {self.name} (closing)", daemon=True)
        stopping.start()
        stopping.join(_FINISHING_S)
        self._connected = False
        with self._sending:
            self._on_the_way = [info for info in self._on_the_way if self._under_way(info)]
            self._lost_messages.add(len(self._events) + len(self._frames) + len(self._on_the_way))
            for kept in (self._events, self._frames, self._on_the_way):
                kept.clear()
        self._lost_messages.say(self.name, at_once=True)

    def _wait_with(self, waiting: deque[_Message], most: int, message: _Message) -> None:
        waiting.append(message)
        if len(waiting) > most:
            waiting.popleft()
            self._lost_messages.add()

    def _send(self, client: Client | None = None) -> None:
        """Give paho what it may have at a time; events first. The lock is held."""
        client = client or self._client
        self._on_the_way = [info for info in self._on_the_way if self._under_way(info)]
        while client is not None and self._connected and len(self._on_the_way) < _ON_THE_WAY:
            waiting = self._events or self._frames
            if not waiting:
                return
            message = waiting[0]
            info = client.publish(message.topic, message.payload, qos=message.qos)
            if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and message.qos == 0:
                return  # paho keeps those of QoS 1 itself
            waiting.popleft()
            self._on_the_way.append(info)

    def _under_way(self, info: MQTTMessageInfo) -> bool:
        if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
            info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS  # of QoS 1: paho sends it when it is connected again
        try:
            return not info.is_published()
        except (RuntimeError, ValueError):  # the connection was lost with it
            self._lost_messages.add()
            return False

    def _topic(self, *parts: str) -> str:
        return "/".join((self._address.topic, *parts))

    # Called by paho's thread, which may hold locks of paho's that `publish` wants: it must not wait for ours.

    def _send_if_nobody_does(self) -> None:
        if self._sending.acquire(blocking=False):
            try:
                self._send()
            finally:
                self._sending.release()

    def _on_connect(
        self, client: Client, _: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del flags, properties
        if reason.is_failure:
            self._lost(f"the broker refuses: {reason}")
            return
        client.publish(self._topic("status"), b"online", qos=1, retain=True)
        self._connected = True
        again, self._problem = " again" if self._problem else "", ""
        self._say(logging.INFO, "connected%s", again)
        self._lost_messages.say(self.name, at_once=True)
        self._send_if_nobody_does()

    def _on_connect_fail(self, *_: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this where it handles it
        self._lost(f"the broker is not reached: {error or 'no answer'}")

    def _on_disconnect(
        self, client: Client, _: object, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, flags, properties
        self._connected = False
        if self._client is not None and not self._problem:
            self._lost(f"the connection is lost: {reason}")

    def _on_publish(self, *_: Any) -> None:
        self._send_if_nobody_does()

    def _lost(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._say(logging.WARNING, "%s; it is tried again", problem)

    def _say(self, level: int, message: str, *values: object) -> None:
        log.log(level, f"sink %s: {message}", self.name, *values, extra={"sink": self.name})


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode()
