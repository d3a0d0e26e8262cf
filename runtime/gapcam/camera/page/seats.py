"""How many watch at once, and how many may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["live", "mjpeg"]
KINDS: tuple[Kind, ...] = ("live", "mjpeg")


class NoSeatError(Exception):
    """As many watch as may. No error of the camera's."""


class Seats:
    """Used in the server's loop alone.

    Attributes:
        limit: how many there are.
        frames: how many were sent to each kind of client so far.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.frames: Counter[Kind] = Counter()
        self._taken: Counter[Kind] = Counter()

    @contextmanager
    def taken(self, kind: Kind) -> Iterator[None]:
        """Take a seat for as long as the block lasts.

        Raises:
            NoSeatError: there is none.
        """
        if self._taken.total() >= self.limit:
            raise NoSeatError(f"{self.limit} watch already, and no more may; raise --max-clients, or close a page")
        self._taken[kind] += 1
        try:
            yield
        finally:
            self._taken[kind] -= 1

    def count(self, kind: Kind | None = None) -> int:
        """How many watch, in all or of a kind."""
        return self._taken.total() if kind is None else self._taken[kind]
