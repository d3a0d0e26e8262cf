"""The figures of a comparison, against SciPy and against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gapcam.box import Box
from gapcam_export.comparison.measures import (
    box_iou,
    logit_error,
    peak_cell,
    peak_shift,
    pearson,
    spearman,
    top_agreement,
)

NOISE = np.random.default_rng(0)
FLAT = np.full((3, 4), 2.5, np.float32)
UNEVEN = NOISE.normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize("levels", [2, 3, 5, 1000])
def test_correlations_are_scipys_also_with_ties(levels: int) -> None:
    for _ in range(20):
        a, b = (NOISE.integers(0, levels, (5, 7)).astype(np.float64) for _ in range(2))
        assert pearson(a, b) == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic, abs=1e-12)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_correlation_minds_neither_scale_nor_offset_and_ranks_no_bend() -> None:
    assert pearson(UNEVEN, 3 * UNEVEN + 7) == pytest.approx(1)
    assert pearson(UNEVEN, -UNEVEN) == pytest.approx(-1)
    assert spearman(UNEVEN, np.exp(UNEVEN)) == pytest.approx(1)
    assert pearson(UNEVEN, np.exp(UNEVEN)) < 0.99


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_flat_maps_agree_with_flat_ones_alone_and_what_is_not_finite_with_nothing(correlation: object) -> None:
    assert callable(correlation)
    assert correlation(FLAT, np.zeros_like(FLAT)) == 1
    assert correlation(FLAT, UNEVEN) == correlation(UNEVEN, FLAT) == 0
    assert correlation(FLAT, FLAT * (1 + np.float32(1e-7) * (UNEVEN > 0))) == 1  # what float32 errs by is flat, too
    for wrong in (np.nan, np.inf):
        broken = UNEVEN.copy()
        broken[1, 1] = wrong
        assert correlation(broken, UNEVEN) == correlation(broken, broken) == correlation(FLAT, broken) == 0


@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_neither_tiny_nor_huge_maps_get_lost(scale: float) -> None:
    a, b = (NOISE.random((4, 4), np.float32) for _ in range(2))
    expected = stats.pearsonr(a.ravel(), b.ravel()).statistic
    assert pearson(a * np.float32(scale), b) == pytest.approx(expected, abs=1e-5)


def test_a_map_correlates_with_itself_by_exactly_one() -> None:
    for _ in range(50):
        values = NOISE.normal(size=(7, 7)).astype(np.float32)
        assert pearson(values, values) == spearman(values, values) == 1


sides = st.tuples(*[st.integers(0, 8)] * 4).map(
    lambda it: Box(min(it[0], it[2]), min(it[1], it[3]), max(it[0], it[2]) + 1, max(it[1], it[3]) + 1)
)


@given(sides, sides)
def test_iou_is_that_of_counted_pixels(a: Box, b: Box) -> None:
    covered = []
    for box in (a, b):
        pixels = np.zeros((10, 10), bool)
        pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        covered.append(pixels)
    assert box_iou(a, b) == pytest.approx((covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum())


def test_no_box_is_like_no_box_and_unlike_any() -> None:
    box = Box(0, 0, 2, 2)
    assert box_iou(None, None) == 1
    assert box_iou(box, None) == box_iou(None, box) == 0
    line = Box(1, 1, 1, 5)  # without an area: beside what the network sees
    assert box_iou(line, line) == 1
    assert box_iou(line, box) == 0


def test_a_peak_is_the_first_of_the_greatest_cells_and_a_flat_map_has_none() -> None:
    values = np.zeros((3, 4), np.float32)
    values[1, 3] = values[2, 0] = 5
    assert peak_cell(values) == (1, 3)
    assert peak_cell(FLAT) is None
    assert peak_cell(np.full((2, 2), np.nan, np.float32)) is None


def test_a_shift_is_a_distance_and_the_greatest_one_where_a_peak_went() -> None:
    assert peak_shift((1, 2), (4, 6), 99) == 5
    assert peak_shift(None, None, 99) == 0
    assert peak_shift((1, 2), None, 99) == peak_shift(None, (1, 2), 99) == 99


def test_the_logits_error_is_relative_to_the_references_largest() -> None:
    reference = np.array([1, -8, 3], np.float32)
    assert logit_error(reference, np.array([1, -8, 5], np.float32)) == 0.25
    assert logit_error(reference, reference) == 0
    zeros = np.zeros(3, np.float32)
    assert logit_error(zeros, zeros) == 0
    assert logit_error(zeros, reference) == 1


def test_the_best_classes_are_counted_as_sets() -> None:
    a = np.array([9, 8, 7, 6, 5, 4, 3], np.float32)
    b = np.array([5, 6, 7, 8, 9, 4, 10], np.float32)  # 5 and 0 are not among its best five
    assert top_agreement(a, b, 5) == 4 / 5
    assert top_agreement(a, b, 1) == 0
    assert top_agreement(a[:3], b[:3], 5) == 1
    assert (
        top_agreement(np.zeros(9, np.float32), np.arange(9, 0, -1, np.float32), 5) == 1
    )  # equal ones: by their number


def test_what_has_not_the_same_shape_is_not_compared() -> None:
    for compare in (pearson, spearman, logit_error):
        with pytest.raises(ValueError, match="shapes"):
            compare(np.zeros((2, 3)), np.zeros((3, 2)))


@given(st.lists(st.floats(width=32), min_size=4, max_size=4), st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_no_map_gives_a_figure_that_is_no_number(a: list[float], b: list[float]) -> None:
    one, other = (np.array(values, np.float32).reshape(2, 2) for values in (a, b))
    for correlation in (pearson, spearman):
        found = correlation(one, other)
        assert -1 <= found <= 1
        assert found == pytest.approx(correlation(other, one), abs=1e-9)
    assert not math.isnan(peak_shift(peak_cell(one), peak_cell(other), 3))
