"""Where the network's input lies on the frame, and back.

    frame pixels  --Placement-->  input pixels

A frame reaches the network through one of three resizes; each is described by two integer rectangles, the part of
the frame that the network sees and where that part lies in the input tensor. Points and boxes are mapped linearly
between the two, so that one formula serves all resizes.

Coordinates are continuous, in pixels: pixel (i, j) covers [j, j+1) x [i, i+1), and its centre is (j+0.5, i+0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gapcam.box import Box
from gapcam.contract import Preprocessing
from gapcam.errors import UsageError


class Rect(NamedTuple):
    """An integer rectangle in pixels: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        """The rows it covers, to index an array with."""
        return slice(self.y, self.y + self.height)

    @property
    def columns(self) -> slice:
        """The columns it covers, to index an array with."""
        return slice(self.x, self.x + self.width)


@dataclass(frozen=True, slots=True)
class Placement:
    """How a frame lies in the network's input.

    Attributes:
        frame_rect: the part of the frame that the network sees, in frame pixels.
        input_rect: where that part lies in the input tensor, in input pixels; what is outside is padding.

    Example:
        >>> from gapcam import Preprocessing
        >>> place((100, 200), Preprocessing(size=(50, 50), resize="letterbox"))
        Placement(frame_rect=Rect(x=0, y=0, width=200, height=100), input_rect=Rect(x=0, y=12, width=50, height=25))
    """

    frame_rect: Rect
    input_rect: Rect

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """The point of the input at which the point (x, y) of the frame lies; it may lie outside the input."""
        return _map_point(x, y, self.frame_rect, self.input_rect)

    def to_frame(self, x: float, y: float) -> tuple[float, float]:
        """The point of the frame that lies at the point (x, y) of the input; it may lie outside the frame."""
        return _map_point(x, y, self.input_rect, self.frame_rect)

    def box_to_input(self, box: Box) -> Box:
        """A box of the frame in input coordinates, not clipped."""
        return Box(*self.to_input(box.x0, box.y0), *self.to_input(box.x1, box.y1))

    def box_to_frame(self, box: Box) -> Box:
        """A box of the input in frame coordinates, clipped to the part of the frame that the network sees."""
        x0, y0 = self.to_frame(box.x0, box.y0)
        x1, y1 = self.to_frame(box.x1, box.y1)
        left, top, width, height = self.frame_rect
        right, bottom = left + width, top + height
        return Box(_clip(x0, left, right), _clip(y0, top, bottom), _clip(x1, left, right), _clip(y1, top, bottom))


def place(frame_size: tuple[int, int], preprocessing: Preprocessing) -> Placement:
    """Where a frame lies in the network's input.

    Args:
        frame_size: (height, width) of the frame in pixels.
        preprocessing: of the model; its `size`, `resize` and `crop_pct` are used.

    Raises:
        UsageError: a side of the frame is less than 1 pixel.
    """
    frame_height, frame_width = frame_size
    input_height, input_width = preprocessing.size
    if min(frame_size) < 1:
        raise UsageError(f"a frame of height {frame_height} and width {frame_width} has no pixels; give one that has")
    frame = Rect(0, 0, frame_width, frame_height)
    tensor = Rect(0, 0, input_width, input_height)
    if preprocessing.resize == "crop":
        # The largest centred rectangle with the tensor's aspect ratio touches two opposite sides of the frame.
        scale = min(frame_width / input_width, frame_height / input_height) * preprocessing.crop_pct
        return Placement(_centred(scale * input_width, scale * input_height, frame), tensor)
    if preprocessing.resize == "letterbox":
        scale = min(input_width / frame_width, input_height / frame_height)
        return Placement(frame, _centred(scale * frame_width, scale * frame_height, tensor))
    return Placement(frame, tensor)


def _centred(width: float, height: float, outer: Rect) -> Rect:
    """The rectangle of about this size, at least one pixel, in the centre of another."""
    inner_width = min(max(round(width), 1), outer.width)
    inner_height = min(max(round(height), 1), outer.height)
    return Rect((outer.width - inner_width) // 2, (outer.height - inner_height) // 2, inner_width, inner_height)


def _map_point(x: float, y: float, source: Rect, target: Rect) -> tuple[float, float]:
    return (
        target.x + (x - source.x) * target.width / source.width,
        target.y + (y - source.y) * target.height / source.height,
    )


def _clip(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))
