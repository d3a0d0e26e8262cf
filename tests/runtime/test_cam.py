"""The NumPy reference of the map, its normalisation and its upsampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import gapcam
from gapcam.cam import class_maps, normalize
from gapcam.geometry import place
from gapcam.identity import identity_error, tangent_error
from gapcam.upsample import on_frame, seen_part

RNG = np.random.default_rng(0)
FINITE = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e3, 1e3, width=32))


def test_maps_are_the_papers_sum_written_as_loops() -> None:
    features, weights = RNG.normal(size=(2, 5, 3, 4)).astype(np.float32), RNG.normal(size=(3, 5)).astype(np.float32)
    expected = np.zeros((2, 3, 3, 4))
    for n in range(2):
        for c in range(3):
            for k in range(5):
                expected[n, c] += float(weights[c, k]) * features[n, k].astype(np.float64)
    np.testing.assert_allclose(class_maps(features, weights), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(class_maps(features[0], weights), expected[0], rtol=1e-5, atol=1e-5)


def test_clamping_is_the_sum_over_positive_weights() -> None:
    features, weights = RNG.normal(size=(5, 2, 2)).astype(np.float32), RNG.normal(size=(3, 5)).astype(np.float32)
    before = weights.copy()
    clamped = class_maps(features, weights, clamp_negative=True)
    positive = np.where(weights > 0, weights, 0)
    np.testing.assert_allclose(clamped, np.einsum("ck,kij->cij", positive, features), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(weights, before)  # the model's own weights stay


def test_half_precision_features_are_summed_in_float32() -> None:
    features = np.full((2048, 1, 1), 60.0, np.float16)  # the sum is beyond float16's 65504
    maps = class_maps(features, np.ones((1, 2048), np.float16))
    assert maps.dtype == np.float32
    assert maps.item() == 60.0 * 2048


@pytest.mark.parametrize(("features", "weights"), [((4, 2, 2), (3, 5)), ((4, 4), (3, 4)), ((4, 2, 2), (4,))])
def test_shapes_that_do_not_fit_are_refused(features: tuple[int, ...], weights: tuple[int, ...]) -> None:
    with pytest.raises(gapcam.UsageError, match="expected"):
        class_maps(np.zeros(features), np.zeros(weights))


@given(FINITE, st.sampled_from(["minmax", "max", "fixed"]))
@settings(deadline=None)
def test_normalised_values_lie_between_0_and_1_and_keep_their_order(values: np.ndarray, method: str) -> None:
    limits = (-10.0, 10.0) if method == "fixed" else None
    scaled = normalize(values, method, limits)  # type: ignore[arg-type]
    assert scaled.dtype == np.float32
    assert scaled.shape == values.shape
    assert ((scaled >= 0) & (scaled <= 1)).all()
    order = np.argsort(values, axis=None)
    assert (np.diff(scaled.ravel()[order]) >= 0).all()


def test_each_normalisation_by_hand() -> None:
    values = np.array([[-2.0, 0.0], [2.0, 6.0]])
    np.testing.assert_allclose(normalize(values), [[0, 0.25], [0.5, 1]], rtol=1e-6)
    np.testing.assert_allclose(normalize(values, "max"), [[0, 0], [1 / 3, 1]], rtol=1e-6)
    np.testing.assert_allclose(normalize(values, "fixed", (0, 4)), [[0, 0], [0.5, 1]], rtol=1e-6)


@pytest.mark.parametrize("values", [(-4.0, 1.1754944e-38), (0.0, 1e-40), (-3e38, 3e38), (-3e38, 1e-30)])
@pytest.mark.parametrize("method", ["minmax", "max"])
def test_a_tiny_or_a_huge_maximum_is_1_without_overflow(values: tuple[float, float], method: str) -> None:
    np.testing.assert_array_equal(normalize(np.array(values, np.float32), method), [0, 1])  # type: ignore[arg-type]


def test_fixed_limits_do_not_follow_the_frame() -> None:
    """What makes a video flicker: the same value in two frames with different maxima."""
    dim, bright = (normalize(np.array([0.0, 5.0, peak]), "fixed", (0, 10))[1] for peak in (6.0, 9.0))
    assert dim == bright == np.float32(0.5)
    assert normalize(np.array([0.0, 5.0, 6.0]))[1] != normalize(np.array([0.0, 5.0, 9.0]))[1]


@pytest.mark.parametrize("method", ["minmax", "max"])
@pytest.mark.parametrize("value", [0.0, 7.0, -7.0, np.nan, np.inf])
def test_a_map_with_nothing_to_show_is_all_zero(method: str, value: float) -> None:
    assert not normalize(np.full((3, 3), value, np.float32), method).any()  # type: ignore[arg-type]


def test_a_negative_map_has_nothing_to_show_under_max() -> None:
    assert not normalize(np.array([[-1.0, -2.0]]), "max").any()


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        ("median", None),
        ("fixed", None),
        ("minmax", (0, 1)),
        ("fixed", (1, 1)),
        ("fixed", (2, 1)),
        ("fixed", (0, np.nan)),
    ],
)
def test_a_wrong_normalisation_is_refused(method: str, limits: tuple[float, float] | None) -> None:
    with pytest.raises(gapcam.UsageError):
        normalize(np.eye(2), method, limits)  # type: ignore[arg-type]


def test_upsampling_puts_cell_centres_where_half_pixel_geometry_says() -> None:
    """Against bilinear interpolation written out, with cell j's centre at (j + 0.5) W / w."""
    raw = RNG.normal(size=(3, 5)).astype(np.float32)
    placement = place((24, 40), gapcam.Preprocessing(size=(24, 40)))
    np.testing.assert_allclose(seen_part(raw, (24, 40), placement), bilinear(raw, 24, 40), atol=1e-5)


