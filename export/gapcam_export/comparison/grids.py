"""Two maps brought to one grid, so that they can be compared cell by cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gapcam.cam import FloatArray
from gapcam.geometry import Placement, Rect
from gapcam_export.comparison.answers import Answer


def on_one_grid(reference: Answer, other: Answer) -> tuple[FloatArray, FloatArray] | None:
    """The maps of two answers to the same frame, on the same grid.

    Where both maps have as many cells and these lie on the same parts of the frame, the maps as they are. Else both
    are interpolated (bilinear, half-pixel centres, as `gapcam.upsample` does it) at the pixels of the reference's input
    that show a part of the frame that both networks see.

    Returns:
        Two arrays of one shape, [h,w] or [rows,columns] of input pixels; None where one of the two has no map, or where
        the networks see no common part.
    """
    if reference.map is None or other.map is None:
        return None
    if reference.map.shape == other.map.shape and _same_view(reference, other):
        return reference.map, other.map
    common = _intersection(reference.placement.frame_rect, other.placement.frame_rect)
    x, y = _pixel_centres(reference.placement, common)
    if not len(x) or not len(y):
        return None
    return _sampled(reference.map, reference, x, y), _sampled(other.map, other, x, y)


def _same_view(a: Answer, b: Answer) -> bool:
    """Whether the corners of both inputs lie at the same points of the frame."""
    return np.allclose(_corners(a), _corners(b), rtol=0, atol=1e-6)


def _corners(it: Answer) -> NDArray[np.float64]:
    height, width = it.input_size
    return np.array([it.placement.to_frame(0, 0), it.placement.to_frame(width, height)])


def _intersection(a: Rect, b: Rect) -> Rect:
    left, top = max(a.x, b.x), max(a.y, b.y)
    right, bottom = min(a.x + a.width, b.x + b.width), min(a.y + a.height, b.y + b.height)
    return Rect(left, top, max(right - left, 0), max(bottom - top, 0))


def _pixel_centres(placement: Placement, part: Rect) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centres of the input's pixels that lie in a part of the frame: their x and y, in frame pixels."""
    rect = placement.input_rect
    x = np.array([placement.to_frame(column + 0.5, 0)[0] for column in range(rect.x, rect.x + rect.width)])
    y = np.array([placement.to_frame(0, row + 0.5)[1] for row in range(rect.y, rect.y + rect.height)])
    return (
        x[(x >= part.x) & (x <= part.x + part.width)],
        y[(y >= part.y) & (y <= part.y + part.height)],
    )


def _sampled(raw: FloatArray, it: Answer, x: NDArray[np.float64], y: NDArray[np.float64]) -> FloatArray:
    """A map at the crossings of columns x and rows y of the frame."""
    height, width = it.input_size
    columns = np.array([it.placement.to_input(at, 0)[0] for at in x]) / width
    rows = np.array([it.placement.to_input(0, at)[1] for at in y]) / height
    down, across = _weights(rows, raw.shape[0]), _weights(columns, raw.shape[1])
    return np.asarray(down @ raw.astype(np.float64) @ across.T, np.float32)


def _weights(places: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """[n,cells]: how much of each cell a bilinear interpolation takes at n places in [0, 1].

    Beyond the outer cells' centres it takes those alone.
    """
    at = np.clip(places * cells - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))))
