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
    rows, columns = resampling((source, 1), (target, 1), interpolation)
    flag = cv2.INTER_AREA if target < source else FLAGS[interpolation]
    # OpenCV's weights are float32; where a side grows, so are the positions (in pixels) from which they are computed.
    tolerance = 1e-6 if target < source else 1e-6 + 2 * source * 2.0**-23
    np.testing.assert_allclose(rows.matrix(source), opencv_matrix(source, target, flag), atol=tolerance)
    assert columns.matrix(1) == 1


@pytest.mark.parametrize("source", [*range(1, 60), 224, 1080, 1920])
def test_nearest_picks_opencvs_pixel(source: int) -> None:
    indices = np.arange(source, dtype=np.float32)[None]
    for target in (*range(1, 60), 224, 300):
        expected = cv2.resize(indices, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
        _, columns = resampling((1, source), (1, target), "nearest")
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
    ],
)
def test_halvings_are_in_the_table(source: tuple[int, int], target: tuple[int, int], halvings: int) -> None:
    """Each weight is shared by blocks of 2^n pixels, as many as the reference halves."""
    block = 1 << halvings
    for side, windows in zip(range(2), resampling(source, target, "bilinear"), strict=True):
        matrix = windows.matrix(source[side]).reshape(target[side], -1, block)
        assert (matrix == matrix[..., :1]).all()
        expected = opencv_matrix(source[side] >> halvings, target[side], cv2.INTER_AREA)
        np.testing.assert_allclose(matrix.sum(axis=2), expected, atol=1e-6)
        if source[side] % (2 * block) == 0:
            finer = matrix.reshape(target[side], -1, 2 * block)
            assert (finer != finer[..., :1]).any()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), GROWING)
@settings(deadline=None)
def test_weights_sum_to_one_and_windows_lie_in_the_source_in_order(
    height: int, width: int, target_height: int, target_width: int, interpolation: str
) -> None:
    for source, windows in zip(
        (height, width), resampling((height, width), (target_height, target_width), interpolation), strict=True
    ):
        assert (windows.count >= 1).all()
        assert (windows.first >= 0).all()
        assert (windows.first + windows.count <= source).all()
        assert (np.diff(windows.first) >= 0).all()
        np.testing.assert_allclose(windows.weights.sum(axis=1), 1, atol=2e-3)  # but for slivers, which are left out
