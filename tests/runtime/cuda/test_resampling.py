"""The tables of weights are OpenCV's: its own resize of unit vectors is the oracle."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapcam.cuda.resampling import resampling

FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
GROWING = st.sampled_from(["bilinear", "bicubic", "lanczos"])


def opencv_matrix(source: int, target: int, flag: int) -> np.ndarray:
    """[target,source]: what cv2.resize makes of each unit vector, in float64."""
    return cv2.resize(np.eye(source), (source, target), interpolation=flag)


@given(st.integers(1, 200), st.integers(1, 200), GROWING)
@settings(deadline=None, max_examples=300)
def test_one_side_is_opencvs_resize(source: int, target: int, interpolation: str) -> None:
    # The other side is odd, so that nothing is halved.
    resized = resampling((source, 1), (target, 1), interpolation)
    assert resized.halvings == 0
    flag = cv2.INTER_AREA if target < source else FLAGS[interpolation]
    # OpenCV's weights are float32; where a side grows, so are the positions (in pixels) from which they are computed.
    tolerance = 1e-6 if target < source else 1e-6 + 2 * source * 2.0**-23
    matrix = resized.rows.matrix(source) * resized.share
    np.testing.assert_allclose(matrix, opencv_matrix(source, target, flag), atol=tolerance)
    assert resized.columns.matrix(1) == 1


@pytest.mark.parametrize("source", [*range(1, 60), 224, 1080, 1920])
def test_nearest_picks_opencvs_pixel(source: int) -> None:
    indices = np.arange(source, dtype=np.float32)[None]
    for target in (*range(1, 60), 224, 300):
        expected = cv2.resize(indices, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
        columns = resampling((1, source), (1, target), "nearest").columns
        np.testing.assert_array_equal(columns.first, expected)
        assert (columns.count == 1).all()
        assert (columns.weights == 1).all()


@pytest.mark.parametrize(
    ("source", "target", "halvings"),
    [
        ((1080, 1920), (224, 224), 1),
        ((2160, 3840), (224, 224), 2),
        ((1080, 1922), (224, 224), 1),
        ((45, 80), (9, 9), 0),
        ((448, 448), (224, 224), 1),
        ((448, 449), (224, 224), 0),
    ],
)
def test_the_tables_are_of_what_the_reference_has_left_after_its_halvings(
    source: tuple[int, int], target: tuple[int, int], halvings: int
) -> None:
    resized = resampling(source, target, "bilinear")
    assert resized.halvings == halvings
    for side, windows in enumerate((resized.rows, resized.columns)):
        left = source[side] >> halvings
        expected = opencv_matrix(left, target[side], cv2.INTER_AREA)
        np.testing.assert_allclose(windows.matrix(left), expected, atol=1e-6)


def test_halvings_beyond_the_kernels_are_in_the_table() -> None:
    """Each weight is shared by blocks of 4 x 4 pixels."""
    resized = resampling((2160, 3840), (64, 64), "bilinear")  # the reference halves four times, to 135 x 240
    assert resized.halvings == 2
    for windows, left in ((resized.rows, 540), (resized.columns, 960)):
        matrix = windows.matrix(left).reshape(64, -1, 4)
        assert (matrix == matrix[..., :1]).all()
        np.testing.assert_allclose(matrix.sum(axis=2), opencv_matrix(left // 4, 64, cv2.INTER_AREA), atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [((9, 20), (3, 5)), ((6, 5), (2, 5)), ((12, 30), (4, 30))])
def test_sides_that_shrink_by_whole_numbers_are_counted(source: tuple[int, int], target: tuple[int, int]) -> None:
    resized = resampling(source, target, "bilinear")
    assert resized.share == 1 / ((source[0] // target[0]) * (source[1] // target[1]))
    for windows in (resized.rows, resized.columns):
        assert set(windows.weights.ravel()) == {1.0}


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), GROWING)
@settings(deadline=None)
def test_weights_sum_to_one_and_windows_lie_in_the_source_in_order(
    height: int, width: int, target_height: int, target_width: int, interpolation: str
) -> None:
    resized = resampling((height, width), (target_height, target_width), interpolation)
    total = 1.0
    for side, windows in ((height, resized.rows), (width, resized.columns)):
        assert (windows.count >= 1).all()
        assert (windows.first >= 0).all()
        assert (windows.first + windows.count <= side >> resized.halvings).all()
        assert (np.diff(windows.first) >= 0).all()
        sums = windows.weights.sum(axis=1)
        np.testing.assert_allclose(sums, sums[0], atol=2e-3)
        total *= sums[0]
    assert total * resized.share == pytest.approx(1, abs=4e-3)  # but for slivers, which are left out
