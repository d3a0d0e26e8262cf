"""How a request or a WebSocket is refused: a status, and a line of JSON that says why."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.types import Message, Send


async def refuse_request(send: Send, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer an HTTP request, whose body may be unread: the connection is closed then."""
    for message in _answer("http.response", status, why, headers):
        await send(message)


async def refuse_socket(send: Send, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer a WebSocket's handshake."""
    for message in _answer("websocket.http.response", status, why, headers):
        await send(message)


def _answer(kind: str, status: int, why: str, headers: Mapping[str, str] | None) -> tuple[Message, Message]:
    body = json.dumps({"error": why}).encode()
    rows = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in rows.items()]
    return (
        {"type": f"{kind}.start", "status": status, "headers": encoded},
        {"type": f"{kind}.body", "body": body, "more_body": False},
    )
