"""Which classes somebody watches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gapcam.camera.class_demand import ClassDemand


def test_a_class_is_wanted_until_all_who_wanted_it_let_go() -> None:
    demand = ClassDemand()
    for index in (5, 2, 5):
        demand.acquire(index)
    assert demand.wanted() == (2, 5)
    demand.release(5)
    assert demand.wanted() == (2, 5)
    demand.release(5)
    assert demand.wanted() == (2,)
    demand.release(2)
    assert demand.wanted() == ()


def test_what_nobody_wanted_cannot_be_released() -> None:
    demand = ClassDemand()
    demand.acquire(3)
    demand.release(3)
    with pytest.raises(ValueError, match="class 3"):
        demand.release(3)
    assert demand.wanted() == ()


def test_threads_do_not_lose_each_others_wishes() -> None:
    demand = ClassDemand()

    def come_and_go(client: int) -> None:
        for number in range(2000):
            demand.acquire((client + number) % 3)
            demand.release((client + number) % 3)
        demand.acquire(9)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert demand.wanted() == (9,)
    for _ in range(8):
        demand.release(9)
    assert demand.wanted() == ()
