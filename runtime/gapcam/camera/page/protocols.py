"""uvicorn's protocols, whose connections are known, and in whose log strangers write only so much."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gapcam.camera.log_pace import LogPace
from gapcam.camera.page.connections import Connections
from gapcam.camera.page.security_headers import security_headers


class PacedLog(logging.LoggerAdapter):  # type: ignore[type-arg]  # which has no argument before Python 3.11
    """uvicorn's log. What anybody can bring about, warnings and errors, is written at a bounded rate.

    Args:
        refusals: how many answers had a status of 400 or more; those to what is no HTTP, or no handshake, are counted
            there.
    """

    def __init__(self, refusals: Counter[int]) -> None:
        super().__init__(logging.getLogger("uvicorn.error"), {})
        self.refusals = refusals
        self._pace = LogPace()

    @property
    def level(self) -> int:
        """As uvicorn asks for it."""
        return int(self.logger.getEffectiveLevel())

    def log(self, level: int, msg: object, *args: object, **how: Any) -> None:
        """Write a line, or keep the count of those that were not written."""
        more = self._pace.due() if level >= logging.WARNING else ""
        if more is not None:
            super().log(level, f"page: {msg}{more}", *args, **how)


def http_protocol(connections: Connections, strangers: PacedLog) -> type[asyncio.Protocol]:
    """For HTTP; it may hand its connection to a WebSocket's."""

    class CountedHttp(H11Protocol):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            self.logger = strangers  # type: ignore[assignment]

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._counted = transport
            super().connection_made(transport)
            connections.made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.lost(self._counted)
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it is no JSON
            """To what is no HTTP, or no request: a line of JSON, as every refusal."""
            strangers.refusals[400] += 1
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps({"error": "this is no HTTP request"}).encode()
                headers = {
                    "content-type": "application/json",
                    "content-length": str(len(body)),
                    "connection": "close",
                    "cache-control": "no-store",
                    **security_headers("", "http", ""),
                }
                answer = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
                for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()  # where an answer was on its way, that was all of it

    return CountedHttp


def socket_protocol(connections: Connections, strangers: PacedLog) -> type[asyncio.Protocol]:
    """For WebSockets, after their handshake was read."""

    class CountedSocket(WebSocketsSansIOProtocol):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            self.logger = strangers  # type: ignore[assignment]
            self.conn.logger = strangers

        def connection_made(self, transport: Any) -> None:
            self._counted = transport
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.lost(self._counted)
            super().connection_lost(exc)

        def handle_connect(self, event: Any) -> None:
            """What is no handshake is refused before anybody else hears of it."""
            super().handle_connect(event)
            if self.response.status_code >= 400:
                strangers.refusals[self.response.status_code] += 1

        async def send(self, message: Any) -> None:
            """A handshake that was refused is complete; uvicorn forgets that, and would log a fault."""
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True

    return CountedSocket
