"""Steps are measured in turn, and what the measurement changes is put back."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import cv2
import pytest

from gapcam.interleaved import MEASURED, UNMEASURED, WARM_UP, measure, one_opencv_thread


@pytest.fixture
def two_opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_every_step_has_its_turn_in_every_round_after_a_warm_up() -> None:
    ran: list[str] = []
    measured = measure({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=3, seconds=60)
    turn = UNMEASURED + MEASURED
    assert ran[: 2 * WARM_UP] == ["a"] * WARM_UP + ["b"] * WARM_UP
    rounds = [ran[start : start + 2 * turn] for start in range(2 * WARM_UP, len(ran), 2 * turn)]
    assert len(rounds) == 3
    assert all(each in (["a"] * turn + ["b"] * turn, ["b"] * turn + ["a"] * turn) for each in rounds)
    assert {name: latency.count for name, latency in measured.items()} == {"a": 3 * MEASURED, "b": 3 * MEASURED}


def test_no_step_always_follows_the_same_one() -> None:
    first: list[str] = []
    steps = {name: lambda name=name: first.append(name) for name in "abc"}
    measure(steps, rounds=20, seconds=60)
    starts = first[3 * WARM_UP :: 3 * (UNMEASURED + MEASURED)]
    assert set(starts) == {"a", "b", "c"}


def test_the_time_that_a_step_takes_is_measured() -> None:
    measured = measure({"sleep": lambda: time.sleep(0.002)}, rounds=1, seconds=60)
    assert (measured["sleep"].samples_ns >= 2_000_000).all()


def test_measuring_stops_when_the_seconds_are_over_and_not_before_one_round() -> None:
    rounds: list[int] = []
    measured = measure({"step": lambda: None}, rounds=1000, seconds=0, after_round=rounds.append)
    assert rounds == [1]
    assert measured["step"].count == MEASURED


def test_no_garbage_is_collected_meanwhile_and_it_is_again_afterwards() -> None:
    seen: list[bool] = []
    measure({"step": lambda: seen.append(gc.isenabled())}, rounds=1, seconds=60)
    assert not any(seen[WARM_UP:])
    assert gc.isenabled()


def test_a_step_that_fails_leaves_the_garbage_collector_on() -> None:
    runs = iter(range(WARM_UP))
    with pytest.raises(StopIteration):
        measure({"step": lambda: next(runs)}, rounds=1, seconds=60)
    assert gc.isenabled()


@pytest.mark.usefixtures("two_opencv_threads")
def test_opencv_has_one_thread_inside_and_as_many_as_before_after_a_failure() -> None:
    with one_opencv_thread():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 2
    with pytest.raises(KeyError), one_opencv_thread():
        raise KeyError
    assert cv2.getNumThreads() == 2
