"""A resize as some halvings and two tables of weights, one a side: what `gapcam.preprocessing` does in steps.

    out[y, x] = share * sum_i sum_j  w_y[i] w_x[j] image[first_y + i, first_x + j]

Area averaging and interpolation are separable and linear, so that both sides' are one sum. Halvings come before it and
round to uint8, as OpenCV's do. Weights are OpenCV's, in float64; where a side grows, OpenCV's own have 11 bits, and
where the other shrinks, it rounds to uint8 between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapcam.contract import Interpolation

_AREA_SLIVER = 1e-3  # OpenCV leaves out what covers less of a pixel (computeResizeAreaTab)
_CUBIC_A = -0.75  # OpenCV's, of Keys 1981
_TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4, "lanczos": 8}


MOST_HALVINGS = 2
"""That the kernel does: kMostHalvings of kernels.cu. Further ones are in the tables, unrounded."""


@dataclass(frozen=True, slots=True)
class Windows:
    """For each sample of a side's output, the stretch of the source that it is a weighted sum of.

    Attributes:
        first: [n] int32, index of the stretch's first pixel.
        count: [n] int32, how many pixels it has, at least one.
        weights: [n,max(count)] float64; 0 where a stretch is shorter.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weights: NDArray[np.float64]

    def matrix(self, source: int) -> NDArray[np.float64]:
        """As [n,source], to multiply with: for tests, and to look at."""
        matrix = np.zeros((len(self.first), source))
        for row, first, count, weights in zip(matrix, self.first, self.count, self.weights, strict=True):
            row[first : first + count] = weights[:count]
        return matrix


@dataclass(frozen=True, slots=True)
class Resampling:
    """A resize.

    Attributes:
        halvings: how often the source is halved, both ways, before it is summed: means of 2 x 2, (sum + 2) >> 2.
        rows: windows of what is left.
        columns: the same.
        share: the factor of the sum. Where both sides shrink by whole numbers all weights are 1, and it is one over the
            pixels that are averaged: so OpenCV rounds once, and ties go to the even.
    """

    halvings: int
    rows: Windows
    columns: Windows
    share: float


def resampling(source: tuple[int, int], target: tuple[int, int], interpolation: Interpolation) -> Resampling:
    """The halvings and the tables of rows and columns for a resize, as `gapcam.preprocessing` does it.

    Sides that shrink are averaged by area, after as many halvings of both sides as go without a rest; sides that grow
    are interpolated as named, with half-pixel centres. "nearest" picks pixels, whatever the size.

    Args:
        source: (height, width) in pixels.
        target: the same.
        interpolation: of the model's preprocessing.
    """
    height, width = source
    halvings = 0
    if interpolation != "nearest":
        while height % 2 == width % 2 == 0 and height >= 4 * target[0] and width >= 4 * target[1]:
            height, width, halvings = height // 2, width // 2, halvings + 1
        if (height, width) == (2 * target[0], 2 * target[1]):  # cv2.INTER_AREA rounds this average so, too
            height, width, halvings = height // 2, width // 2, halvings + 1
    rows = _side(height, target[0], interpolation)
    columns = _side(width, target[1], interpolation)
    share = 1.0
    if interpolation != "nearest" and _is_whole(height, target[0]) and _is_whole(width, target[1]):
        share = 1 / float(rows.count[0] * columns.count[0])
        rows, columns = _unweighted(rows), _unweighted(columns)
    unrounded = max(halvings - MOST_HALVINGS, 0)
    return Resampling(halvings - unrounded, _halved(rows, unrounded), _halved(columns, unrounded), share)


def _is_whole(source: int, target: int) -> bool:
    """Whether OpenCV finds that a side shrinks by a whole number, or not at all, as it reckons."""
    scale = 1 / (target / source)
    return source >= target and abs(scale - round(scale)) < float(np.finfo(np.float64).eps)


def _unweighted(side: Windows) -> Windows:
    return Windows(side.first, side.count, np.ones_like(side.weights))


def _side(source: int, target: int, interpolation: Interpolation) -> Windows:
    if source == target:
        return Windows(np.arange(target, dtype=np.int32), np.ones(target, np.int32), np.ones((target, 1)))
    if interpolation != "nearest" and source > target:
        return _area(source, target)
    return _interpolated(source, target, interpolation)


def _area(source: int, target: int) -> Windows:
    """cv2.INTER_AREA where a side shrinks: each output is the mean of what it covers, parts of pixels included."""
    scale = 1 / (target / source)  # as OpenCV rounds it
    start = np.arange(target) * scale
    end = start + scale
    covered = np.minimum(scale, source - start)
    last = np.minimum(np.floor(end).astype(np.int64), source - 1)
    whole = np.minimum(np.ceil(start).astype(np.int64), last)  # the first pixel that is covered wholly
    before, after = whole - start, end - last
    first = whole - (before > _AREA_SLIVER)
    count = last + (after > _AREA_SLIVER) - first
    pixels = first[:, None] + np.arange(count.max())
    weights = np.where((pixels >= whole[:, None]) & (pixels < last[:, None]), 1.0, 0.0)
    weights += np.where(pixels == whole[:, None] - 1, before[:, None], 0.0)
    weights += np.where(pixels == last[:, None], np.minimum(np.minimum(after, 1), covered)[:, None], 0.0)
    weights[np.arange(count.max()) >= count[:, None]] = 0
    return Windows(first.astype(np.int32), count.astype(np.int32), weights / covered[:, None])


def _interpolated(source: int, target: int, interpolation: Interpolation) -> Windows:
    """cv2.INTER_NEAREST, and _LINEAR, _CUBIC or _LANCZOS4 where a side grows. Pixels beyond the border repeat it."""
    scale = 1 / (target / source)
    taps = _TAPS[interpolation]
    if interpolation == "nearest":
        pixels = np.floor(np.arange(target) * scale).astype(np.int64)[:, None]
        weights = np.ones((target, 1))
    else:
        centre = (np.arange(target) + 0.5) * scale - 0.5
        left = np.floor(centre)
        weights = _KERNELS[interpolation](centre - left)
        pixels = left.astype(np.int64)[:, None] + np.arange(taps) - (taps // 2 - 1)
    pixels = np.clip(pixels, 0, source - 1)
    first = pixels[:, 0]
    count = pixels[:, -1] - first + 1
    gathered = np.zeros((target, count.max()))
    np.add.at(gathered, (np.arange(target)[:, None], pixels - first[:, None]), weights)
    return Windows(first.astype(np.int32), count.astype(np.int32), gathered)


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([1 - x, x], axis=1)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    a = _CUBIC_A
    outer, left, right = x + 1, x, 1 - x
    first = ((a * outer - 5 * a) * outer + 8 * a) * outer - 4 * a
    second = ((a + 2) * left - (a + 3)) * left * left + 1
    third = ((a + 2) * right - (a + 3)) * right * right + 1
    return np.stack([first, second, third, 1 - first - second - third], axis=1)


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lanczos' window of 4 pixels to either side, normalised to a sum of 1."""
    distance = x[:, None] + 3 - np.arange(8)
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


_KERNELS = {"bilinear": _linear, "bicubic": _cubic, "lanczos": _lanczos}
"""Weights of the pixels around a position, of which the middle two enclose it, for its distance from the left one."""


def _halved(side: Windows, halvings: int) -> Windows:
    """A table for the source before it was halved: each weight is shared by 2^halvings pixels."""
    block = 1 << halvings
    return Windows(side.first * block, side.count * block, np.repeat(side.weights, block, axis=1) / block)
