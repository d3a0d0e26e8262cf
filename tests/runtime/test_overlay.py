"""The overlay, against a naive one in floating point."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam.geometry import place
from gapcam.overlay import COLORMAPS, blend, colors_by_heat, draw_boxes, draw_caption, line_width

RNG = np.random.default_rng(0)


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A map in [0, 1] as an upsampled one is: smooth over many pixels."""
    return np.clip(cv2.resize(RNG.random((5, 5)).astype(np.float32), (width, height)), 0, 1)


def naive(frame: np.ndarray, heat: np.ndarray, placement: gapcam.Placement, colormap: str, alpha: float) -> np.ndarray:
    """Resize in float32, colours interpolated between the table's, blended in float64."""
    seen = placement.frame_rect
    levels = cv2.resize(heat, (seen.width, seen.height)).astype(np.float64) * 255
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap])[:, 0].astype(np.float64)
    colors = np.stack([np.interp(levels, np.arange(256), table[:, channel]) for channel in range(3)], axis=-1)
    out = frame.astype(np.float64)
    out[seen.rows, seen.columns] = alpha * colors + (1 - alpha) * out[seen.rows, seen.columns]
    return out


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(270, 480), (480, 270), (31, 47), (1, 1), (3, 5000)])
@pytest.mark.parametrize(("colormap", "alpha"), [("jet", 0.5), ("turbo", 0.3), ("viridis", 1.0)])
def test_it_differs_from_the_naive_one_by_a_level_of_the_map_at_most(
    size: tuple[int, int], resize: str, colormap: str, alpha: float
) -> None:
    """The bound: 1 level of 256 from rounding the map twice, times the colour map's steepest step, and a rounding."""
    placement = place(size, gapcam.Preprocessing(size=(112, 112), resize=resize))  # type: ignore[arg-type]
    frame, heat = noise(*size), smooth(placement.input_rect.height, placement.input_rect.width)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap]).astype(int)
    bound = alpha * 1.1 * np.abs(np.diff(table, axis=0)).max() + 0.6
    got = blend(frame, heat, placement, colormap=colormap, alpha=alpha)
    assert got.dtype == np.uint8
    assert np.abs(got - naive(frame, heat, placement, colormap, alpha)).max() <= bound


def test_alpha_0_is_the_frame_and_alpha_1_the_colours() -> None:
    frame, heat = noise(20, 30), smooth(20, 30)
    placement = place((20, 30), gapcam.Preprocessing(size=(20, 30)))
    np.testing.assert_array_equal(blend(frame, heat, placement, alpha=0), frame)
    colors = cv2.applyColorMap((heat * 255 + 0.5).astype(np.uint8), cv2.COLORMAP_JET)
    np.testing.assert_array_equal(blend(frame, heat, placement, alpha=1), colors)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_by_heat_each_pixel_is_covered_by_alpha_times_its_own_level(resize: str, alpha: float) -> None:
    """The bound: half a step of 1/255 in the cover, and the rounding of the colour's part and of the frame's."""
    placement = place((45, 80), gapcam.Preprocessing(size=(32, 32), resize=resize))  # type: ignore[arg-type]
    frame, heat = noise(45, 80), smooth(placement.input_rect.height, placement.input_rect.width)
    before, seen = frame.copy(), placement.frame_rect
    levels = resized_by_hand((heat * 255 + 0.5).astype(np.uint8), seen.height, seen.width)
    covers = alpha * levels[..., None] / 255
    expected = before.astype(np.float64)
    part = expected[seen.rows, seen.columns]
    part[:] = covers * cv2.applyColorMap(levels, cv2.COLORMAP_TURBO) + (1 - covers) * part
    got = blend(frame, heat, placement, colormap="turbo", alpha=alpha, alpha_by_heat=True)
    assert np.abs(got - expected).max() <= 1.5
    cold = np.zeros(frame.shape[:2], bool)
    cold[seen.rows, seen.columns] = np.rint(alpha * levels) == 0
    np.testing.assert_array_equal(got[cold], before[cold])
    np.testing.assert_array_equal(
        blend(frame, heat, placement, colormap="turbo", alpha=alpha, alpha_by_heat=True, out=frame), got
    )


