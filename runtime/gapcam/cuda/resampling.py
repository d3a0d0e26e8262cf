"""A resize as two tables of weights, one a side: what `gapcam.preprocessing` does in steps, as one weighted sum.

    out[y, x] = sum_i sum_j  w_y[i] w_x[j] source[first_y + i, first_x + j]

Halving, area averaging and interpolation are all separable and linear, so that a chain of them is one table. Weights
are OpenCV's, in float64, where its uint8 images take fixed-point ones of 11 bits and round to uint8 after each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapcam.contract import Interpolation

_AREA_SLIVER = 1e-3  # OpenCV leaves out what covers less of a pixel (computeResizeAreaTab)
_CUBIC_A = -0.75  # OpenCV's, of Keys 1981
_TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4, "lanczos": 8}


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


def resampling(
    source: tuple[int, int], target: tuple[int, int], interpolation: Interpolation
) -> tuple[Windows, Windows]:
    """The tables of rows and columns for a resize, as `gapcam.preprocessing` does it.

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
    rows, columns = (
        _halved(_side(source, target, interpolation), halvings)
        for source, target in ((height, target[0]), (width, target[1]))
    )
    return rows, columns


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
