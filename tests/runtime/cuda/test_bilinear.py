"""The kernels' tables of bilinear samples, against what OpenCV resizes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapcam.cuda.bilinear import samples, spans
from gapcam.geometry import Placement, Rect
from gapcam.upsample import seen_part

SIDES = st.integers(1, 400)


@given(SIDES, SIDES)
@settings(deadline=None)
def test_samples_in_steps_of_1_256_are_those_of_inter_linear_exact(cells: int, count: int) -> None:
    """One row of random bytes, each way; rounded as OpenCV rounds."""
    table = samples(cells, count)
    row = np.random.default_rng(cells * 401 + count).integers(0, 256, cells, np.uint8)
    following = np.minimum(table.cells + 1, cells - 1)
    sums = row[table.cells].astype(int) * (256 - table.steps) + row[following].astype(int) * table.steps
    expected = ((256 * sums + (1 << 15)) >> 16).astype(np.uint8)
    resized = cv2.resize(row[None], (count, 1), interpolation=cv2.INTER_LINEAR_EXACT)
    np.testing.assert_array_equal(resized[0], expected)
    resized = cv2.resize(row[:, None], (1, count), interpolation=cv2.INTER_LINEAR_EXACT)
    np.testing.assert_array_equal(resized[:, 0], expected)


@given(SIDES, SIDES)
@settings(deadline=None)
def test_fractions_are_those_of_inter_linear(cells: int, count: int) -> None:
    table = samples(cells, count)
    assert ((table.fractions >= 0) & (table.fractions < 1)).all()
    row = np.random.default_rng(cells * 401 + count).normal(size=cells).astype(np.float32)
    following = np.minimum(table.cells + 1, cells - 1)
    expected = row[table.cells] * (1 - table.fractions) + row[following] * table.fractions
    resized = cv2.resize(row[None], (count, 1), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resized[0], expected, rtol=1e-6, atol=1e-6)


def test_samples_by_hand() -> None:
    """Two cells, four samples: at -1/4, 1/4, 3/4 and 5/4 of the way from the first centre to the second."""
    table = samples(2, 4)
    assert table.cells.tolist() == [0, 0, 0, 1]
    assert table.fractions.tolist() == [0, 0.25, 0.75, 0]
    assert table.steps.tolist() == [0, 64, 192, 0]


@pytest.mark.parametrize("map_size", [(1, 1), (7, 7), (3, 5), (14, 14), (40, 33)])
@pytest.mark.parametrize("window", [Rect(0, 0, 32, 24), Rect(0, 5, 32, 14), Rect(9, 0, 3, 24), Rect(31, 23, 1, 1)])
def test_a_maps_extremes_are_at_the_ends_of_spans(map_size: tuple[int, int], window: Rect) -> None:
    """Evaluated in float64 at the spans' ends alone: the extremes of all samples in the window."""
    raw = np.random.default_rng(0).normal(size=map_size).astype(np.float32)
    part = seen_part(raw, (24, 32), Placement(window, window))
    ends = []
    for length, count, first, seen in zip(
        map_size, (24, 32), (window.y, window.x), (window.height, window.width), strict=True
    ):
        table = spans(length, count, first, seen)
        assert len(table) <= min(length, seen)
        fractions = table[:, 2:].copy().view(np.float32).astype(np.float64)
        matrix = np.zeros((2 * len(table), length))
        for i, (cell, following, _, _) in enumerate(table.tolist()):
            for j in range(2):
                matrix[2 * i + j, cell] += 1 - fractions[i, j]
                matrix[2 * i + j, following] += fractions[i, j]
        ends.append(matrix)
    values = ends[0] @ raw @ ends[1].T
    np.testing.assert_allclose([values.min(), values.max()], [part.min(), part.max()], rtol=1e-5, atol=1e-6)
