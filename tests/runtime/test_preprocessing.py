"""From a frame to the network's input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

import gapcam

RNG = np.random.default_rng(0)


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_values_are_pixel_over_255_minus_mean_over_std_in_the_models_channel_order(color: str) -> None:
    frame, mean, std = noise(7, 9), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    how = gapcam.Preprocessing(size=(7, 9), mean=mean, std=std, color=color)  # type: ignore[arg-type]
    pixels = frame[..., ::-1] if color == "rgb" else frame
    expected = np.moveaxis((pixels / 255 - np.array(mean)) / np.array(std), -1, 0)
    tensor = gapcam.preprocess(frame, how)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, expected, atol=1e-5)


def test_embedded_preprocessing_hands_over_the_pixels() -> None:
    frame = noise(7, 9)
    tensor = gapcam.preprocess(frame, gapcam.Preprocessing(size=(7, 9), embedded=True))
    assert tensor.dtype == np.uint8
    np.testing.assert_array_equal(tensor, frame[..., ::-1])


def pixels(frame: np.ndarray, size: tuple[int, int], **how: object) -> np.ndarray:
    return gapcam.preprocess(frame, gapcam.Preprocessing(size=size, color="bgr", embedded=True, **how))  # type: ignore[arg-type]


def test_letterbox_bars_have_the_pad_value_and_the_frame_lies_between_them() -> None:
    tensor = pixels(np.full((10, 20, 3), 200, np.uint8), (16, 16), resize="letterbox", pad=7)
    assert (tensor[4:12] == 200).all()
    assert (tensor[:4] == 7).all()
    assert (tensor[12:] == 7).all()


def test_crop_sees_the_centre_alone() -> None:
    frame = np.zeros((10, 30, 3), np.uint8)
    frame[:, 10:20] = 255
    assert (pixels(frame, (5, 5), resize="crop") == 255).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(240, 240), (240, 10), (10, 240), (101, 57)])
def test_what_shrinks_is_averaged_along_either_side(shape: tuple[int, int], interpolation: str) -> None:
    """A fine checkerboard becomes grey; without antialiasing it would become stripes."""
    rows, columns = np.indices(shape)
    axis = rows * (shape[0] > 24) + columns * (shape[1] > 24)
    frame = np.repeat((axis % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    tensor = pixels(frame, (24, 24), interpolation=interpolation).astype(int)
    assert abs(tensor - 127).max() <= 30
    assert tensor.mean() == pytest.approx(127.5, abs=1.5)


@pytest.mark.parametrize(
    ("interpolation", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
@pytest.mark.parametrize("size", [(40, 40), (10, 40)])
def test_what_grows_is_interpolated_as_named(interpolation: str, flag: int, size: tuple[int, int]) -> None:
    frame = noise(10, 10)
    expected = cv2.resize(frame, size[::-1], interpolation=flag)
    np.testing.assert_array_equal(pixels(frame, size, interpolation=interpolation), expected)


@pytest.mark.parametrize("wrong", [{"resize": "stretch"}, {"std": (0.2, 0.0, 0.2)}, {"crop_pct": 1.5}], ids=str)
def test_a_preprocessing_made_by_hand_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(gapcam.UsageError, match=f"the preprocessing is not right: .*{next(iter(wrong))}"):
        gapcam.preprocess(noise(4, 4), gapcam.Preprocessing(size=(4, 4), **wrong))  # type: ignore[arg-type]


def test_a_preprocessing_may_hold_numpys_numbers() -> None:
    how = gapcam.Preprocessing(size=(4, 4), mean=tuple(np.full(3, 0.5)), std=tuple(np.full(3, 0.5, np.float32)))
    np.testing.assert_allclose(gapcam.preprocess(np.zeros((4, 4, 3), np.uint8), how), -1)


def test_nearest_only_picks_pixels_of_the_frame() -> None:
    frame = noise(100, 100) // 255 * 255
    assert set(np.unique(pixels(frame, (9, 9), interpolation="nearest"))) <= {0, 255}


@pytest.mark.parametrize("size", [(1080, 1920), (2160, 3840), (900, 898)])
def test_halving_first_is_the_exact_average_but_for_sharp_edges(size: tuple[int, int]) -> None:
    photograph = cv2.resize(skimage.data.chelsea(), size[::-1], interpolation=cv2.INTER_CUBIC)
    exact = area_average(area_average(photograph.astype(np.float64), 224, 0), 224, 1)
    difference = np.abs(pixels(photograph, (224, 224)) - exact)
    assert difference.max() <= 10
    assert difference.mean() <= 0.6


def area_average(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Each output is the mean of the stretch of input that it covers, fractions of pixels included."""
    edges = np.linspace(0, values.shape[axis], count + 1)
    start = np.arange(values.shape[axis])
    weights = np.clip(np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start), 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["squash", "crop", "letterbox"]))
@settings(deadline=None)
def test_a_frame_of_one_colour_stays_that_colour_whatever_its_size(height: int, width: int, resize: str) -> None:
    tensor = pixels(np.full((height, width, 3), (1, 120, 254), np.uint8), (13, 17), resize=resize, pad=50)
    seen = (tensor == (1, 120, 254)).all(axis=-1)
    assert seen.any()
    assert (tensor[~seen] == 50).all()
    assert resize == "letterbox" or seen.all()


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 20_000)])
def test_extreme_frames_work(size: tuple[int, int], resize: str) -> None:
    assert pixels(noise(*size), (32, 32), resize=resize).shape == (32, 32, 3)


def test_a_frame_need_not_be_contiguous_nor_writeable() -> None:
    frame = noise(40, 60)
    frame.flags.writeable = False
    for view in (frame[::-1], frame[:, ::2], frame[..., ::-1], frame[5:20, 3:50]):
        np.testing.assert_array_equal(pixels(view, (8, 8)), pixels(view.copy(), (8, 8)))


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        (np.zeros((4, 4), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((3, 8, 9), np.uint8), "np.moveaxis"),
        (np.zeros((2, 8, 9, 3), np.uint8), "session.batch"),
        (np.zeros((8,), np.uint8), "expected"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.float32), r"\* 255"),
        (np.zeros((4, 4, 3), np.uint16), ">> 8"),
        (np.zeros((4, 4, 3), np.int64), "astype"),
        (None, "read_image"),
        ("cat.jpg", "read_image"),
        ([np.zeros((4, 4, 3), np.uint8)], "session.batch"),
        (memoryview(b"abc"), "np.asarray"),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, str) else None,
)
def test_what_is_no_frame_is_refused_with_what_mends_it(frame: object, advice: str) -> None:
    with pytest.raises(gapcam.FrameError, match=advice) as caught:
        gapcam.preprocess(frame, gapcam.Preprocessing(size=(8, 8)))  # type: ignore[arg-type]
    assert "got" in str(caught.value)
    assert "expected" in str(caught.value)
