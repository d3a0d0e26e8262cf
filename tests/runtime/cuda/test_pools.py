"""What is lent to one thread at a time, and memory that is used again."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from host_driver import HostDriver

import gapcam
from gapcam.cuda.lending_pool import LendingPool
from gapcam.cuda.memory_pool import MemoryPool


class Thing:
    def __init__(self, key: int) -> None:
        self.key, self.users, self.ended = key, 0, False

    def end(self) -> None:
        assert not self.users
        assert not self.ended
        self.ended = True


def test_who_asks_one_after_the_other_gets_the_same_thing_again() -> None:
    pool = LendingPool(Thing, Thing.end, 3)
    with pool.lent(1) as first:
        pass
    with pool.lent(1) as second, pool.lent(1) as third:
        assert second is first
        assert third is not first
    with pool.lent(2) as other:
        assert other.key == 2


def test_threads_never_share_a_thing_and_there_are_never_more_than_the_limit() -> None:
    made: list[Thing] = []

    def make(key: int) -> Thing:
        made.append(Thing(key))
        return made[-1]

    pool, lock = LendingPool(make, Thing.end, 3), threading.Lock()

    def use(index: int) -> None:
        with pool.lent(index % 5) as thing:
            assert thing.key == index % 5
            with lock:
                thing.users += 1
                assert thing.users == 1
                assert sum(not other.ended for other in made) <= 3
            time.sleep(0.0005)
            with lock:
                thing.users -= 1

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(use, range(400)))) == 400
    assert len(made) >= 5  # other keys take the place of idle ones
    count, idle = len(made), next(thing for thing in made if not thing.ended)
    with pool.lent(idle.key) as thing:
        assert not thing.ended
    assert len(made) == count  # and what lies idle is lent again
    pool.close()
    assert all(thing.ended for thing in made)


def test_closing_waits_for_what_is_lent_and_tells_who_waits() -> None:
    pool = LendingPool(Thing, Thing.end, 1)
    waiting, told = threading.Event(), []

    def ask() -> None:
        waiting.set()
        with pytest.raises(gapcam.UsageError, match="closed"), pool.lent(1):
            pass
        told.append("closed")

    with pool.lent(1) as thing:
        asking = threading.Thread(target=ask)
        asking.start()
        waiting.wait(60)
        closing = threading.Thread(target=pool.close)
        closing.start()
        asking.join(60)
        assert told == ["closed"]
        assert not thing.ended
        assert closing.is_alive()
    closing.join(60)
    assert thing.ended
    pool.close()  # does nothing


def test_a_thing_that_cannot_be_made_or_whose_user_fails_takes_no_place() -> None:
    def make(key: int) -> Thing:
        if key == 13:
            raise gapcam.BackendError("no memory")
        return Thing(key)

    pool = LendingPool(make, Thing.end, 1)
    for _ in range(3):
        with pytest.raises(gapcam.BackendError), pool.lent(13):
            pass
    with pytest.raises(ZeroDivisionError), pool.lent(1):
        _ = 1 / 0
    with pool.lent(1) as thing:
        assert not thing.ended


def test_memory_that_came_back_goes_to_the_next_who_asks_for_its_size(host: HostDriver) -> None:
    pool = MemoryPool(host)
    first, other = pool.take(1000), pool.take(2000)
    pointer, second = first.pointer, pool.take(1000)
    assert second.pointer != pointer  # while it is out
    del first
    gc.collect()
    assert pool.take(1000).pointer == pointer
    second.close()
    other.close()
    other.close()  # does nothing
    again = pool.take(2000)
    assert again.pointer == other.pointer
    assert pool.take(2000).pointer != again.pointer  # it came back once
    again.close()
    assert pool.close()
    assert host.allocated_bytes == 0


@pytest.mark.parametrize("given_away", [False, True])
def test_memory_that_is_collected_with_a_cycle_is_not_freed_and_used_again(host: HostDriver, given_away: bool) -> None:
    pool = MemoryPool(host)
    cycle: list[object] = [pool.take(1000)]
    cycle.append(cycle)
    if given_away:
        cycle[0].give_away()  # type: ignore[attr-defined]
    del cycle
    gc.collect()
    assert host.allocated_bytes == (0 if given_away else 1000)
    piece, stream = pool.take(1000), host.stream()
    host.upload(np.zeros(1000, np.uint8), piece.pointer, stream)  # faults if it was freed
    stream.synchronize()
    assert host.allocated_bytes == 1000


def test_memory_that_was_given_away_is_freed_and_not_used_again(host: HostDriver) -> None:
    pool = MemoryPool(host)
    kept, given = pool.take(1000), pool.take(1000)
    given.give_away()
    given.close()
    given.close()  # does nothing
    assert host.allocated_bytes == 1000
    kept.close()
    assert pool.take(1000).pointer == kept.pointer
    pool.close()


def test_only_a_few_idle_pieces_are_kept(host: HostDriver) -> None:
    pool = MemoryPool(host)
    for size in range(1000, 1100):
        pool.take(size).close()
    assert host.allocated_bytes <= 10 * 1100
    out = pool.take(5000)
    pool.close()
    assert host.allocated_bytes == 5000
    out.close()
    pool.close()
    assert host.allocated_bytes == 0


def test_what_lies_idle_is_freed_before_memory_is_said_to_be_short(
    host: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HostDriver.allocate

    def allocate(driver: HostDriver, nbytes: int) -> object:
        if driver.allocated_bytes + nbytes > 10_000:
            raise gapcam.BackendError("the device has no more")
        return whole(driver, nbytes)

    monkeypatch.setattr(HostDriver, "allocate", allocate)
    pool = MemoryPool(host)
    pool.take(6000).close()
    piece = pool.take(7000)
    with pytest.raises(gapcam.BackendError):
        pool.take(7001)
    piece.close()
    pool.close()
