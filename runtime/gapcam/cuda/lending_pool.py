"""Things that one thread at a time uses, lent to whoever asks: made when they are needed, up to a limit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Generic, TypeVar

from gapcam.backends.protocol import CLOSED
from gapcam.errors import UsageError

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


class LendingPool(Generic[Key, Thing]):
    """A pool that grows on demand. Who comes when all are lent waits for one.

    Args:
        make: a new thing of a key.
        end: what is done with a thing that is no longer needed.
        limit: how many there may be at once, of all keys together. At the limit, an idle one of another key makes room.
    """

    def __init__(self, make: Callable[[Key], Thing], end: Callable[[Thing], None], limit: int) -> None:
        self._make, self._end, self._limit = make, end, limit
        self._changed = Condition()
        self._idle: list[tuple[Key, Thing]] = []  # the one that was used last is the last
        self._made = 0
        self._closed = False

    @contextmanager
    def lent(self, key: Key) -> Iterator[Thing]:
        """A thing of this key for a `with` block.

        Raises:
            UsageError: the pool is closed.
        """
        thing = self._taken(key)
        try:
            yield thing
        finally:
            with self._changed:
                self._idle.append((key, thing))
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until all are back, and end them. Who waits or asks later is told. Closing twice does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            ended, self._idle, self._made = self._idle, [], 0
        for _, thing in ended:
            self._end(thing)

    def _taken(self, key: Key) -> Thing:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._made < self._limit)
            if self._closed:
                raise UsageError(CLOSED)
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
            replaced = self._idle.pop(0) if self._made == self._limit else None
            self._made += replaced is None
        try:
            if replaced is not None:
                self._end(replaced[1])
            return self._make(key)
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
            raise