def test_by_heat_each_level_over_each_pixel_is_what_the_tables_say() -> None:
    frame = np.arange(256, dtype=np.uint8)[:, None, None].repeat(256, axis=1).repeat(3, axis=2)
    heat = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(256, axis=0)
    placement = place((256, 256), gapcam.Preprocessing(size=(256, 256)))
    for alpha in (0.4, 1.0):
        colors, keeps = colors_by_heat("jet", alpha)
        kept = (2 * frame.astype(int) * keeps[None, :, 0] + 255) // 510  # rounded; 255 is odd, so there are no ties
        expected = colors[None, :, 0] + kept
        np.testing.assert_array_equal(blend(frame, heat, placement, alpha=alpha, alpha_by_heat=True), expected)


def resized_by_hand(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres in integers: the sample's place in steps of 1/256, the sum rounded once."""
    weights = []
    for old, new in zip(levels.shape, (height, width), strict=True):
        place_of = (np.arange(new) + 0.5) * (old / new) - 0.5
        first = np.floor(place_of).astype(int)
        second = np.rint((place_of - first) * 256).astype(int)
        matrix = np.zeros((new, old), int)
        np.add.at(matrix, (np.arange(new), np.clip(first, 0, old - 1)), 256 - second)
        np.add.at(matrix, (np.arange(new), np.clip(first + 1, 0, old - 1)), second)
        weights.append(matrix)
    return ((weights[0] @ levels @ weights[1].T + (1 << 15)) >> 16).astype(np.uint8)


@pytest.mark.parametrize("size", [(45, 80), (7, 5), (64, 64), (1, 1), (301, 33)])
def test_levels_are_resized_in_integers_the_same_everywhere(size: tuple[int, int]) -> None:
    """With alpha 1 the overlay is the colours alone, so its levels can be read back from a map whose colours differ."""
    heat = smooth(32, 32)
    placement = place(size, gapcam.Preprocessing(size=(32, 32)))
    levels = resized_by_hand((heat * 255 + 0.5).astype(np.uint8), *size)
    expected = cv2.applyColorMap(levels, cv2.COLORMAP_JET)
    np.testing.assert_array_equal(blend(noise(*size), heat, placement, colormap="jet", alpha=1), expected)


@pytest.mark.parametrize("colormap", sorted(COLORMAPS))
def test_every_colour_map_of_opencv_works_by_its_name(colormap: str) -> None:
    frame, heat = noise(4, 256), np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(4, axis=0)
    placement = place((4, 256), gapcam.Preprocessing(size=(4, 256)))
    expected = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    np.testing.assert_array_equal(blend(frame, heat, placement, colormap=colormap, alpha=1)[:1], expected)


def test_a_frame_that_is_not_contiguous_is_blended_the_same() -> None:
    frame, heat = noise(40, 60), smooth(32, 32)
    for view in (frame[::-1], frame[:, ::2], frame[..., ::-1]):
        placement = place(view.shape[:2], gapcam.Preprocessing(size=(32, 32)))
        np.testing.assert_array_equal(blend(view, heat, placement), blend(view.copy(), heat, placement))


@pytest.fixture
def result() -> gapcam.Result:
    return gapcam.Session(fake_red_and_blue(a_contract((16, 16), resize="crop")))(noise(30, 50))


def test_the_frame_stays_as_it_was_and_so_do_pixels_outside_the_crop(result: gapcam.Result) -> None:
    before = result.frame.copy()
    image = result.overlay()
    np.testing.assert_array_equal(result.frame, before)
    np.testing.assert_array_equal(image[:, :10], before[:, :10])
    np.testing.assert_array_equal(image[:, 40:], before[:, 40:])
    assert (image[:, 10:40] != before[:, 10:40]).any()


def test_out_is_written_and_given_back(result: gapcam.Result) -> None:
    out = np.zeros_like(result.frame)
    assert result.overlay(out=out) is out
    np.testing.assert_array_equal(out, result.overlay())


def test_the_overlay_shows_the_class_asked_for(result: gapcam.Result) -> None:
    assert (result.overlay("red") != result.overlay("blue")).any()


@pytest.mark.parametrize("shape", [(30, 51, 3), (30, 50), (50, 30, 3)])
def test_an_out_unlike_the_frame_is_refused(result: gapcam.Result, shape: tuple[int, ...]) -> None:
    with pytest.raises(gapcam.FrameError, match=r"np\.empty_like"):
        result.overlay(out=np.zeros(shape, np.uint8))


def test_an_out_of_another_dtype_is_refused(result: gapcam.Result) -> None:
    with pytest.raises(gapcam.FrameError, match="float32"):
        result.overlay(out=np.zeros((30, 50, 3), np.float32))  # type: ignore[arg-type]


def test_an_out_that_is_no_array_is_refused(result: gapcam.Result) -> None:
    with pytest.raises(gapcam.FrameError, match="got list as out"):
        result.overlay(out=[1])  # type: ignore[arg-type]


def test_an_out_may_be_the_frame_but_not_overlap_it() -> None:
    heat, memory = smooth(30, 50), noise(31, 50)
    placement = place((30, 50), gapcam.Preprocessing(size=(30, 50)))
    frame = memory[:30]
    with pytest.raises(gapcam.FrameError, match="overlaps the frame"):
        blend(frame, heat, placement, out=memory[1:])
    expected = blend(frame, heat, placement)
    np.testing.assert_array_equal(blend(frame, heat, placement, out=frame[:]), expected)
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize(
    "wrong",
    [{"colormap": 2}, {"normalization": "fixed", "limits": (1,)}, {"normalization": "fixed", "limits": (0, "a")}],
    ids=str,
)
def test_arguments_of_a_wrong_type_are_usage_errors(result: gapcam.Result, wrong: dict[str, object]) -> None:
    with pytest.raises(gapcam.UsageError, match=r"give two numbers|no colour map 2"):
        result.overlay(**wrong)  # type: ignore[arg-type]


def test_an_unknown_colour_map_and_a_wrong_alpha_are_refused(result: gapcam.Result) -> None:
    with pytest.raises(gapcam.UsageError, match=r"Did you mean 'viridis'\?"):
        result.overlay(colormap="Viridid")
    for alpha in (-0.1, 1.1, float("nan"), "0.5", None):
        with pytest.raises(gapcam.UsageError, match="alpha"):
            result.overlay(alpha=alpha)  # type: ignore[arg-type]


def test_alpha_may_be_any_type_of_number(result: gapcam.Result) -> None:
    for alpha in (True, np.float32(0.5), np.int64(0)):
        for by_heat in (False, True):
            np.testing.assert_array_equal(
                result.overlay(alpha=alpha, alpha_by_heat=by_heat),
                result.overlay(alpha=float(alpha), alpha_by_heat=by_heat),
            )


@pytest.mark.parametrize("size", [(200, 300), (1080, 1920)])
def test_a_box_is_drawn_on_its_border_and_not_inside(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    draw_boxes(image, [gapcam.Box(50, 60, 150.4, 140.4)])
    assert (image[60, 50:150] == 255).all()
    assert (image[139, 50:150] == 255).all()
    assert (image[60:140, 50] == 255).all()
    assert (image[60:140, 149] == 255).all()
    assert (image[70:130, 60:140] == 128).all()
    outer = line_width(image)
    for row, column in ((60 - outer, 100), (60 + outer, 100), (100, 50 - outer), (100, 50 + outer)):
        assert (image[row, column] == 0).all()  # black on either side of the white


@pytest.mark.parametrize("size", [(1, 1), (5, 4000), (4000, 5), (8, 8)])
def test_boxes_and_captions_on_tiny_frames_do_no_harm(size: tuple[int, int]) -> None:
    image = noise(*size)
    draw_boxes(image, [gapcam.Box(0, 0, size[1], size[0]), gapcam.Box(0, 0, 0.2, 0.2)])
    draw_caption(image, "a caption")
    assert image.shape == (*size, 3)


@pytest.mark.parametrize(
    "text", ["cat 0.93", "a very long label, such as ImageNet has some, and longer still " * 2, "chat égyptien"]
)
@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (2160, 300)])
def test_a_caption_stays_in_the_top_part_and_leaves_the_rest(size: tuple[int, int], text: str) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    draw_caption(image, text)
    assert (image[size[0] // 2 :] == 128).all()
    assert (image[:, -1] == 128).all() or "long" in text or size == (2160, 300)
    assert (image > 200).any() or "long" in text  # white letters


def test_an_overlay_takes_boxes_and_a_caption(result: gapcam.Result) -> None:
    plain = result.overlay()
    assert (result.overlay(boxes=[gapcam.Box(12, 3, 30, 20)]) != plain).any()
    assert (gapcam.Session(fake_red_and_blue())(noise(200, 300)).overlay(caption="red 0.5")[:20, :20] == 0).any()
