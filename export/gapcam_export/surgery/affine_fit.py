"""The best affine map from pooled features to an old network's logits, by least squares on views of photographs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam.contract import Preprocessing
from gapcam.errors import UsageError
from gapcam.frame import Frame, check_frame
from gapcam.preprocessing import preprocess

_Floats = NDArray[np.floating[Any]]

# Candidates for the ridge, relative to the largest squared singular value.
_RIDGES = np.logspace(-12, 2, 29)
# A column whose deviation is below this part of its mean, or a singular value below this part of the largest, is
# float32's rounding.
_ROUNDING = 1e-7
# So many classes' logits are in float64 at a time.
_CLASSES = 1024
# To choose the ridge, more classes than this are summed up into so many numbers.
_SUMS = 128
# The crops of random views, as networks were trained on, but from larger parts: each is to show the whole object.
_AREA = (0.35, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_VIEWS_IN_BATCH = 32


@dataclass(frozen=True)
class AffineFit:
    """logits = weights @ pooled + bias, as well as an affine map can.

    Attributes:
        weights: [K,C] float32.
        bias: [K] float32.
        ridge: the penalty on the squared weights of features that are scaled to deviation 1, which was chosen.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    ridge: float


@dataclass(frozen=True)
class Agreement:
    """How near new logits [n,K] are to old ones.

    What is the same for all classes of an image changes no answer, so each image's mean over the classes is subtracted
    first. Where there is one class, it is its mean over the images.

    Attributes:
        top1: the part of the images for which both have the same best class, 0..1; of one class, the same sign.
        correlation: Pearson's, over all images and classes, -1..1; 0 where the old or the new logits are all the same.
        relative_error: |new - old| / |old|, Frobenius norms; infinite where the old logits are all the same and the new
            are not.
    """

    top1: float
    correlation: float
    relative_error: float


def fit_affine(pooled: _Floats, logits: _Floats, images: NDArray[np.integer[Any]] | None = None) -> AffineFit:
    """Fit logits to pooled features by ridge regression with an intercept that is not penalised.

    The features are scaled to mean 0 and deviation 1. The ridge r minimises the error of leave-one-image-out cross-
    validation, in closed form: with the matrix H(r) that makes the fitted logits of the given ones, the views g of an
    image would be predicted by a fit of all others with the error

        (I - H_gg)^-1 (Y - H Y)_g

    One decomposition of the features serves all r and g. Fewer views than features are allowed; of the many weights
    that then fit, the smallest are taken. A feature that does not change has weights 0.

    Allen, "The relationship between variable selection and data augmentation and a method for prediction", 1974.
    Generalised cross-validation (Golub, Heath and Wahba 1979) would be cheaper, but takes all leverages for equal, and
    those of an image's views are far from it.

    Args:
        pooled: [n,C], n at least 2.
        logits: [n,K] of the same views.
        images: [n], which image each is a view of; without it, or of one image alone, each view is left out by itself.

    Raises:
        UsageError: shapes that do not fit, fewer than 2 views, or a value that is no finite number.
    """
    _check(pooled, logits, images)
    classes, channels = logits.shape[1], pooled.shape[1]
    x = np.asarray(pooled, np.float64)
    mean, deviation = x.mean(0), x.std(0)
    varies = deviation > _ROUNDING * np.abs(mean)
    left, singular, right = _decomposed((x[:, varies] - mean[varies]) / deviation[varies])

    ridge = 0.0
    if singular.size:
        ridge = _best_ridge(left, singular, _sketch(logits), _groups(len(x), images))
    weights, bias = np.zeros((classes, channels), np.float32), np.empty(classes, np.float32)
    solve = right * (singular / (singular**2 + ridge)) / deviation[varies][:, None]
    for some in _slices(classes):
        y = logits[:, some].astype(np.float64)
        level = y.mean(0)
        found = (solve @ (left.T @ (y - level))).T
        weights[some, varies] = found
        bias[some] = level - found @ mean[varies]
    return AffineFit(weights, bias, ridge)


