"""What one thread leaves for another: bounded, and every item accounted for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Outcome: TypeAlias = Literal["done", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Counts:
    """received == done + dropped + failed + waiting, at every moment.

    Attributes:
        received: items that were put.
        done: items of which the taker said so.
        dropped: items that nobody took: newer ones came, or the mailbox was closed; and those that the taker dropped.
        failed: items of which the taker said so.
        waiting: items that wait to be put or to be taken, or that were taken and are not finished.
    """

    received: int
    done: int
    dropped: int
    failed: int
    waiting: int


def drop_oldest(waiting: deque[T]) -> bool:
    """Take the oldest item out."""
    waiting.popleft()
    return True


class Mailbox(Generic[T]):
    """Items from one thread to another, oldest first.

    Args:
        capacity: how many items may wait, at least 1.
        blocking: whether `put` waits for a place. Else another item makes place, and is counted as dropped.
        drop: called with all that wait, oldest first, where that is one too many; it takes one out, and says whether it
            did. One that never refuses for long keeps the mailbox bounded.
        changed: notified at every change. One that several mailboxes share lets one thread wait for all of them.
    """

    def __init__(
        self,
        capacity: int,
        *,
        blocking: bool = False,
        drop: Callable[[deque[T]], bool] = drop_oldest,
        changed: Condition | None = None,
    ) -> None:
        self.changed = changed or Condition()
        self._capacity, self._blocking, self._drop = capacity, blocking, drop
        self._items: deque[T] = deque()
        self._closed = self._discarded = False
        self._received = self._done = self._dropped = self._failed = self._putting = self._in_hand = 0

    def put(self, item: T) -> None:
        """Leave an item. In a closed mailbox it is dropped at once."""
        with self.changed:
            self._received += 1
            if self._closed:
                self._dropped += 1
                return
            if self._blocking:
                self._putting += 1
                self.changed.wait_for(self._has_place)
                self._putting -= 1
            if self._discarded:
                self._dropped += 1
            else:  # also when it was closed meanwhile: what was on its way is still taken
                self._items.append(item)
                if not self._blocking and len(self._items) > self._capacity and self._drop(self._items):
                    self._dropped += 1
            self.changed.notify_all()

    def wait_for_place(self, timeout_s: float) -> bool:
        """Whether `put` would not wait, or no longer after at most so many seconds."""
        with self.changed:
            return not self._blocking or self.changed.wait_for(self._has_place, timeout_s)

    def take(self) -> T | None:
        """The oldest item as soon as there is one; None when it is closed and empty. `finish` must follow."""
        with self.changed:
            self.changed.wait_for(lambda: self.ready or self.ended)
            return self.take_now()

    def take_now(self) -> T | None:
        """The oldest item; None where there is none at present. `finish` must follow."""
        with self.changed:
            if not self._items:
                return None
            self._in_hand += 1
            self.changed.notify_all()
            return self._items.popleft()

    def finish(self, outcome: Outcome) -> None:
        """What became of one item that was taken. After `discard` it is known already."""
        with self.changed:
            if self._in_hand:
                self._in_hand -= 1
                self._count(outcome, 1)

    def close(self) -> None:
        """Take no more items. Those that wait can still be taken."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def discard(self, in_hand: Outcome = "failed") -> None:
        """Close it, drop what waits, and expect no word of what was taken."""
        with self.changed:
            self._closed = self._discarded = True
            self._dropped += len(self._items)
            self._items.clear()
            self._count(in_hand, self._in_hand)
            self._in_hand = 0
            self.changed.notify_all()

    def wait_until_closed(self, timeout_s: float) -> bool:
        """Whether it is closed, at the latest after so many seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self._closed, timeout_s)

    @property
    def ready(self) -> bool:
        """Whether there is an item to take."""
        return bool(self._items)

    @property
    def ended(self) -> bool:
        """Whether there will never be an item to take any more."""
        return self._closed and not self._items and not self._putting

    def counts(self) -> Counts:
        """Of one moment."""
        with self.changed:
            waiting = self._putting + len(self._items) + self._in_hand
            return Counts(self._received, self._done, self._dropped, self._failed, waiting)

    def _has_place(self) -> bool:
        return len(self._items) < self._capacity or self._closed

    def _count(self, outcome: Outcome, items: int) -> None:
        if outcome == "done":
            self._done += items
        elif outcome == "dropped":
            self._dropped += items
        else:
            self._failed += items
