"""Boxes from a map, against a brute-force oracle."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import gapcam
from gapcam.boxes import boxes_from_map

MAPS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([-3, -1, 0, 0.5, 1, 2, 3, 5]),
)


def oracle(values: np.ndarray, cut: float) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(pixels, box) of every component above `cut`, by scipy's labelling instead of OpenCV's."""
    labels, count = scipy.ndimage.label(values > cut, structure=np.ones((3, 3)))
    found = []
    for label in range(1, count + 1):
        rows, columns = np.nonzero(labels == label)
        found.append((len(rows), (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
    return sorted(found, key=lambda item: (-item[0], item[1][1], item[1][0]))


@given(MAPS, st.floats(0, 0.99))
@settings(deadline=None, max_examples=300)
def test_every_component_above_the_threshold_is_boxed_tightly_largest_first(
    values: np.ndarray, threshold: float
) -> None:
    boxes = boxes_from_map(values, threshold=threshold, all_components=True)
    if values.max() <= 0 or values.min() == values.max():
        assert boxes == ()
        return
    expected = oracle(values, threshold * values.max())
    assert sorted(boxes) == sorted(box for _, box in expected)
    pixels = dict.fromkeys(boxes, 0) | {box: count for count, box in reversed(expected)}
    assert [pixels[box] for box in boxes] == sorted(pixels[box] for box in boxes)[::-1] or len(set(boxes)) < len(boxes)


@given(MAPS, st.floats(0, 0.99))
@settings(deadline=None)
def test_without_all_components_it_is_the_largest_one_alone(values: np.ndarray, threshold: float) -> None:
    every = boxes_from_map(values, threshold=threshold, all_components=True)
    assert boxes_from_map(values, threshold=threshold) == every[:1]


@given(MAPS, st.floats(0, 0.99), st.floats(1, 100))
@settings(deadline=None)
def test_a_percentile_takes_the_place_of_the_maximum(values: np.ndarray, threshold: float, percentile: float) -> None:
    boxes = boxes_from_map(values, threshold=threshold, percentile=percentile, all_components=True)
    standard = float(np.percentile(values, percentile))
    if standard <= 0 or values.min() == values.max():
        assert boxes == ()
    else:
        assert sorted(boxes) == sorted(box for _, box in oracle(values, threshold * standard))


@given(MAPS, st.floats(0, 0.99), st.sampled_from([2**-8, 4, 2**10]))
@settings(deadline=None)
def test_boxes_do_not_depend_on_the_maps_unit(values: np.ndarray, threshold: float, unit: float) -> None:
    scaled = (values * np.float32(unit)).astype(np.float32)
    assert boxes_from_map(scaled, threshold=threshold) == boxes_from_map(values, threshold=threshold)


def test_the_papers_rule_on_a_map_by_hand() -> None:
    values = np.array(
        [
            [10, 3, 0, 0, 0],
            [0, 2, 0, 2.1, 0],  # 2 is not above 20 % of 10; 2.1 is, and touches 9 at a corner
            [0, 0, 9, 0, 0],
            [0, 0, 9, 0, 4],
        ]
    )
    assert boxes_from_map(values) == ((2, 1, 4, 4),)  # three pixels; the maximum's component has two
    assert boxes_from_map(values, all_components=True) == ((2, 1, 4, 4), (0, 0, 2, 1), (4, 3, 5, 4))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, np.nan, np.inf])
def test_a_map_that_says_nothing_has_no_box(value: float) -> None:
    assert boxes_from_map(np.full((4, 4), value, np.float32)) == ()


def test_a_map_with_nan_or_infinity_has_no_box() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        assert boxes_from_map(np.array([[bad, 1.0], [2.0, 3.0]])) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"percentile": 0},
        {"percentile": 101},
        {"threshold": np.nan},
        {"percentile": np.nan},
    ],
)
def test_a_threshold_or_percentile_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(gapcam.UsageError, match="give a number"):
        boxes_from_map(np.eye(3), **wrong)  # type: ignore[arg-type]
