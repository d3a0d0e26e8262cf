"""Device memory that is used again: a camera's results need the same sizes, frame after frame.

Allocating and freeing device memory costs from microseconds to a wait for the whole device, by the driver. Here a
piece comes back when it is closed or collected, and goes to the next who asks for its size. All work on it must be done
by then: whoever queues work on a piece waits for it before the piece may be let go. Callers of gapcam need not: what
is given to them is freed by the driver, which waits.
"""

from __future__ import annotations

import weakref
from collections import deque
from threading import Lock

from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame
from gapcam.cuda.driver import Driver, Memory
from gapcam.errors import BackendError

_KEPT = 8
"""Idle pieces, of all sizes together; the oldest are freed. A few results' worth."""


class PooledMemory:
    """A `gapcam.cuda.driver.Memory` that goes back to its pool."""

    def __init__(self, memory: Memory, nbytes: int, returned: deque[tuple[int, Memory]]) -> None:
        self.pointer, self.nbytes = memory.pointer, nbytes
        # Held there, the memory cannot be part of a cycle that is collected, where it would be freed and handed back.
        # Appending takes no lock: the garbage collector may come in the midst of `MemoryPool.take`.
        self._give_back = weakref.finalize(self, returned.append, (nbytes, memory))
        self._give_back.atexit = False
        self._given_away: Memory | None = None

    def give_away(self) -> None:
        """Let it be freed at its end, when the device has done what was queued before, instead of used again."""
        kept = self._give_back.detach()
        if kept is not None:
            _, _, ((_, self._given_away),), _ = kept

    def close(self) -> None:
        """Give it back, or free it. Closing twice does nothing."""
        self._give_back()
        if self._given_away is not None:
            self._given_away.close()


def give_away(of: DeviceArray | DeviceFrame) -> None:
    """`PooledMemory.give_away` of the memory that an array or a frame owns."""
    assert isinstance(of.owner, PooledMemory)  # noqa: S101 - gapcam's own
    of.owner.give_away()


class MemoryPool:
    """Pieces of device memory by size. Several threads may use it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._returned: deque[tuple[int, Memory]] = deque()
        self._idle: list[tuple[int, Memory]] = []  # the one that came back first is the first
        self._lock = Lock()

    def take(self, nbytes: int) -> PooledMemory:
        """A piece of this size, uninitialised. The device's context is current on this thread.

        Raises:
            BackendError: there is not enough memory.
        """
        with self._lock:
            self._collect()
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == nbytes:
                    return PooledMemory(self._idle.pop(place)[1], nbytes, self._returned)
            surplus, self._idle = self._idle[:-_KEPT], self._idle[-_KEPT:]
        _free(surplus)
        try:
            memory = self._driver.allocate(nbytes)
        except BackendError:
            if not self.close():
                raise
            memory = self._driver.allocate(nbytes)  # with what lay idle
        return PooledMemory(memory, nbytes, self._returned)

    def close(self) -> bool:
        """Free what has come back, if anything. Pieces that are still out are freed when they are collected."""
        with self._lock:
            self._collect()
            idle, self._idle = self._idle, []
        _free(idle)
        return bool(idle)

    def _collect(self) -> None:
        while self._returned:
            self._idle.append(self._returned.popleft())


def _free(pieces: list[tuple[int, Memory]]) -> None:
    for _, memory in pieces:
        memory.close()
