"""The connections there are: those that neither ask nor take for too long are ended, and none keeps others out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gapcam.camera.page.rates import network_of

Peer = tuple[str, int]

ASK_S = 10.0
"""For a whole request's head, from the connection on or from the end of the last answer."""
TAKE_S = 60.0
"""For what was answered to be taken, once the answer is complete."""
_SWEEP_S = 1.0


@dataclass(slots=True)
class _Connection:
    transport: asyncio.Transport
    address: str  # what counts as one
    since: float = field(default_factory=time.monotonic)  # when it last had a request
    requests: int = 0  # that are being answered
    asked: bool = False  # for anything, ever
    reading: bool = False  # the rest of a request

    def is_idle(self) -> bool:
        """Whether nothing is done for it."""
        return not self.requests or self.reading

    def use(self) -> tuple[bool, bool, float]:
        """The smaller, the less is lost with it."""
        return self.asked, _waiting(self.transport) > 0, self.since


class Connections:
    """Used in the server's loop alone. A connection is known by its peer's address and port.

    Args:
        limit: how many there may be; half of them from one address, where a network of 64 bits is one.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._limit_of_one = limit, max(1, limit // 2)
        self._open: dict[Peer, _Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def made(self, transport: asyncio.Transport) -> None:
        """Somebody connected. Where there are too many already, one that asks for nothing makes way.

        Where one address has too many it is one of its own, else one of the address that has most. Where all of them
        are being answered, whoever came last is cut off.
        """
        peer = _peer(transport)
        if peer is None:
            return  # gone already
        address = network_of(peer[0])
        count = Counter(connection.address for connection in self._open.values())
        if count[address] >= self._limit_of_one:
            room = self._make_room([address])
        elif len(self._open) >= self._limit:
            room = self._make_room(most for most, _ in count.most_common())
        else:
            room = True
        if room:
            self._open[peer] = _Connection(transport, address)
        else:
            transport.abort()

    def lost(self, transport: asyncio.Transport) -> None:
        """A connection ended."""
        peer = _peer(transport)
        known = self._open.get(peer) if peer else None
        if peer is not None and known is not None and known.transport is transport:
            del self._open[peer]

    def begins(self, peer: Peer | None) -> None:
        """A request was read whole, or a WebSocket's handshake."""
        connection = self._open.get(peer) if peer else None
        if connection is not None:
            connection.requests += 1

    @contextmanager
    def reading(self, peer: Peer | None) -> Iterator[None]:
        """While this lasts the rest of a request is awaited: it is not whole yet."""
        connection = self._open.get(peer) if peer else None
        if connection is not None:
            connection.reading = True
        try:
            yield
        finally:
            if connection is not None:
                connection.reading = False

    def ends(self, peer: Peer | None) -> None:
        """It was answered, or the WebSocket ended."""
        connection = self._open.get(peer) if peer else None
        if connection is not None:
            connection.requests -= 1
            connection.asked = True
            connection.since = time.monotonic()

    def cut(self, peer: Peer | None) -> None:
        """End a connection at once, whatever is on its way."""
        connection = self._open.get(peer) if peer else None
        if connection is not None:
            connection.transport.abort()

    def cut_all(self) -> None:
        """End them all."""
        for connection in self._open.values():
            connection.transport.abort()

    def _make_room(self, addresses: Iterable[str]) -> bool:
        """End a connection of the first of these addresses that has one to spare.

        Best the oldest that never asked for anything, else the one that has been done longest.
        """
        for address in addresses:
            idle = [item for item in self._open.items() if item[1].address == address and item[1].is_idle()]
            if idle:
                peer, least = min(idle, key=lambda item: item[1].use())
                del self._open[peer]
                least.transport.abort()
                return True
        return False

    async def sweep(self) -> None:
        """For ever: end those that neither ask nor take."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for connection in self._open.values():
                idle = now - connection.since
                if not connection.requests and idle > (TAKE_S if _waiting(connection.transport) else ASK_S):
                    connection.transport.abort()


def _peer(transport: asyncio.Transport) -> Peer | None:
    """As uvicorn names it in a request's scope."""
    peer = transport.get_extra_info("peername")
    return None if not peer else (str(peer[0]), int(peer[1]))


def _waiting(transport: asyncio.Transport) -> int:
    """Bytes that the client has not taken."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # Python 3.10's, over TLS, just after the connection was lost
        return 0
