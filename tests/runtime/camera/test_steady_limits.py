"""Ends of the colours that follow a class's maps."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam.cam import normalize
from gapcam.camera.steady_limits import FOLLOW_S, SteadyLimits, seen_cells
from gapcam.contract import Preprocessing
from gapcam.geometry import place
from gapcam.upsample import seen_part


def a_map(least: float, greatest: float) -> np.ndarray:
    return np.linspace(least, greatest, 12, dtype=np.float32).reshape(3, 4)


def limits_after(*maps: tuple[float, np.ndarray]) -> tuple[float, float]:
    limits = SteadyLimits()
    for at, seen in maps:
        limits.update(7, seen, at)
    return limits.of(7)


def test_blue_is_no_evidence_and_red_the_greatest_value() -> None:
    assert limits_after((0.0, a_map(-3, 8))) == (0, 8)


def test_red_rises_at_once_so_that_nothing_is_clipped() -> None:
    assert limits_after((0.0, a_map(-3, 8)), (1 / 30, a_map(-3, 20))) == (0, 20)


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_red_falls_towards_the_present_greatest_value_with_the_time_constant(steps: int) -> None:
    later = [(at, a_map(0, 4)) for at in np.linspace(0, FOLLOW_S, steps + 1)[1:]]
    assert limits_after((0.0, a_map(0, 10)), *later)[1] == pytest.approx(4 + 6 * exp(-1), rel=1e-6)


def test_a_dip_of_one_frame_hardly_moves_the_colours() -> None:
    low, high = limits_after((0.0, a_map(-1, 10)), (1 / 30, a_map(-1, 1)))
    assert low == 0
    assert 10 * 0.99 < high < 10


def test_blue_is_the_least_value_where_all_of_the_map_is_above_0() -> None:
    assert limits_after((0.0, a_map(5, 8))) == (5, 8)
    assert limits_after((0.0, a_map(5, 8)), (0.1, a_map(2, 8))) == (2, 8)
    rising = limits_after((0.0, a_map(2, 8)), (FOLLOW_S, a_map(5, 8)))
    assert rising == (pytest.approx(5 - 3 * exp(-1)), 8)


@pytest.mark.parametrize("seen", [a_map(-9, -1), a_map(0, 0), a_map(4, 4), a_map(4e6, 4e6 + 1)])
def test_a_map_without_evidence_or_without_differences_is_blue(seen: np.ndarray) -> None:
    heat = normalize(seen, "fixed", limits_after((0.0, seen)))
    assert heat.max() < 0.05


def test_classes_do_not_share_their_limits() -> None:
    limits = SteadyLimits()
    limits.update(0, a_map(0, 10), 0.0)
    limits.update(1, a_map(0, 2), 0.0)
    assert (limits.of(0), limits.of(1)) == ((0, 10), (0, 2))


def test_a_class_without_maps_for_long_begins_as_good_as_anew() -> None:
    assert limits_after((0.0, a_map(0, 10)), (8 * FOLLOW_S, a_map(0, 1)))[1] == pytest.approx(1, rel=0.01)


@given(
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    input_size=st.tuples(st.integers(9, 64), st.integers(9, 64)),
    frame_size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    resize=st.sampled_from(["squash", "crop", "letterbox"]),
)
def test_a_picture_is_made_of_the_seen_cells_and_of_no_others(
    cells: tuple[int, int], input_size: tuple[int, int], frame_size: tuple[int, int], resize: str
) -> None:
    placement = place(frame_size, Preprocessing(size=input_size, resize=resize))  # type: ignore[arg-type]
    raw = np.full(cells, np.float32(1e6))
    seen = seen_cells(raw, input_size, placement)
    seen[:] = np.arange(seen.size, dtype=np.float32).reshape(seen.shape)
    part = seen_part(raw, input_size, placement)
    assert part.max() <= seen.max() * (1 + 1e-5) + 1e-5
    assert part.min() >= -1e-5
