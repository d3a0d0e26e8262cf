"""A box on a frame."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """An axis-aligned box, half-open, in pixels: it covers x0 <= x < x1 and y0 <= y < y1.

    x grows to the right and y downwards, from the frame's top left corner. A box over the whole of a frame of width
    W and height H is Box(0, 0, W, H). The numbers are not rounded: an input pixel is seldom a whole number of frame
    pixels.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def area(self) -> float:
        """In square pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def to_list(self) -> list[float]:
        """[x0, y0, x1, y1] to a hundredth of a pixel, ready for JSON."""
        return [round(side, 2) for side in self]