def agreement(old_logits: _Floats, new_logits: _Floats) -> Agreement:
    """Compare new logits [n,K] with old ones of the same images.

    Raises:
        UsageError: shapes that differ or have no images, or a value that is no finite number.
    """
    if old_logits.shape != new_logits.shape or old_logits.ndim != 2 or 0 in old_logits.shape:
        raise UsageError(f"got logits of shapes {old_logits.shape} and {new_logits.shape}; expected [n,K] twice.")
    old, new = np.asarray(old_logits, np.float64), np.asarray(new_logits, np.float64)
    _check_finite(old, "the old logits")
    _check_finite(new, "the new logits")
    one = old.shape[1] == 1
    same = (old > 0) == (new > 0) if one else old.argmax(1) == new.argmax(1)
    axis = 0 if one else 1
    old, new = old - old.mean(axis, keepdims=True), new - new.mean(axis, keepdims=True)
    norm, other, apart = (float(np.linalg.norm(each)) for each in (old, new, new - old))
    correlation = float(np.vdot(old, new)) / (norm * other) if norm and other else 0.0
    return Agreement(float(same.mean()), correlation, apart / norm if norm else math.inf if apart else 0.0)


def calibration_views(
    frames: Iterable[Frame], preprocessing: Preprocessing, per_image: int, seed: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Views of photographs for a network, in batches: the frames are read one after the other, none is kept.

    A frame's first view is what `gapcam.preprocess` makes of it. The others are random resized crops (35 to 100 % of
    its area, 3/4 to 4/3 of the input's aspect ratio), mirrored in half of the cases. The same seed gives the same views
    of the i-th frame, whatever the other frames and however many views.

    Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6, on such crops.

    Args:
        frames: each H x W x 3 uint8 BGR.
        preprocessing: of the network; what is said of `embedded` is ignored.
        per_image: views of each frame, at least 1.
        seed: of the random numbers, at least 0.

    Yields:
        Views [n,3,H,W] float32, n at most 32, and of which frame each is, [n] from 0. Frames come in order, a frame's
        views one after the other; a batch may end between them.

    Raises:
        UsageError: `per_image` or `seed` is out of its range.
        FrameError: a frame has another dtype or layout.
    """
    if per_image < 1 or seed < 0:
        raise UsageError(f"got {per_image} views an image and seed {seed}; expected at least 1 and 0.")
    plain = msgspec.structs.replace(preprocessing, embedded=False)
    views: list[NDArray[np.float32]] = []
    indices: list[int] = []
    for index, frame in enumerate(frames):
        check_frame(frame)
        random = np.random.default_rng([seed, index])
        for view in range(per_image):
            views.append(_view(frame, plain, random) if view else _input(frame, plain))
            indices.append(index)
            if len(views) == _VIEWS_IN_BATCH:
                yield np.stack(views), np.array(indices)
                views, indices = [], []
    if views:
        yield np.stack(views), np.array(indices)


def split(images: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images to fit on and which to measure on, so that no image is in both, by any of its views.

    Args:
        images: their number, at least 2.
        fraction: of the images to measure on, in (0, 1); at least one image is on each side.
        seed: of the random order.

    Returns:
        The indices of the images to fit on and of those to measure on, each in ascending order.

    Raises:
        UsageError: an argument is out of its range.
    """
    if images < 2 or not 0 < fraction < 1 or seed < 0:
        raise UsageError(
            f"got {images} images, fraction {fraction} and seed {seed}; expected at least 2 images, a fraction between "
            "0 and 1, and a seed of at least 0."
        )
    held_out = min(max(round(images * fraction), 1), images - 1)
    order = np.random.default_rng(seed).permutation(images)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _decomposed(x: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """The singular values [r] of [n,C], without those that are rounding, with left vectors [n,r] and right ones [C,r].

    From the smaller of the two products of x with itself: several times as fast as LAPACK's decomposition of x, and
    float32 features have no singular values that squaring them in float64 loses.
    """
    tall = len(x) >= x.shape[1]
    squares, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    kept = squares > _ROUNDING**2 * squares.max(initial=0.0)
    singular, vectors = np.sqrt(squares[kept]), vectors[:, kept]
    others = (x @ vectors if tall else x.T @ vectors) / singular
    return (others, singular, vectors) if tall else (vectors, singular, others)


def _sketch(logits: _Floats) -> _Floats:
    """Centred logits [n,q] with the same lengths, of differences too: of many classes, some sums with random signs.

    Johnson and Lindenstrauss 1984, Achlioptas 2003.
    """
    classes = logits.shape[1]
    if classes <= _SUMS:
        y = logits.astype(np.float64)
        return np.asarray(y - y.mean(0))
    random = np.random.default_rng(0)
    sums = np.zeros((len(logits), _SUMS))
    for some in _slices(classes):
        y = logits[:, some].astype(np.float64)
        sums += (y - y.mean(0)) @ random.choice((-1.0, 1.0), (y.shape[1], _SUMS))
    return sums / math.sqrt(_SUMS)


def _groups(views: int, images: NDArray[np.integer[Any]] | None) -> list[NDArray[np.int64]]:
    """Which views are left out together, as arrays [groups,views in each]: one array for each number of views."""
    image = np.arange(views) if images is None or len(np.unique(images)) == 1 else images
    _, which, counts = np.unique(image, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    starts = np.cumsum(counts) - counts
    return [order[starts[counts == count][:, None] + np.arange(count)] for count in np.unique(counts)]


def _best_ridge(left: _Floats, singular: _Floats, y: _Floats, groups: list[NDArray[np.int64]]) -> float:
    """The candidate with the least error on what is left out.

    Args:
        left: [n,r] vectors.
        singular: [r] values.
        y: [n,q], centred.
        groups: of `_groups`.
    """
    projected = left.T @ y
    outside = y - left @ projected
    squares = singular**2
    errors = []
    ridges = _RIDGES * squares.max()
    for ridge in ridges:
        rest = ridge / (squares + ridge)  # what the fit leaves of each direction
        residual = outside + left @ (rest[:, None] * projected)
        error = 0.0
        for group in groups:
            part = left[group]
            hat = (part * (1 - rest)) @ part.transpose(0, 2, 1) + 1 / len(y)
            error += float(np.square(np.linalg.solve(np.eye(group.shape[1]) - hat, residual[group])).sum())
        errors.append(error)
    return float(ridges[np.argmin(errors)])


def _input(frame: Frame, preprocessing: Preprocessing) -> NDArray[np.float32]:
    return preprocess(frame, preprocessing).astype(np.float32, copy=False)


def _view(frame: Frame, preprocessing: Preprocessing, random: np.random.Generator) -> NDArray[np.float32]:
    """One random resized crop."""
    rows, columns = frame.shape[:2]
    height, width = preprocessing.size
    area = rows * columns * random.uniform(*_AREA)
    aspect = width / height * math.exp(random.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
    crop_rows = min(max(round(math.sqrt(area / aspect)), 1), rows)
    crop_columns = min(max(round(math.sqrt(area * aspect)), 1), columns)
    top = int(random.integers(rows - crop_rows + 1))
    left = int(random.integers(columns - crop_columns + 1))
    crop = frame[top : top + crop_rows, left : left + crop_columns]
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    return _input(np.ascontiguousarray(crop), msgspec.structs.replace(preprocessing, resize="squash"))


def _slices(classes: int) -> Iterator[slice]:
    return (slice(begin, min(begin + _CLASSES, classes)) for begin in range(0, classes, _CLASSES))


def _check(pooled: _Floats, logits: _Floats, images: NDArray[np.integer[Any]] | None) -> None:
    if pooled.ndim != 2 or logits.ndim != 2 or len(pooled) != len(logits) or 0 in (*pooled.shape, *logits.shape):
        raise UsageError(f"got pooled features {pooled.shape} and logits {logits.shape}; expected [n,C] and [n,K].")
    if len(pooled) < 2:
        raise UsageError("got one view of one image; a fit needs at least 2, and more than C to be good.")
    if images is not None and images.shape != (len(pooled),):
        raise UsageError(f"got images {images.shape} for {len(pooled)} views; expected one number a view.")
    _check_finite(pooled, "the pooled features")
    _check_finite(logits, "the old logits")


def _check_finite(values: _Floats, what: str) -> None:
    if not np.isfinite(values).all():
        raise UsageError(f"{what} are not all finite numbers; does the network overflow on this input?")
