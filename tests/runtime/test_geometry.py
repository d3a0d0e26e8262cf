"""A frame's way into the network's input and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam.geometry import place

RESIZES = st.sampled_from(["squash", "crop", "letterbox"])
SIDES = st.one_of(st.integers(1, 400), st.sampled_from([1, 2, 3, 1080, 1920, 20_000]))
PLACEMENTS = st.builds(
    lambda frame, size, resize, crop_pct: (
        frame,
        size,
        place(frame, gapcam.Preprocessing(size=size, resize=resize, crop_pct=crop_pct)),
    ),
    st.tuples(SIDES, SIDES),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    RESIZES,
    st.floats(0.01, 1),
)


def inside(rect: gapcam.Rect, height: int, width: int) -> bool:
    return (
        rect.width >= 1
        and rect.height >= 1
        and 0 <= rect.x <= width - rect.width
        and 0 <= rect.y <= height - rect.height
    )


def test_each_resize_places_a_wide_frame_as_its_name_says() -> None:
    def placed(resize: str, **more: float) -> gapcam.Placement:
        return place((100, 200), gapcam.Preprocessing(size=(50, 50), resize=resize, **more))  # type: ignore[arg-type]

    assert placed("squash") == gapcam.Placement(gapcam.Rect(0, 0, 200, 100), gapcam.Rect(0, 0, 50, 50))
    assert placed("crop") == gapcam.Placement(gapcam.Rect(50, 0, 100, 100), gapcam.Rect(0, 0, 50, 50))
    assert placed("crop", crop_pct=0.5) == gapcam.Placement(gapcam.Rect(75, 25, 50, 50), gapcam.Rect(0, 0, 50, 50))
    assert placed("letterbox") == gapcam.Placement(gapcam.Rect(0, 0, 200, 100), gapcam.Rect(0, 12, 50, 25))


@given(PLACEMENTS)
@settings(deadline=None)
def test_both_rectangles_have_pixels_and_lie_inside(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement],
) -> None:
    frame, size, placement = case
    assert inside(placement.frame_rect, *frame)
    assert inside(placement.input_rect, *size)


@given(PLACEMENTS)
@settings(deadline=None)
def test_both_rectangles_are_centred_up_to_a_pixel(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement],
) -> None:
    for (height, width), rect in zip(case[:2], (case[2].frame_rect, case[2].input_rect), strict=True):
        assert 0 <= (width - rect.width) - 2 * rect.x <= 1
        assert 0 <= (height - rect.height) - 2 * rect.y <= 1


@given(PLACEMENTS)
@settings(deadline=None)
def test_crop_and_letterbox_keep_the_aspect_ratio_up_to_a_rounded_pixel(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement],
) -> None:
    _, (height, width), placement = case
    seen, target = placement.frame_rect, placement.input_rect
    if (target.height, target.width) != (height, width):  # a letterbox with bars
        scale = min(width / seen.width, height / seen.height)
        assert abs(target.width - scale * seen.width) <= 0.5 or target.width == 1
        assert abs(target.height - scale * seen.height) <= 0.5 or target.height == 1


@given(PLACEMENTS, st.floats(-100, 30_000), st.floats(-100, 30_000))
@settings(deadline=None)
def test_a_point_comes_back_to_where_it_was(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement], x: float, y: float
) -> None:
    placement = case[2]
    assert placement.to_frame(*placement.to_input(x, y)) == pytest.approx((x, y), abs=1e-6, rel=1e-9)


@given(PLACEMENTS, st.tuples(*[st.floats(-50, 350)] * 4))
@settings(deadline=None)
def test_a_box_from_the_input_lies_inside_the_seen_part_of_the_frame(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement], sides: tuple[float, float, float, float]
) -> None:
    placement = case[2]
    (x0, x1), (y0, y1) = sorted(sides[:2]), sorted(sides[2:])
    box = placement.box_to_frame(gapcam.Box(x0, y0, x1, y1))
    seen = placement.frame_rect
    assert seen.x <= box.x0 <= box.x1 <= seen.x + seen.width
    assert seen.y <= box.y0 <= box.y1 <= seen.y + seen.height


@given(PLACEMENTS)
@settings(deadline=None)
def test_the_seen_part_of_the_frame_comes_back_whole(
    case: tuple[tuple[int, int], tuple[int, int], gapcam.Placement],
) -> None:
    placement = case[2]
    seen = placement.frame_rect
    box = gapcam.Box(seen.x, seen.y, seen.x + seen.width, seen.y + seen.height)
    assert placement.box_to_frame(placement.box_to_input(box)) == pytest.approx(box, abs=1e-9, rel=1e-9)


def test_a_frame_without_pixels_is_refused() -> None:
    with pytest.raises(gapcam.UsageError, match="no pixels"):
        place((0, 5), gapcam.Preprocessing(size=(2, 2)))


@given(
    st.tuples(st.integers(24, 160), st.integers(24, 160)),
    st.sampled_from([(32, 32), (24, 48), (64, 40)]),
    RESIZES,
    st.floats(0.5, 1),
    st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(deadline=None, max_examples=200)
def test_an_object_that_the_network_finds_is_boxed_where_it_is_on_the_frame(
    frame_size: tuple[int, int],
    size: tuple[int, int],
    resize: str,
    crop_pct: float,
    where: tuple[float, float, float, float],
) -> None:
    """A red block on black; the model's red map is the input's red channel, so its box is the block's."""
    height, width = frame_size
    contract = a_contract(size, resize=resize, crop_pct=crop_pct)
    seen, target = (getattr(place(frame_size, contract.preprocessing), name) for name in ("frame_rect", "input_rect"))
    step_x, step_y = seen.width / target.width, seen.height / target.height  # an input pixel in frame pixels
    left, right = block(seen.x, seen.width, step_x, where[0], where[1])
    top, bottom = block(seen.y, seen.height, step_y, where[2], where[3])
    frame = np.zeros((height, width, 3), np.uint8)
    frame[top:bottom, left:right, 2] = 255

    with gapcam.Session(fake_red_and_blue(contract)) as session:
        (box,) = session(frame).boxes("red") or [None]
    if (left, top, right, bottom) == (seen.x, seen.y, seen.x + seen.width, seen.y + seen.height):
        return  # the block fills all that is seen: the map is flat and rightly marks nothing
    assert box is not None
    # A pixel of input, and where the frame was enlarged, the half pixel over which its edge was blurred.
    near_x, near_y = step_x + 0.5 * (step_x < 1), step_y + 0.5 * (step_y < 1)
    assert (box.x0, box.x1) == pytest.approx((left, right), abs=near_x + 1e-6)
    assert (box.y0, box.y1) == pytest.approx((top, bottom), abs=near_y + 1e-6)


def block(start: int, length: int, step: float, position: float, extent: float) -> tuple[int, int]:
    """An interval of whole pixels inside [start, start + length), at least two input pixels long."""
    shortest = min(length, int(np.ceil(2 * step)) + 1)
    span = shortest + int(extent * (length - shortest))
    first = start + int(position * (length - span))
    return first, first + span
