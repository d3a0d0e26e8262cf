"""Waits double up to a limit, jitter, and begin anew after what ran well."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.camera.backoff import JITTER, WELL_S, Backoff, Reopen
from gapcam.errors import UsageError


class NoJitter(Random):
    def random(self) -> float:
        return 0.0


class FullJitter(Random):
    def random(self) -> float:
        return 1.0


def test_waits_double_up_to_the_greatest() -> None:
    backoff = Backoff(0.5, 5, NoJitter())
    assert [backoff.failed(0) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_jitter_only_shortens_a_wait() -> None:
    backoff = Backoff(0.5, 30, FullJitter())
    assert [backoff.failed(0) for _ in range(3)] == [0.5 * (1 - JITTER), 1 - JITTER, 2 * (1 - JITTER)]
    assert 0 < JITTER < 1


def test_it_begins_anew_after_what_ran_well() -> None:
    backoff = Backoff(0.5, 30, NoJitter())
    assert [backoff.failed(0), backoff.failed(WELL_S), backoff.failed(0)] == [0.5, 0.5, 1]


def test_what_ran_shorter_than_it_was_waited_for_did_not_run_well() -> None:
    backoff = Backoff(16, 64, NoJitter())
    assert [backoff.failed(0), backoff.failed(31.9), backoff.failed(64)] == [16, 32, 16]
    backoff = Backoff(0.5, 30, NoJitter())
    assert [backoff.failed(WELL_S * 0.99), backoff.failed(WELL_S * 0.99)] == [0.5, 1]


@given(st.floats(0.01, 5), st.floats(1, 100), st.lists(st.floats(0, 200), max_size=30), st.integers())
def test_waits_stay_in_their_limits(first_s: float, factor: float, ran_s: list[float], seed: int) -> None:
    backoff = Backoff(first_s, first_s * factor, Random(seed))  # noqa: S311 - no secret
    for ran in ran_s:
        assert (1 - JITTER) * first_s <= backoff.failed(ran) <= first_s * factor


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_s": 0}, "first_s is 0; give seconds above 0"),
        ({"first_s": float("nan")}, "first_s is nan"),
        ({"greatest_s": float("inf")}, "greatest_s is inf"),
        ({"stall_s": -1}, "stall_s is -1"),
        ({"first_s": 2, "greatest_s": 1}, "greatest_s is 1 and first_s 2"),
        ({"give_up_s": -0.1}, "give_up_s is -0.1; give seconds, or None"),
        ({"give_up_s": float("nan")}, "give_up_s is nan"),
    ],
)
def test_wrong_values_are_one_line(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Reopen(**values)


def test_never_giving_up_and_giving_up_at_once_are_both_possible() -> None:
    assert Reopen().give_up_s is None
    assert Reopen(give_up_s=0).give_up_s == 0
