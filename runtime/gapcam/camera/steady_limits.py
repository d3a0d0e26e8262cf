"""Ends of the colours that follow a class's maps slowly, so that a video does not flicker.

With each frame's own least and greatest value, one cell that changes changes the whole picture. Here red is the
greatest value of the last while: it rises at once, so that nothing is clipped, and falls towards the present greatest
value with a time constant of many seconds. Blue is 0, no evidence for the class; only where all of the map is above
that, as some networks have it, the least value of the last while.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from gapcam.cam import FloatArray
from gapcam.camera.smoothing import weight_of_newest
from gapcam.geometry import Placement

FOLLOW_S = 10.0
"""Time constant with which the limits come nearer to each other."""
_LEAST_SPAN = 1e-6
_LEAST_RELATIVE_SPAN = 1e-5
"""A map that differs by less is flat but for the arithmetic's errors: all of it is blue."""


@dataclass(slots=True)
class _Extremes:
    least: float
    greatest: float
    at: float

    @property
    def limits(self) -> tuple[float, float]:
        low = max(self.least, 0.0)
        return low, max(self.greatest, low + max(_LEAST_SPAN, low * _LEAST_RELATIVE_SPAN))


class SteadyLimits:
    """Of the classes of one source."""

    def __init__(self) -> None:
        self._extremes: dict[int, _Extremes] = {}

    def update(self, index: int, seen: FloatArray, at: float) -> None:
        """Take a class's map.

        Args:
            index: of the class.
            seen: [h,w] float32, in the logits' unit: what of it will be drawn, see `seen_cells`.
            at: its moment in seconds, no earlier than the one before.
        """
        least, greatest = float(seen.min()), float(seen.max())
        extremes = self._extremes.setdefault(index, _Extremes(least, greatest, at))
        weight = weight_of_newest(at - extremes.at, FOLLOW_S)
        extremes.least = min(least, extremes.least + weight * (least - extremes.least))
        extremes.greatest = max(greatest, extremes.greatest + weight * (greatest - extremes.greatest))
        extremes.at = at

    def of(self, index: int) -> tuple[float, float]:
        """(low, high) in the logits' unit, low < high, of a class that had a map."""
        return self._extremes[index].limits


def seen_cells(raw: FloatArray, input_size: tuple[int, int], placement: Placement) -> FloatArray:
    """The cells of a map that a picture of it is made of: those on a letterbox's bars are left out.

    Args:
        raw: [h,w], a class activation map.
        input_size: (H, W) of the network's input.
        placement: of the frame in that input.

    Returns:
        A view of `raw`.
    """
    (left, top, width, height), (input_height, input_width) = placement.input_rect, input_size
    rows = _cells(top, height, raw.shape[0] / input_height, raw.shape[0])
    columns = _cells(left, width, raw.shape[1] / input_width, raw.shape[1])
    return raw[rows, columns]


def _cells(first: int, count: int, scale: float, cells: int) -> slice:
    """Those that bilinear upsampling with half-pixel centres reads for these pixels."""
    return slice(max(floor((first + 0.5) * scale - 0.5), 0), min(ceil((first + count - 0.5) * scale - 0.5) + 1, cells))
