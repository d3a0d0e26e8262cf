"""Where bilinear samples with half-pixel centres lie, as `cv2.resize` has them: tables for the kernels.

Along each side on its own: m samples over n cells, sample x at (x + 0.5) n / m - 0.5 cells, that is between the cell
below and the next one. A sample before the first cell's centre has that cell's value, one behind the last cell's
centre that one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL_STEPS = 256
"""A sample's place between two cells in INTER_LINEAR_EXACT: in steps of 1/256."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """m samples over n cells.

    Attributes:
        cells: [m] int32, the cell before each sample, 0 to n - 1. The other one is the next, or itself if it is the
            last.
        fractions: [m] float32 in [0, 1), the next cell's weight, as INTER_LINEAR has it.
        steps: [m] int32, the same in steps of 1/256, 0 to 256, as INTER_LINEAR_EXACT has it.
    """

    cells: NDArray[np.int32]
    fractions: NDArray[np.float32]
    steps: NDArray[np.int32]


def samples(cells: int, count: int) -> Samples:
    """`count` samples over so many cells."""
    places = (np.arange(count) + 0.5) * (1 / (count / cells)) - 0.5
    # INTER_LINEAR goes on in float32, INTER_LINEAR_EXACT in float64. The cell is the same: where rounding lifts a place
    # to the next cell, its fraction is 0 there and 1 here.
    narrow = places.astype(np.float32)
    before = np.floor(narrow)
    inside = (before >= 0) & (before < cells - 1)
    fractions = np.where(inside, narrow - before, np.float32(0))
    index = np.clip(before, 0, cells - 1).astype(np.int32)
    return Samples(index, fractions.astype(np.float32), _steps(places, index, inside))


def _steps(places: NDArray[np.floating[Any]], index: NDArray[np.int32], inside: NDArray[np.bool_]) -> NDArray[np.int32]:
    steps = np.rint((places - index) * LEVEL_STEPS)
    return np.where(inside, np.clip(steps, 0, LEVEL_STEPS), 0).astype(np.int32)


def spans(cells: int, count: int, first: int, length: int) -> NDArray[np.int32]:
    """Where a bilinear function takes its extremes along one side of a window of samples.

    Between two neighbouring cells the function is linear, so that the least and the greatest of its samples are the
    first and the last. In two dimensions, where it is linear along each side, they are among the four of both sides.

    Args:
        cells: along the side.
        count: of all samples along it.
        first: of the window's samples.
        length: of the window, at least 1.

    Returns:
        [s,4] int32, for each pair of cells that has samples in the window: both cells, and the bits of the float32
        fractions of the first and the last sample.
    """
    every = samples(cells, count)
    index, fractions = every.cells[first : first + length], every.fractions[first : first + length]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    ends = np.append(starts[1:], len(index)) - 1
    table = np.empty((len(starts), 4), np.int32)
    table[:, 0] = index[starts]
    table[:, 1] = np.minimum(index[starts] + 1, cells - 1)
    table[:, 2] = np.minimum(fractions[starts], fractions[ends]).view(np.int32)
    table[:, 3] = np.maximum(fractions[starts], fractions[ends]).view(np.int32)
    return table
