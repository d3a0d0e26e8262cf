"""The affine fit against planted maps, brute-force cross-validation, and real networks' heads."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

import gapcam
from gapcam.contract import Preprocessing
from gapcam.errors import FrameError, UsageError
from gapcam_export.demo import efficientnet_lite0, efficientnet_lite0_checkpoint
from gapcam_export.photographs import photograph
from gapcam_export.surgery.affine_fit import agreement, calibration_views, fit_affine, split

Floats = NDArray[np.float64]


def planted(images: int, channels: int, classes: int, noise: float = 0.0) -> tuple[Floats, Floats, Floats, Floats]:
    """Features with scales from 0.01 to 100, logits, and the map between them."""
    random = np.random.default_rng(0)
    x = random.normal(3, 1, (images, channels)) * np.logspace(-2, 2, channels)
    weights, bias = (
        random.normal(0, 1, (classes, channels)) / np.logspace(-2, 2, channels),
        random.normal(0, 1, classes),
    )
    return x, x @ weights.T + bias + noise * random.normal(0, 1, (images, classes)), weights, bias


@pytest.mark.parametrize("classes", [1, 7, 1500])
def test_a_planted_affine_map_is_recovered(classes: int) -> None:
    x, y, weights, bias = planted(60, 20, classes)
    fit = fit_affine(x.astype(np.float32), y.astype(np.float32))
    assert fit.weights.dtype == fit.bias.dtype == np.float32
    scale = np.logspace(-2, 2, 20)
    np.testing.assert_allclose(fit.weights * scale, weights * scale, atol=1e-4)
    np.testing.assert_allclose(fit.bias, bias, rtol=1e-4, atol=1e-3)


def test_constant_features_get_no_weight_and_duplicates_share_it() -> None:
    x, y, weights, _ = planted(60, 5, 3)
    fit = fit_affine(np.hstack([x, np.full((60, 1), 7.0), np.zeros((60, 1)), x[:, :1]]), y)
    assert not fit.weights[:, 5:7].any()
    np.testing.assert_allclose(fit.weights[:, 0], fit.weights[:, 7], rtol=1e-5)
    np.testing.assert_allclose(fit.weights[:, 0] + fit.weights[:, 7], weights[:, 0], rtol=1e-5)


def test_features_that_are_all_constant_give_the_mean_logits() -> None:
    logits = np.array([[1.0, 5.0], [3.0, -1.0]])
    fit = fit_affine(np.ones((2, 3)), logits)
    assert not fit.weights.any()
    np.testing.assert_allclose(fit.bias, [2, 2])


def left_out_error(x: Floats, y: Floats, ridge: float, images: NDArray[np.int64]) -> float:
    """The mean squared error on each image's views by ridge regression on all others, one solve an image."""
    scaled = (x - x.mean(0)) / x.std(0)
    total = 0.0
    for image in np.unique(images):
        rest = images != image
        centre, level = scaled[rest].mean(0), y[rest].mean(0)
        design = scaled[rest] - centre
        weights = np.linalg.solve(design.T @ design + ridge * np.eye(x.shape[1]), design.T @ (y[rest] - level))
        total += float(np.square((scaled[~rest] - centre) @ weights + level - y[~rest]).sum())
    return total / y.size


