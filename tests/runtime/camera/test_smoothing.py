"""The exponential average over time."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.camera.smoothing import ExponentialAverage

TAU = 0.3
seconds = st.floats(0, 20)
values = st.floats(-100, 100, width=32)


def a_value(value: float) -> np.ndarray:
    return np.array([value], np.float32)


@pytest.mark.parametrize("times", [np.arange(1, 40) / 30, np.cumsum([0.001, 0.2, 0.033, 1.0, 0.5, 0.01])])
def test_a_step_is_answered_as_a_first_order_filter_answers_it_however_frames_come(times: np.ndarray) -> None:
    average = ExponentialAverage(TAU)
    average.update(a_value(0), 0.0)
    for at in times:
        np.testing.assert_allclose(average.update(a_value(1), at), 1 - exp(-at / TAU), rtol=1e-5)


def test_63_percent_after_the_time_constant() -> None:
    average = ExponentialAverage(2.0)
    average.update(a_value(0), 10.0)
    assert average.update(a_value(1), 12.0)[0] == pytest.approx(0.632, abs=5e-4)


@given(seconds, seconds, values, values, values)
def test_one_step_is_two_of_half_its_length_with_the_same_value(
    dt: float, earlier: float, start: float, middle: float, value: float
) -> None:
    whole, halves = ExponentialAverage(TAU), ExponentialAverage(TAU)
    for average in (whole, halves):
        average.update(a_value(start), 0.0)
        average.update(a_value(middle), earlier)
    halves.update(a_value(value), earlier + dt / 2)
    np.testing.assert_allclose(
        halves.update(a_value(value), earlier + dt), whole.update(a_value(value), earlier + dt), rtol=1e-4, atol=1e-4
    )


@given(st.lists(st.tuples(st.floats(0, 5), values), min_size=1))
def test_an_average_lies_between_the_values(rows: list[tuple[float, float]]) -> None:
    average, at = ExponentialAverage(TAU), 0.0
    for dt, value in rows:
        at += dt
        found = average.update(a_value(value), at)[0]
    assert min(value for _, value in rows) - 1e-4 <= found <= max(value for _, value in rows) + 1e-4


def test_averaged_scores_are_still_a_distribution() -> None:
    rng, average = np.random.default_rng(0), ExponentialAverage(TAU)
    for number in range(50):
        found = average.update(rng.dirichlet(np.ones(1000)).astype(np.float32), number / 30)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found.min() >= 0


def test_the_first_value_is_taken_as_it_is() -> None:
    assert ExponentialAverage(TAU).update(a_value(7), 123.0)[0] == 7


def test_without_a_time_constant_each_value_is_handed_back_itself() -> None:
    average = ExponentialAverage(0)
    for number in range(3):
        value = a_value(number)
        assert average.update(value, number / 30) is value


def test_a_value_of_another_shape_begins_anew() -> None:
    average = ExponentialAverage(TAU)
    average.update(np.zeros((2, 2), np.float32), 0.0)
    np.testing.assert_array_equal(average.update(np.ones((3, 2), np.float32), 0.1), np.ones((3, 2)))
    np.testing.assert_allclose(average.update(np.zeros((3, 2), np.float32), 0.1 + TAU), exp(-1), rtol=1e-5)


def test_what_was_handed_in_and_out_is_left_as_it_was() -> None:
    average = ExponentialAverage(TAU)
    first, second = a_value(1), a_value(2)
    average.update(first, 0.0)
    between = average.update(second, 0.1)
    kept = between.copy()
    average.update(a_value(9), 0.2)
    assert (first[0], second[0]) == (1, 2)
    np.testing.assert_array_equal(between, kept)
    assert not between.flags.writeable
    assert between.dtype == np.float32
