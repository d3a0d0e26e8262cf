"""Snapshots one at a time, so that those who take many hold up nobody who watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

WAITING = 4
"""How many wait for the one that is made. More are refused."""


class SnapshotsBusyError(Exception):
    """As many wait for a snapshot as may. No error of the camera's."""


class Snapshots:
    """Who waits for one, and whose turn it is. Used in the server's loop alone.

    After each there is a rest as long as it took: snapshots, however many are asked for, keep half a core busy.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._lock = asyncio.Lock()
        self._rest_until = 0.0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Be one of those who wait, or whose turn it is, for as long as the block lasts.

        Raises:
            SnapshotsBusyError: too many wait already.
        """
        if self._asked > WAITING:
            raise SnapshotsBusyError(f"{WAITING} wait for a snapshot already, and no more may; wait a second")
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn, and have it for as long as the block lasts."""
        async with self._lock:
            await asyncio.sleep(self._rest_until - time.monotonic())
            began = time.monotonic()
            try:
                yield
            finally:
                now = time.monotonic()
                self._rest_until = now + (now - began)