@pytest.mark.parametrize("classes", [6, 300])
@pytest.mark.parametrize(("views", "noise"), [(15, 3.0), (40, 1.0), (40, 10.0), (80, 3.0)])
@pytest.mark.parametrize("per_image", [1, 4])
def test_the_ridge_is_the_best_for_images_left_out_by_brute_force(
    views: int, noise: float, per_image: int, classes: int
) -> None:
    x, y, _, _ = planted(views, 24, classes, noise)
    images = np.random.default_rng(2).permutation(np.arange(views) // per_image)  # in no order, of unequal numbers
    # Views of an image are alike, and so is what the fit cannot tell of them.
    x += 3 * np.random.default_rng(3).normal(0, 1, x.shape)[images] * np.logspace(-2, 2, 24)
    y += 3 * noise * np.random.default_rng(4).normal(0, 1, y.shape)[images]
    given = None if per_image == 1 else images
    best = min(left_out_error(x, y, ridge, images) for ridge in np.logspace(-6, 6, 61))
    assert left_out_error(x, y, fit_affine(x, y, given).ridge, images) < 1.05 * best


def test_what_only_views_of_one_image_share_is_not_taken_for_a_rule() -> None:
    """Where each image has logits of its own, views that are left out one by one are foretold, but new images not."""
    random = np.random.default_rng(0)
    images = np.arange(120) // 12
    x = random.normal(0, 1, (10, 24))[images] + 0.1 * random.normal(0, 1, (120, 24))
    y = random.normal(0, 1, (10, 6))[images]
    apart, together = fit_affine(x, y), fit_affine(x, y, images)
    assert together.ridge > 100 * apart.ridge
    assert left_out_error(x, y, together.ridge, images) < 0.8 * left_out_error(x, y, apart.ridge, images)


def test_the_weights_are_those_of_ridge_regression() -> None:
    x, y, _, _ = planted(40, 24, 6, 3.0)
    fit = fit_affine(x, y)
    scaled = (x - x.mean(0)) / x.std(0)
    design = np.vstack([np.hstack([scaled, np.ones((40, 1))]), np.sqrt(fit.ridge) * np.eye(24, 25)])
    solution = np.linalg.lstsq(design, np.vstack([y, np.zeros((24, 6))]), rcond=None)[0]
    np.testing.assert_allclose(
        x @ fit.weights.T + fit.bias, scaled @ solution[:-1] + solution[-1], rtol=1e-4, atol=1e-4
    )


def test_fewer_images_than_features_predict_better_than_their_mean() -> None:
    x, y, weights, bias = planted(60, 100, 5, 0.1)
    new = np.random.default_rng(1).normal(3, 1, (500, 100)) * np.logspace(-2, 2, 100)
    truth = new @ weights.T + bias
    fit = fit_affine(x, y)
    error = np.square(new @ fit.weights.T + fit.bias - truth).mean()
    assert error < 0.7 * np.square(truth - y.mean(0)).mean()


@pytest.mark.parametrize(
    ("pooled", "logits", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), r"got pooled features \(3, 2\) and logits \(4, 2\)"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "at least 2"),
        (np.array([[1.0], [np.nan]]), np.zeros((2, 2)), "pooled features are not all finite"),
        (np.zeros((2, 1)), np.array([[1.0], [np.inf]]), "old logits are not all finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(pooled: Floats, logits: Floats, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_affine(pooled, logits)


def test_images_of_other_views_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got images \(3,\) for 2 views"):
        fit_affine(np.zeros((2, 1)), np.zeros((2, 1)), np.arange(3))


def test_agreement_by_hand() -> None:
    old = np.array([[1.0, -1.0, 0.0], [4.0, 2.0, 3.0]])
    same = agreement(old, np.add(old, [[10.0], [-7.0]]))
    assert (same.top1, same.relative_error) == (1.0, 0.0)
    assert same.correlation == pytest.approx(1)
    half = agreement(old, np.array([[2.0, -2.0, 0.0], [2.0, 4.0, 3.0]]))
    # centred: old (1,-1,0), (1,-1,0); new (2,-2,0), (-1,1,0)
    assert half.top1 == 0.5
    assert half.correlation == pytest.approx((4 - 2) / np.sqrt(4 * 10))
    assert half.relative_error == pytest.approx(np.sqrt((2 + 8) / 4))


def test_agreement_of_one_class_is_by_its_sign() -> None:
    found = agreement(np.array([[1.0], [-1.0], [3.0], [5.0]]), np.array([[2.0], [1.0], [4.0], [5.0]]))
    assert found.top1 == 0.75
    assert found.correlation == pytest.approx(np.corrcoef([1, -1, 3, 5], [2, 1, 4, 5])[0, 1])


def test_agreement_with_constant_logits() -> None:
    constant, other = np.ones((2, 3)), np.array([[1.0, 2, 3], [0, 1, 5]])
    assert agreement(constant, constant).relative_error == 0
    assert agreement(constant, other).relative_error == np.inf
    assert agreement(other, constant).correlation == 0
    with pytest.raises(UsageError, match=r"shapes \(2, 3\) and \(3, 2\)"):
        agreement(other, other.T)


def all_views(frames: list[NDArray[np.uint8]], preprocessing: Preprocessing, per_image: int, seed: int = 0):
    batches = list(calibration_views(frames, preprocessing, per_image, seed))
    assert all(len(views) <= 32 for views, _ in batches)
    return np.concatenate([views for views, _ in batches]), np.concatenate([index for _, index in batches])


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_the_first_view_is_the_preprocessed_frame(cat: NDArray[np.uint8], resize: str) -> None:
    preprocessing = Preprocessing(size=(48, 64), resize=resize, color="bgr")  # type: ignore[arg-type]
    frames = [cat, photograph("coffee"), photograph("rocket")]
    views, index = all_views(frames, preprocessing, 12)
    assert views.shape == (36, 3, 48, 64)
    assert views.dtype == np.float32
    assert index.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    for frame, view in zip(frames, views[::12], strict=True):
        np.testing.assert_array_equal(view, gapcam.preprocess(frame, preprocessing))


def test_views_are_the_same_for_a_seed_whatever_else_is_asked_for(cat: NDArray[np.uint8]) -> None:
    preprocessing, coffee = Preprocessing(size=(32, 32)), photograph("coffee")
    views, _ = all_views([cat, coffee], preprocessing, 20)
    np.testing.assert_array_equal(views[:5], all_views([cat], preprocessing, 5)[0])
    np.testing.assert_array_equal(views[20:], all_views([coffee, coffee], preprocessing, 20)[0][20:])
    assert len({view.tobytes() for view in views}) == 40
    assert not np.array_equal(views, all_views([cat, coffee], preprocessing, 20, seed=1)[0])


def test_views_are_crops_of_the_stated_areas_and_aspects_and_half_are_mirrored() -> None:
    """A frame whose colours are its coordinates tells each crop's rectangle."""
    rows, columns = np.mgrid[0:200, 0:250]
    frame = np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8)
    preprocessing = Preprocessing(size=(50, 50), color="bgr", mean=(0, 0, 0), std=(1 / 255,) * 3)
    views, _ = all_views([frame], preprocessing, 400)
    x, y = views[1:, 0].mean(1), views[1:, 1].mean(2)
    mirrored = x[:, 0] > x[:, -1]
    assert 0.4 < mirrored.mean() < 0.6
    assert (y[:, 0] < y[:, -1]).all()
    # Centres of the first and last of 50 pixels are 49/50 of the crop apart.
    width, height = np.abs(x[:, -1] - x[:, 0]) * 50 / 49, (y[:, -1] - y[:, 0]) * 50 / 49
    area = width * height / (200 * 250)
    assert 0.33 < area.min() < 0.4
    assert 0.9 < area.max() < 1.02
    aspect = width / height
    assert 0.73 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.36


def test_views_of_what_is_no_frame_are_refused(cat: NDArray[np.uint8]) -> None:
    with pytest.raises(FrameError, match="looks grey"):
        list(calibration_views([cat[..., 0]], Preprocessing(size=(8, 8)), 1, 0))
    with pytest.raises(UsageError, match="0 views an image"):
        list(calibration_views([cat], Preprocessing(size=(8, 8)), 0, 0))


@pytest.mark.parametrize(("images", "fraction", "held_out"), [(10, 0.3, 3), (2, 0.01, 1), (3, 0.99, 2)])
def test_a_split_puts_each_image_on_one_side(images: int, fraction: float, held_out: int) -> None:
    fit, rest = split(images, fraction, 0)
    assert len(rest) == held_out
    assert sorted([*fit, *rest]) == list(range(images))


def test_a_split_of_one_image_is_refused() -> None:
    with pytest.raises(UsageError, match="got 1 images"):
        split(1, 0.5, 0)


NAMES = ("chelsea", "astronaut", "coffee", "rocket")


def test_a_nonlinear_head_is_fitted_better_than_by_its_tangent() -> None:
    """MobileNetV3's two layers with a Hardswish between, on views that the fit has not seen."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=20)
    frames = [photograph(name) for name in ("chelsea", "astronaut", "coffee", "rocket")]
    images = torch.cat(
        [torch.from_numpy(views) for views, _ in calibration_views(frames, Preprocessing(size=(64, 64)), 500, 0)]
    )
    with torch.no_grad():
        # With statistics of the images themselves: else random layers bring next to nothing of an image to their end.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model.train()(images[::5])
        model.eval()
        x = torch.cat([model.avgpool(model.features(some)).flatten(1) for some in images.split(100)])
        hidden, _, _, last = head = model.classifier
        hidden.weight *= 2 / (x @ hidden.weight.T).std(0)[:, None]  # far over both of the Hardswish's bends
        hidden.bias -= hidden.weight @ x.mean(0)
        last.bias -= head(x).mean(0)
        y = head(x).numpy()
        tangent = torch.func.jacrev(head)(x.mean(0)).numpy()
        by_tangent = (x - x.mean(0)).numpy() @ tangent.T + head(x.mean(0)).numpy()
    seen = np.arange(len(x)) % 4 > 0
    fit = fit_affine(x.numpy()[seen], y[seen])
    found = agreement(y[~seen], x.numpy()[~seen] @ fit.weights.T + fit.bias)
    assert found.correlation > 0.84
    assert found.top1 > 0.53
    assert found.relative_error < 0.55
    assert agreement(y[~seen], by_tangent[~seen]).relative_error > 0.6


def test_held_out_agreement_on_imagenet_grows_with_the_images(data: Path) -> None:
    """EfficientNet-Lite0's own linear layer, which is affine, found again from its answers."""
    network = efficientnet_lite0()
    network.load_state_dict(torch.load(efficientnet_lite0_checkpoint(), weights_only=True))
    network.eval()
    with (data / "labels.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "calibrate"]
    frames = (gapcam.read_image(data / name) for name in names)
    preprocessing = Preprocessing(size=(128, 128), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    pooled, logits, index = [], [], []
    for views, images in calibration_views(frames, preprocessing, 4, 0):
        with torch.no_grad():
            x = network.extract_features(torch.from_numpy(views)).mean((2, 3))
            pooled.append(x.numpy())
            logits.append(network._fc(x).numpy())
        index.append(images)
    x, y, image = np.concatenate(pooled), np.concatenate(logits), np.concatenate(index)
    seen, held_out = split(len(names), 0.3, 0)
    apart = np.isin(image, held_out)
    found = []
    for count in (len(seen) // 4, len(seen)):
        some = np.isin(image, seen[:count])
        fit = fit_affine(x[some], y[some], image[some])
        found.append(agreement(y[apart], x[apart] @ fit.weights.T + fit.bias))
    assert found[0].top1 + 0.3 < found[1].top1
    assert found[1].top1 > 0.65
    assert found[1].correlation > found[0].correlation + 0.2