def test_a_cropped_frame_gets_its_map_where_the_network_looked_and_zero_elsewhere() -> None:
    raw = RNG.random((4, 4)).astype(np.float32) + 1
    placement = place((20, 50), gapcam.Preprocessing(size=(8, 8), resize="crop"))
    part = seen_part(raw, (8, 8), placement)
    full = on_frame(part, (20, 50), placement)
    np.testing.assert_allclose(full[:, 15:35], bilinear(part, 20, 20), atol=1e-5)
    assert not full[:, :15].any()
    assert not full[:, 35:].any()


def test_a_letterboxed_frame_gets_only_the_part_between_the_bars() -> None:
    raw = RNG.random((4, 4)).astype(np.float32)
    placement = place((20, 40), gapcam.Preprocessing(size=(16, 16), resize="letterbox"))
    part = seen_part(raw, (16, 16), placement)
    np.testing.assert_allclose(part, bilinear(raw, 16, 16)[4:12], atol=1e-5)
    np.testing.assert_allclose(on_frame(part, (20, 40), placement), bilinear(part, 20, 40), atol=1e-5)


def bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (axis_weights(n, m) for n, m in zip(values.shape, (height, width), strict=True))
    return rows @ values.astype(np.float64) @ columns.T


def axis_weights(cells: int, pixels: int) -> np.ndarray:
    weights = np.zeros((pixels, cells))
    for pixel in range(pixels):
        at = min(max((pixel + 0.5) * cells / pixels - 0.5, 0), cells - 1)
        first = min(int(at), cells - 1)
        second = min(first + 1, cells - 1)
        weights[pixel, first] += 1 - (at - first)
        weights[pixel, second] += at - first
    return weights


def test_the_identity_error_sees_a_single_wrong_row() -> None:
    features, weights, bias = RNG.normal(size=(2, 6, 3, 3)), RNG.normal(size=(4, 6)), RNG.normal(size=4)
    logits = np.stack([class_maps(f, weights).mean(axis=(1, 2)) for f in features]) + bias
    assert identity_error(logits, features, weights, bias) < 1e-6
    wrong = weights.copy()
    wrong[2] = wrong[1]
    assert identity_error(logits, features, wrong, bias) > 1e-2
    assert identity_error(logits, np.maximum(features, 0), weights, bias) > 1e-2
    assert np.isnan(identity_error(logits * np.nan, features, weights, bias))


def test_the_identity_error_of_zero_logits_is_the_difference_itself() -> None:
    features = np.ones((1, 2, 1, 1))
    assert identity_error(np.zeros((1, 2)), features * 0, None, None) == 0
    assert identity_error(np.zeros((1, 2)), features, None, None) == 1


