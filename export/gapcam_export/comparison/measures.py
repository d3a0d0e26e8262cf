"""How alike two answers are, figure by figure: pure functions of two logits, two maps, two boxes or two points.

No figure is ever NaN. A flat map (`gapcam.cam.is_flat`) marks nothing: two flat maps agree, a flat one and another do
not. A map that holds NaN or infinity agrees with none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.box import Box
from gapcam.cam import is_flat

Values = NDArray[np.floating[Any]]


def pearson(a: Values, b: Values) -> float:
    """The linear correlation of two maps of one shape, in [-1, 1].

    r = sum (a - mean a)(b - mean b) / sqrt(sum (a - mean a)^2 sum (b - mean b)^2)

    Scale and offset do not matter. 1 where both are flat, 0 where one is.
    """
    _check_shapes(a, b)
    flat = _agreement_of_flat(a, b)
    return _correlation(a.astype(np.float64), b.astype(np.float64)) if flat is None else flat


def spearman(a: Values, b: Values) -> float:
    """The rank correlation of two maps of one shape, in [-1, 1]: Pearson's of their ranks.

    Equal values share the mean of their ranks. Nothing but the order of a map's cells matters. 1 where both are flat, 0
    where one is.
    """
    _check_shapes(a, b)
    flat = _agreement_of_flat(a, b)
    return _correlation(_ranks(a), _ranks(b)) if flat is None else flat


def box_iou(a: Box | None, b: Box | None) -> float:
    """The intersection of two boxes over their union, in [0, 1]. 1 where there are none, 0 where there is one."""
    if a is None or b is None:
        return 1.0 if a is b else 0.0
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if a == b:  # also where both have no area
        return 1.0
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(min(shared / (a.area + b.area - shared), 1.0))


def peak_shift(a: tuple[float, float] | None, b: tuple[float, float] | None, greatest: float) -> float:
    """The distance between two maps' peaks, in the unit of the points (x, y).

    Args:
        a: None for a flat map, which has no peak.
        b: likewise.
        greatest: what stands for the distance between a peak and none.
    """
    if a is None or b is None:
        return 0.0 if a is b else greatest
    return math.dist(a, b)


def peak_cell(values: Values) -> tuple[int, int] | None:
    """The row and column of a map's greatest value: of several, the upper, then the left one. None for a flat map."""
    if not _is_finite(values) or _is_flat(values):
        return None
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(row), int(column)


def logit_error(reference: Values, other: Values) -> float:
    """max_c |other_c - reference_c| / max_c |reference_c|, from 0.

    Where all of the reference's logits are 0: 0 if the other's are, too, else 1.
    """
    _check_shapes(reference, other)
    wide = reference.astype(np.float64)
    difference, greatest = float(np.abs(other - wide).max()), float(np.abs(wide).max())
    return difference / greatest if greatest else float(difference > 0)


def top_agreement(reference: Values, other: Values, count: int) -> float:
    """The part of the reference's `count` best classes that are among the other's `count` best, in [0, 1].

    Of fewer classes than `count` all are taken. Among equal logits the lower class is the better one.
    """
    _check_shapes(reference, other)
    best = [set(np.argsort(-logits, kind="stable")[:count].tolist()) for logits in (reference, other)]
    return len(best[0] & best[1]) / len(best[0])


def _agreement_of_flat(a: Values, b: Values) -> float | None:
    """The correlation of two maps of which one is not to be computed with; None where both are."""
    if not (_is_finite(a) and _is_finite(b)):
        return 0.0
    flat = _is_flat(a), _is_flat(b)
    if any(flat):
        return 1.0 if all(flat) else 0.0
    return None


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two maps that are not flat. Unit vectors are made first, so that no square overflows."""
    if np.array_equal(a, b):
        return 1.0  # not 1 - 2e-16
    one, other = (_unit(values) for values in (a, b))
    return float(np.clip(one @ other, -1, 1))


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = (values / np.abs(values).max()).ravel()
    centred -= centred.mean()
    return np.asarray(centred / np.linalg.norm(centred))


def _ranks(values: Values) -> NDArray[np.float64]:
    """Of each value, from 1; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place.ravel()])


def _is_finite(values: Values) -> bool:
    return bool(np.isfinite(values).all())


def _is_flat(values: Values) -> bool:
    return is_flat(float(values.min()), float(values.max()))


def _check_shapes(a: Values, b: Values) -> None:
    if a.shape != b.shape:
        raise ValueError(f"got values of shapes {a.shape} and {b.shape}; they are compared one by one")
