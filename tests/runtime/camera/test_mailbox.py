"""A mailbox is bounded, keeps the order, and knows what became of every item."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_camera import PATIENCE_S, eventually

from gapcam.camera.mailbox import Counts, Mailbox


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_the_newest_wins_and_the_oldest_is_counted_as_dropped() -> None:
    box = Mailbox[int](2)
    for item in range(5):
        box.put(item)
    assert box.counts() == Counts(received=5, done=0, dropped=3, failed=0, waiting=2)
    assert [box.take(), box.take()] == [3, 4]
    assert box.counts().waiting == 2
    box.finish("done")
    box.finish("failed")
    assert box.counts() == Counts(received=5, done=1, dropped=3, failed=1, waiting=0)


def test_what_was_taken_may_be_dropped_after_all() -> None:
    box = Mailbox[int](1)
    box.put(0)
    box.take()
    box.finish("dropped")
    assert box.counts() == Counts(1, 0, 1, 0, 0)


def test_a_blocking_one_makes_who_puts_wait_and_drops_nothing() -> None:
    box = Mailbox[int](1, blocking=True)
    box.put(0)
    second = started(lambda: box.put(1))
    eventually(lambda: box.counts().received == 2)
    assert box.counts() == Counts(received=2, done=0, dropped=0, failed=0, waiting=2)
    assert second.is_alive()
    assert not box.wait_for_place(0)
    assert box.take() == 0
    assert ended(second)
    assert box.take() == 1


def test_a_taker_sleeps_until_something_comes() -> None:
    box, got = Mailbox[int](1), list[int | None]()
    taker = started(lambda: got.append(box.take()))
    eventually(lambda: box.changed._waiters)  # type: ignore[attr-defined]
    box.put(7)
    assert ended(taker)
    assert got == [7]


def test_a_closed_one_gives_what_waits_and_then_none_and_drops_what_comes() -> None:
    box = Mailbox[int](2)
    box.put(0)
    box.close()
    box.put(1)
    assert (box.ready, box.ended) == (True, False)
    assert box.take() == 0
    assert (box.ready, box.ended) == (False, True)
    assert box.take() is None
    assert box.counts() == Counts(received=2, done=0, dropped=1, failed=0, waiting=1)


def test_closing_wakes_who_takes_and_who_waits_for_it() -> None:
    box, got = Mailbox[int](1), list[object]()
    taker, waiter = started(lambda: got.append(box.take())), started(lambda: got.append(box.wait_until_closed(60)))
    box.close()
    assert ended(taker)
    assert ended(waiter)
    assert sorted(got, key=str) == [None, True]
    assert not Mailbox[int](1).wait_until_closed(0)


def test_what_waits_to_be_put_when_it_is_closed_is_still_taken() -> None:
    box = Mailbox[int](1, blocking=True)
    box.put(0)
    putter = started(lambda: box.put(1))
    eventually(lambda: box.counts().received == 2)
    box.close()
    assert ended(putter)
    assert [box.take(), box.take(), box.take()] == [0, 1, None]
    assert box.counts().waiting == 2


def test_discarding_drops_what_waits_and_what_is_put_and_fails_what_is_in_hand() -> None:
    box = Mailbox[int](2, blocking=True)
    box.put(0)
    box.put(1)
    box.take()
    box.put(2)
    putter = started(lambda: box.put(3))
    eventually(lambda: box.counts().received == 4)
    box.discard()
    assert ended(putter)
    assert box.ended
    assert box.counts() == Counts(received=4, done=0, dropped=3, failed=1, waiting=0)
    box.finish("done")  # too late
    assert box.counts() == Counts(received=4, done=0, dropped=3, failed=1, waiting=0)


def test_a_shared_condition_tells_of_all_of_them() -> None:
    changed = threading.Condition()
    boxes = [Mailbox[int](1, changed=changed) for _ in range(3)]
    seen: list[bool] = []

    def wait() -> None:
        with changed:
            seen.append(changed.wait_for(lambda: any(box.ready for box in boxes), PATIENCE_S))

    waiter = started(wait)
    boxes[2].put(0)
    assert ended(waiter)
    assert seen == [True]


@pytest.mark.parametrize("blocking", [False, True])
def test_a_place_is_there_at_once_where_nothing_waits(blocking: bool) -> None:
    box = Mailbox[int](1, blocking=blocking)
    assert box.wait_for_place(0)
    box.put(0)
    assert box.wait_for_place(0) is not blocking
    box.close()
    assert box.wait_for_place(0)


STEPS = st.lists(st.sampled_from(["put", "take", "done", "failed", "dropped", "close", "discard"]), max_size=60)


@given(STEPS, st.integers(1, 3))
@settings(deadline=None)
def test_whatever_happens_it_counts_as_a_simple_list_does(steps: list[str], capacity: int) -> None:
    box = Mailbox[int](capacity)
    waiting: list[int] = []
    in_hand: list[int] = []
    fate = dict.fromkeys(["done", "dropped", "failed"], 0)
    closed, received = False, 0
    for step in steps:
        if step == "put":
            box.put(received)
            if closed:
                fate["dropped"] += 1
            else:
                fate["dropped"] += len(waiting) == capacity
                waiting = [*waiting, received][-capacity:]
            received += 1
        elif step == "take":
            assert box.take_now() == (waiting[0] if waiting else None)
            in_hand += waiting[:1]
            del waiting[:1]
        elif step == "close":
            box.close()
            closed = True
        elif step == "discard":
            box.discard()
            closed = True
            fate["dropped"] += len(waiting)
            fate["failed"] += len(in_hand)
            waiting, in_hand = [], []
        else:
            box.finish(step)  # type: ignore[arg-type]
            if in_hand:
                in_hand.pop()
                fate[step] += 1
        assert box.counts() == Counts(received, fate["done"], fate["dropped"], fate["failed"],
                                      len(waiting) + len(in_hand))  # fmt: skip
        assert (box.ready, box.ended) == (bool(waiting), closed and not waiting)


@given(st.integers(0, 200), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_all_items_come_through_a_blocking_one_in_order(items: int, capacity: int) -> None:
    box, got = Mailbox[int](capacity, blocking=True), list[int]()

    def take_all() -> None:
        while (item := box.take()) is not None:
            assert box.counts().waiting <= capacity + 2
            got.append(item)
            box.finish("done")

    taker = started(take_all)
    for item in range(items):
        box.put(item)
    box.close()
    assert ended(taker)
    assert got == list(range(items))
    assert box.counts() == Counts(items, items, 0, 0, 0)