def test_the_identity_error_of_one_class_near_its_decision_boundary_is_relative_to_its_terms() -> None:
    features, weights = np.full((1, 2, 1, 1), 0.1, np.float32), np.ones((1, 2), np.float32)
    bias, logits = -np.full(1, 0.2, np.float32), np.full((1, 1), 1e-9, np.float32)
    assert identity_error(logits, features, weights, bias) < 1e-7
    assert identity_error(logits, features, weights, 1.01 * bias) > 5e-3
    tangent = (logits, features, np.zeros((1, 1), np.int64), weights[None])
    assert tangent_error(*tangent, bias[None]) < 1e-7
    assert tangent_error(*tangent, 1.01 * bias[None]) > 5e-3


def test_the_identity_error_sees_a_single_images_wrong_scale() -> None:
    features, weights, bias = RNG.normal(size=(3, 6, 3, 3)), RNG.normal(size=(4, 6)), RNG.normal(size=4)
    scale = np.array([0.5, 2.0, 7.0], np.float32)
    maps = np.stack([s * class_maps(f, weights) for s, f in zip(scale, features, strict=True)])
    logits = maps.mean(axis=(2, 3)) + bias
    assert identity_error(logits, features, weights, bias, scale) < 1e-6
    assert identity_error(logits, features, weights, bias) > 1e-2
    assert identity_error(logits, features, weights, bias, scale * np.array([1, 1, 1.1], np.float32)) > 1e-2
    assert np.isnan(identity_error(logits, features, weights, bias, np.array([0.5, 2.0, np.nan])))


def a_tangent() -> dict[str, np.ndarray]:
    """Two images, three classes, the two best; each pooled vector is (1, 2).

    Image 0: class 2 is 3 * 1 - 1 * 2 + 4 = 5, class 0 is 1 * 1 + 1 * 2 - 1 = 2. Image 1: class 1 is 2 * 2 + 0 = 4,
    class 2 is -1 * 1 + 4 = 3.
    """
    return {
        "logits": np.array([[2.0, -4.0, 5.0], [0.0, 4.0, 3.0]]),
        "features": np.array([[[[0.0, 2.0]], [[1.0, 3.0]]], [[[1.0, 1.0]], [[4.0, 0.0]]]]),
        "topk_classes": np.array([[2, 0], [1, 2]]),
        "topk_weights": np.array([[[3.0, -1.0], [1.0, 1.0]], [[0.0, 2.0], [-1.0, 0.0]]]),
        "topk_bias": np.array([[4.0, -1.0], [0.0, 4.0]]),
    }


def test_the_tangent_error_is_the_one_on_paper() -> None:
    tangent = a_tangent()
    assert tangent_error(**tangent) == 0
    tangent["topk_weights"][1, 0] = [1, 2]  # class 1 of image 1 is 5 and not 4; nothing is above 5
    assert tangent_error(**tangent) == 0.2


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("topk_bias", [[4, -1], [0, 6]], 2 / 6),
        ("topk_classes", [[2, 1], [1, 2]], 6 / 5),  # the tangent of class 0, said to be of class 1
        ("topk_weights", np.full((2, 2, 2), np.nan), np.nan),
        ("topk_bias", [[np.inf, 0], [0, 0]], np.nan),
        ("logits", [[2, np.nan, 5], [0, 4, 3]], np.nan),
        ("topk_classes", [[2, 3], [1, 2]], np.nan),
        ("topk_classes", [[2, -3], [1, 2]], np.nan),  # NumPy would count from the end
    ],
)
def test_the_tangent_error_sees_what_is_wrong(name: str, value: object, error: float) -> None:
    wrong = {**a_tangent(), name: np.array(value)}
    np.testing.assert_allclose(tangent_error(**wrong), error)


def test_the_tangent_error_sees_classes_that_are_not_the_best_or_not_best_first() -> None:
    """Each with a tangent of its own that is right."""
    tangent = a_tangent()
    turned = {name: array[:, ::-1] if name.startswith("topk") else array for name, array in tangent.items()}
    assert tangent_error(**turned) == (5 - 2) / 5
    second = {name: array[:, 1:] if name.startswith("topk") else array for name, array in tangent.items()}
    assert tangent_error(**second) == (5 - 2) / 5
    best = {name: array[:, :1] if name.startswith("topk") else array for name, array in tangent.items()}
    assert tangent_error(**best) == 0
