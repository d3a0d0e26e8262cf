"""Parts of the frame, and how much of a box is in one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam import Box, UsageError
from gapcam.camera.zones import Zone, rectangle, zone_from_text

part = st.floats(0, 1)
# An L: the left half, and the lower half of the right half.
L_SHAPE = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0))
# A U whose two arms a box across them cuts off.
U_SHAPE = ((0.0, 0.0), (0.2, 0.0), (0.2, 0.8), (0.8, 0.8), (0.8, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


@pytest.mark.parametrize(
    ("corners", "box", "expected"),
    [
        (rectangle(0, 0, 1, 1), Box(10, 10, 30, 30), 1),
        (rectangle(0, 0, 0.5, 1), Box(0, 0, 200, 100), 0.5),
        (rectangle(0.5, 0, 1, 1), Box(0, 0, 100, 100), 0),  # side by side
        (rectangle(0.25, 0.25, 0.75, 0.75), Box(0, 0, 200, 100), 0.25),
        (((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), Box(0, 0, 200, 100), 0.5),
        (((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), Box(100, 50, 200, 100), 0),
        (L_SHAPE, Box(0, 0, 200, 100), 0.75),
        (L_SHAPE, Box(100, 0, 200, 50), 0),
        (L_SHAPE[::-1], Box(50, 25, 150, 75), 0.75),  # the other way round
        (U_SHAPE, Box(0, 0, 200, 40), 0.4),  # falls into two
        (rectangle(0, 0, 1, 1), Box(10, 10, 10, 30), 0),  # without an area
    ],
)
def test_the_part_of_a_box_that_is_inside(corners: tuple[tuple[float, float], ...], box: Box, expected: float) -> None:
    assert Zone("door", corners).part_inside(box, 200, 100) == pytest.approx(expected)


@given(st.tuples(part, part, part, part, part, part, part, part))
def test_of_rectangles_it_is_their_intersection(sides: tuple[float, ...]) -> None:
    (zx0, zx1), (zy0, zy1), (x0, x1), (y0, y1) = (sorted(sides[i : i + 2]) for i in range(0, 8, 2))
    if (zx1 - zx0) * (zy1 - zy0) < 1e-3 or (x1 - x0) * (y1 - y0) < 1e-3:
        return
    common = max(min(zx1, x1) - max(zx0, x0), 0) * max(min(zy1, y1) - max(zy0, y0), 0)
    found = Zone("door", rectangle(zx0, zy0, zx1, zy1)).part_inside(
        Box(640 * x0, 360 * y0, 640 * x1, 360 * y1), 640, 360
    )
    assert found == pytest.approx(common / ((x1 - x0) * (y1 - y0)), abs=1e-9)


@given(st.lists(st.floats(0.05, 0.5), min_size=3, max_size=9), part, part, part, part)
def test_of_any_polygon_it_is_what_counting_pixels_gives(
    radii: list[float], x0: float, y0: float, x1: float, y1: float
) -> None:
    box = Box(min(x0, x1) * 1000, min(y0, y1) * 1000, max(x0, x1) * 1000, max(y0, y1) * 1000)
    if min(box.x1 - box.x0, box.y1 - box.y0) < 100:
        return
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    points = 0.5 + np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)  # a star around the middle
    try:
        zone = Zone("star", tuple(map(tuple, points.tolist())))
    except UsageError:
        return  # next to no area
    drawn = cv2.fillPoly(np.zeros((1000, 1000), np.uint8), [np.rint(points * 1000).astype(np.int32)], 1)
    inside = drawn[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)].mean()
    assert zone.part_inside(box, 1000, 1000) == pytest.approx(inside, abs=0.03)


# All of the frame but a slot in the middle that is open to the left.
SLOTTED = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.55), (0.9, 0.55), (0.9, 0.45), (0.0, 0.45))


@pytest.mark.parametrize(
    ("corners", "box", "expected"),
    [
        (rectangle(0, 0.55, 1, 1), Box(80, 30, 120, 90), 1),
        (rectangle(0, 0.55, 1, 1), Box(0, 0, 200, 100), 0),
        (SLOTTED, Box(0, 0, 200, 100), 0),  # its centre is in the slot
        (SLOTTED, Box(150, 0, 230, 100), 1),
    ],
)
def test_a_zone_that_goes_by_the_centre_has_all_of_a_box_or_none(
    corners: tuple[tuple[float, float], ...], box: Box, expected: float
) -> None:
    assert Zone("door", corners, by="centre").part_inside(box, 200, 100) == expected


def test_texts_of_the_command_line() -> None:
    assert zone_from_text("door=0.1,0.2,0.5,0.9") == Zone("door", rectangle(0.1, 0.2, 0.5, 0.9))
    assert zone_from_text(" my door = 0, 0, 1, 0, 0, 1 ") == Zone("my door", ((0, 0), (1, 0), (0, 1)))
    assert zone_from_text("d=0,0,1,1:enter=0.9,leave=0.8,for=2,gone=3,by=centre") == Zone(
        "d", rectangle(0, 0, 1, 1), enter=0.9, leave=0.8, enter_s=2, leave_s=3, by="centre"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("door", "give NAME="),
        ("=0,0,1,1", "give NAME="),
        ("door=0,0,1", "has 3 numbers"),
        ("door=0,0,1,1,0", "has 5 numbers"),
        ("door=0,0,1,two", "'two'"),
        ("door=0,0,1,nan", "outside the frame"),
        ("door=0,0,1,1.5", "outside the frame"),
        ("door=0,0,0,1", "covers nothing"),
        ("door=0,0,1,1,1,0,0,1", "cross"),
        ("door=0,0,1,1:size=3", "option 'size'"),
        ("door=0,0,1,1:enter=0.2,enter=0.3", "twice"),
        ("door=0,0,1,1:enter=0.2,leave=0.25", "the zone 'door': leave is 0.25"),
        ("door=0,0,1,1:by=edge", "area, centre"),
        ("door=0,0,1,1:enter", "a corner of"),
    ],
)
def test_what_is_no_zone_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        zone_from_text(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("corners", [((0, 0), (1, 1)), ((0, 0), (0.5, 0.5), (1, 1)), (), "abc", ((0, 0, 0),) * 3, None])
def test_what_is_no_polygon_is_refused(corners: object) -> None:
    with pytest.raises(UsageError):
        Zone("door", corners)  # type: ignore[arg-type]
