"""The process behind `mqtt_broker.MqttBroker`."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from camera_servers.commands import answer, serve_commands, settings


class OnePassword(BaseAuthPlugin):
    """Lets in whoever knows it."""

    async def authenticate(self, *, session: Session) -> bool:
        return session.password == self.config.password

    @dataclass
    class Config:
        """What the plugin is told."""

        password: str


async def serve(port: int, password: str, certificate: str) -> None:
    listener = {"type": "tcp", "bind": f"127.0.0.1:{port}"}
    if certificate:
        listener |= {"ssl": True, "certfile": certificate, "keyfile": certificate}
    plugins: dict[str, object] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if password:
        plugins = {"camera_servers.mqtt_broker_server.OnePassword": {"password": password}}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    await broker.start()
    answer(port=port)
    await asyncio.Event().wait()


def main() -> None:
    logging.disable(logging.CRITICAL)
    wanted = settings()
    threading.Thread(target=lambda: asyncio.run(serve(**wanted)), daemon=True).start()
    serve_commands({"counts": dict})


if __name__ == "__main__":
    main()
