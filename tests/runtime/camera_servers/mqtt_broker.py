"""A real MQTT broker on loopback: amqtt, from PyPI."""

from __future__ import annotations

from camera_servers.server_process import ServerProcess


class MqttBroker(ServerProcess):
    """Everybody may publish and subscribe; a context manager. It keeps nothing when it is killed.

    Args:
        password: that all must give, with whatever name; empty for none.
        certificate: PEM file with the certificate and its key; with it all is encrypted.
    """

    def __init__(self, *, password: str = "", certificate: str = "") -> None:
        super().__init__("mqtt_broker_server", {"password": password, "certificate": certificate})
