"""Parts of the frame that boxes come into and go out of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Literal, TypeAlias, get_args

from gapcam.box import Box
from gapcam.camera.hysteresis import LIMIT_OPTIONS, HysteresisLimits
from gapcam.camera.option_text import number_from_text, split_options
from gapcam.errors import UsageError

Point: TypeAlias = "tuple[float, float]"
ZoneMeasure: TypeAlias = Literal["area", "centre"]

_FORM = "NAME=X0,Y0,X1,Y1, or NAME=X,Y,X,Y,X,Y,... for a polygon, in parts of the frame from 0 to 1"


@dataclass(frozen=True, slots=True)
class Zone:
    """A polygon on the frame. A class's box enters it, and leaves it, by the part of the box that is inside.

    Attributes:
        name: for people and events.
        corners: three or more (x, y) in order, in parts of the frame's width and height, in [0, 1], from the top left.
            Its sides do not cross.
        enter: part of the box from which it is inside, in (0, 1].
        leave: part below which it is outside, in (0, enter]; None for 60 % of `enter`.
        enter_s: seconds for which it must have been inside without a break.
        leave_s: seconds for which it must have been outside without a break.
        by: "area", of the box; or "centre": the part is 1 where the box's centre is in the zone, else 0. For zones that
            are smaller than what comes into them.

    Raises:
        UsageError: the name is empty, the polygon none, or a value out of its range.
    """

    name: str
    corners: tuple[Point, ...]
    enter: float = 0.5
    leave: float | None = None
    enter_s: float = 0.3
    leave_s: float = 1.0
    by: ZoneMeasure = "area"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(f"a zone's name is {self.name!r}; give it a name")
        if self.by not in get_args(ZoneMeasure):
            raise UsageError(
                f"the zone {self.name!r} goes by {self.by!r}; give one of {', '.join(get_args(ZoneMeasure))}"
            )
        try:
            corners = tuple((float(x), float(y)) for x, y in self.corners)
        except (TypeError, ValueError):
            raise UsageError(f"the zone {self.name!r} has the corners {self.corners!r}; give pairs (x, y)") from None
        if any(not (isfinite(side) and 0 <= side <= 1) for corner in corners for side in corner):
            raise UsageError(f"the zone {self.name!r} has a corner outside the frame; give parts of it, from 0 to 1")
        if _crosses_itself(corners):
            raise UsageError(f"the sides of the zone {self.name!r} cross; give its corners in order around it")
        if len(corners) < 3 or _area(corners) < 1e-6:
            raise UsageError(f"the zone {self.name!r} covers nothing; give three corners or more around an area")
        object.__setattr__(self, "corners", corners)
        try:
            _ = self.limits
        except UsageError as error:
            raise UsageError(f"the zone {self.name!r}: {error}") from None

    @property
    def limits(self) -> HysteresisLimits:
        """Of the part of the box that is inside."""
        return HysteresisLimits.of(self.enter, self.leave, self.enter_s, self.leave_s)

    def part_inside(self, box: Box, width: int, height: int) -> float:
        """How much of a box is in the zone.

        Args:
            box: in the frame's pixels.
            width: of the frame in pixels.
            height: likewise.

        Returns:
            In [0, 1]. 0 of a box without an area.
        """
        on_frame = Box(box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height)
        if on_frame.area <= 0:
            return 0.0
        if self.by == "centre":
            return float(_contains(self.corners, (on_frame.x0 + on_frame.x1) / 2, (on_frame.y0 + on_frame.y1) / 2))
        return min(_area(_clipped(self.corners, on_frame)) / on_frame.area, 1.0)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> tuple[Point, ...]:
    """The corners of an upright rectangle, given by two opposite ones."""
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def zone_from_text(text: str) -> Zone:
    """A zone as the command line has it: NAME=X0,Y0,X1,Y1[:OPTION=VALUE,...], or with three corners or more.

    Args:
        text: in parts of the frame. Options: "enter" and "leave", parts of the box; "for" and "gone", seconds; "by".

    Raises:
        UsageError: it is none; the message says what is wrong.

    Example:
        >>> zone_from_text("door=0.1,0.2,0.5,0.9").corners
        ((0.1, 0.2), (0.5, 0.2), (0.5, 0.9), (0.1, 0.9))
    """
    where = f"the zone {text!r}"
    head, pairs = split_options(text)
    name, equals, numbers = head.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{where} is none; give {_FORM}")
    sides = [number_from_text(number, f"a corner of {where}") for number in numbers.split(",")]
    if len(sides) == 4:
        corners = rectangle(*sides)
    elif len(sides) >= 6 and len(sides) % 2 == 0:
        corners = tuple(zip(sides[::2], sides[1::2], strict=True))
    else:
        raise UsageError(f"{where} has {len(sides)} numbers; give {_FORM}")
    values: dict[str, float] = {}
    by: ZoneMeasure = "area"
    for key, value in pairs:
        if key == "by":
            by = value  # type: ignore[assignment]  # checked by Zone
        elif key not in LIMIT_OPTIONS:
            raise UsageError(f"{where} has an option {key!r}; give one of {', '.join([*LIMIT_OPTIONS, 'by'])}")
        elif LIMIT_OPTIONS[key] in values:
            raise UsageError(f"{where} has {key!r} twice; give it once")
        else:
            values[LIMIT_OPTIONS[key]] = number_from_text(value, f"{key!r} of {where}")
    return Zone(name.strip(), corners, by=by, **values)


def _area(corners: Sequence[Point]) -> float:
    """Of a polygon, by Gauss's trapezium formula."""
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in _sides(corners))) / 2


def _sides(corners: Sequence[Point]) -> list[tuple[Point, Point]]:
    return list(pairwise([*corners, *corners[:1]]))


def _clipped(corners: Sequence[Point], box: Box) -> list[Point]:
    """A polygon's part in a box (Sutherland and Hodgman 1974, "Reentrant polygon clipping").

    Where it falls apart, its parts hang together by lines along the box's sides, which have no area.
    """
    inside: list[Point] = list(corners)
    for axis, side, sign in ((0, box.x0, 1), (0, box.x1, -1), (1, box.y0, 1), (1, box.y1, -1)):
        kept: list[Point] = []
        for first, second in _sides(inside):
            first_in, second_in = (sign * (point[axis] - side) >= 0 for point in (first, second))
            if first_in:
                kept.append(first)
            if first_in != second_in:
                part = (side - first[axis]) / (second[axis] - first[axis])
                kept.append((first[0] + part * (second[0] - first[0]), first[1] + part * (second[1] - first[1])))
        inside = kept
    return inside


def _contains(corners: Sequence[Point], x: float, y: float) -> bool:
    """Whether a point is in a polygon: a ray to the right crosses its sides an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in _sides(corners):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def _crosses_itself(corners: Sequence[Point]) -> bool:
    sides = _sides(corners)
    return any(
        _cross(*sides[first], *sides[second])
        for first in range(len(sides))
        for second in range(first + 2, len(sides))
        if (first, second) != (0, len(sides) - 1)  # neighbours share a corner
    )


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two segments cross between their ends."""

    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0
