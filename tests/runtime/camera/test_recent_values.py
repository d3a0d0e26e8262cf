"""Percentiles of the most recent values, and the rate of the most recent frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.camera.ages import KEPT, Ages
from gapcam.camera.frame_rate import WINDOW_S, FrameRate
from gapcam.camera.status import Percentiles
from gapcam.latency import Latency


def test_nothing_has_no_percentiles() -> None:
    assert Ages().percentiles() is None


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=300))
def test_percentiles_are_those_of_latency(values_ns: list[int]) -> None:
    ages, latency = Ages(), Latency(values_ns)
    for value in values_ns:
        ages.add(value / 1e9)
    got = ages.percentiles()
    assert got is not None
    assert got.count == len(values_ns)
    assert got.p99_ms == pytest.approx(latency.p99_ms)
    assert got.p50_ms == pytest.approx(sorted(values_ns)[(len(values_ns) - 1) // 2] / 1e6)
    assert got.greatest_ms == pytest.approx(max(values_ns) / 1e6)


def test_only_the_most_recent_ones_count() -> None:
    ages = Ages()
    for value in (9.0, *[0.001] * KEPT):
        ages.add(value)
    assert ages.percentiles() == Percentiles(KEPT, 1.0, 1.0, 1.0)


def test_the_rate_of_regular_frames_is_their_rate() -> None:
    rate = FrameRate()
    for frame in range(300):
        rate.add(frame / 15)
    assert rate.per_second(299 / 15) == pytest.approx(15)
    assert rate.per_second(299 / 15 + 0.05) == pytest.approx(15, rel=0.01)


def test_there_is_no_rate_before_two_frames_and_none_after_a_window_without_any() -> None:
    rate = FrameRate()
    assert rate.per_second(0) == 0
    rate.add(0.0)
    assert rate.per_second(0.1) == 0
    rate.add(0.1)
    assert rate.per_second(0.1) == pytest.approx(10)
    assert rate.per_second(0.1 + WINDOW_S) == 0


def test_a_rate_falls_while_nothing_comes() -> None:
    rate = FrameRate()
    for frame in range(16):
        rate.add(frame / 15)
    assert rate.per_second(2.0) == pytest.approx(8)
    assert rate.per_second(2.9) < rate.per_second(2.0)


def test_frames_of_one_moment_have_no_rate() -> None:
    rate = FrameRate()
    rate.add(1.0)
    rate.add(1.0)
    assert rate.per_second(1.0) == 0
