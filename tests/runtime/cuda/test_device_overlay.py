"""The kernels of the overlay and of the heat map against the NumPy and OpenCV reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from device_frames import layout_of, random_frame, upload_frame
from host_driver import HostDriver
from hypothesis import given, settings
from hypothesis import strategies as st
from nv12_overlay import blend_nv12, yuv_colors

import gapcam
from gapcam.cam import class_maps, normalize
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamLayout, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.frame_copy import plane_shapes
from gapcam.cuda.overlay import HeatMap, Overlay, palette
from gapcam.errors import FrameError, UsageError
from gapcam.geometry import Placement, place
from gapcam.overlay import blend, color_table
from gapcam.upsample import on_frame, seen_part

FORMATS = ("bgr", "bgra", "nv12")
RESIZES = ("squash", "crop", "letterbox")

# Frame, input, map: (height, width) each.
SIZES = [
    ((38, 54), (32, 32), (7, 7)),
    ((108, 192), (56, 56), (7, 7)),
    ((2, 2), (32, 32), (4, 4)),
    ((20, 30), (64, 48), (14, 14)),  # smaller than the input
    ((34, 200), (40, 24), (1, 1)),
    ((64, 64), (64, 64), (64, 64)),  # nothing to resize
    ((50, 40), (20, 24), (31, 29)),  # a map larger than the input
    ((130, 6), (224, 224), (7, 7)),
]


@pytest.fixture(scope="module")
def driver(host_library: Path) -> HostDriver:
    """Memory ends at an unmapped page but for 4 bytes: reads past a frame's or a table's end fault."""
    return HostDriver(host_library, alignment=4)


def placed(size: tuple[int, int], input_size: tuple[int, int], resize: str) -> Placement:
    return place(size, gapcam.Preprocessing(size=input_size, resize=resize))  # type: ignore[arg-type]


def a_map(map_size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 5, map_size).astype(np.float32)


def extremes_of(part: np.ndarray) -> np.ndarray:
    low, high = part.min(), part.max()
    return np.array([low, high] if np.isfinite([low, high]).all() else [np.nan, np.nan], np.float32)


def run_overlay(
    driver: HostDriver,
    raw: np.ndarray,
    frame: np.ndarray | None,
    layout: FrameLayout,
    placement: Placement,
    input_size: tuple[int, int],
    *,
    in_place: bool = False,
    extra_pitch: int = 0,
    misaligned: int = 0,
    frame_extra_pitch: int = 0,
    frame_misaligned: int = 0,
    **look: Any,
) -> np.ndarray:
    """The kernel's overlay. What is between rows of the output must stay as it was.

    What is extra of the frame comes on top of what both have.
    """
    rng = np.random.default_rng(1)
    with driver.active(), np.errstate(all="ignore"):
        stream = driver.stream()
        memory = device_constants(driver, raw, extremes_of(seen_part(raw, input_size, placement)))
        overlay = Overlay(
            driver,
            driver.module(),
            layout=layout,
            placement=placement,
            input_size=input_size,
            map_size=raw.shape,
            with_frame=frame is not None,
            **look,
        )
        padding = {"extra_pitch": extra_pitch, "misaligned": misaligned}
        frame_padding = {"extra_pitch": extra_pitch + frame_extra_pitch, "misaligned": misaligned + frame_misaligned}
        if in_place:
            frame_padding = padding
        given_frame = None if frame is None else upload_frame(driver, stream, frame, layout.format, **frame_padding)
        out = given_frame
        if out is None or not in_place:
            out = upload_frame(driver, stream, random_frame(rng, layout), layout.format, **padding)
        before = [bytes_of(driver, plane) for plane in out.owner]  # type: ignore[attr-defined]
        overlay.enqueue(memory[0].pointer, memory[1].pointer, given_frame, out, stream)
        after = [bytes_of(driver, plane) for plane in out.owner]  # type: ignore[attr-defined]
        for (rows, nbytes), (_, pitch), old, new in zip(plane_shapes(layout), out.planes, before, after, strict=True):
            between = np.ones(len(old), bool)
            for row in range(rows):
                between[misaligned + row * pitch : misaligned + row * pitch + nbytes] = False
            np.testing.assert_array_equal(new[between], old[between])
        image = np.empty_like(random_frame(rng, layout))
        _download(driver, stream, out, image)
    return image


def bytes_of(driver: HostDriver, memory: Any) -> np.ndarray:
    out = np.empty(memory.nbytes, np.uint8)
    driver.download(memory.pointer, out, driver.stream())
    return out


def _download(driver: HostDriver, stream: Any, frame: DeviceFrame, out: np.ndarray) -> None:
    rows = out.reshape(len(out), -1)
    height = frame.layout.height
    planes = [rows[:height], rows[height:]] if frame.layout.format == "nv12" else [rows]
    for (pointer, pitch), plane in zip(frame.planes, planes, strict=True):
        driver.download_rows(pointer, pitch, plane, stream)
    stream.synchronize()


def reference(
    frame: np.ndarray,
    layout: FrameLayout,
    heat: np.ndarray,
    placement: Placement,
    **look: Any,
) -> np.ndarray:
    """Of the normalised part of the map that the network saw."""
    if layout.format == "nv12":
        return blend_nv12(frame, heat, placement, **look)
    blended = blend(np.ascontiguousarray(frame[..., :3]), heat, placement, **look)
    return blended if layout.format == "bgr" else np.concatenate([blended, frame[..., 3:]], axis=2)


def assert_alike(got: np.ndarray, expected: np.ndarray, colormap: str = "jet") -> int:
    """Equal up to 1, but for pixels whose level float32 rounded to a neighbour: those are counted, and few.

    The kernel's levels are computed in float32 where the reference has float64, so that a value right between two
    levels may go the other way. That moves a colour by one level's step.
    """
    difference = np.abs(got.astype(int) - expected)
    step = int(np.abs(np.diff(color_table(colormap)[:, 0].astype(int), axis=0)).max())
    assert difference.max(initial=0) <= step + 1
    moved = int((difference > 1).sum())
    assert moved <= 2e-4 * difference.size, moved
    return moved


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("by_heat", [False, True])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("frame_format", FORMATS)
def test_every_format_and_placement(
    driver: HostDriver, frame_format: Any, resize: str, by_heat: bool, sizes: tuple[tuple[int, int], ...]
) -> None:
    size, input_size, map_size = sizes
    layout = FrameLayout(frame_format, *size)
    frame, raw = random_frame(np.random.default_rng(2), layout), a_map(map_size)
    placement = placed(size, input_size, resize)
    look = {"colormap": "turbo", "alpha": 0.4, "alpha_by_heat": by_heat}
    got = run_overlay(driver, raw, frame, layout, placement, input_size, **look)
    expected = reference(frame, layout, normalize(seen_part(raw, input_size, placement)), placement, **look)
    assert_alike(got, expected, "turbo")


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_sizes_pitches_and_addresses(driver: HostDriver, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    frame_format = data.draw(st.sampled_from(FORMATS))
    unit = 2 if frame_format == "nv12" else 1
    layout = FrameLayout(frame_format, unit * draw(1, 40), unit * draw(1, 60))
    input_size, map_size = (draw(1, 50), draw(1, 70)), (draw(1, 20), draw(1, 20))
    frame, raw = random_frame(np.random.default_rng(draw(0, 99)), layout), a_map(map_size, draw(0, 99))
    placement = placed((layout.height, layout.width), input_size, data.draw(st.sampled_from(RESIZES)))
    look = {"alpha": data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])), "alpha_by_heat": data.draw(st.booleans())}
    got = run_overlay(
        driver,
        raw,
        frame,
        layout,
        placement,
        input_size,
        in_place=data.draw(st.booleans()),
        extra_pitch=draw(0, 9),
        misaligned=draw(0, 3),
        frame_extra_pitch=draw(0, 9),
        frame_misaligned=draw(0, 3),
        **look,
    )
    part = seen_part(raw, input_size, placement)
    expected = reference(frame, layout, normalize(part), placement, **look)
    # A level may go the other way where float32 cannot tell; it is part of so many pixels, of three or four bytes each.
    unsure = 2e-3 + 255 * 4 * float(np.spacing(np.abs(raw).max())) / max(float(np.ptp(part)), 1e-6)
    ties = int((np.abs(normalize(part).astype(np.float64) * 255 % 1 - 0.5) < unsure).sum())
    reach = [2 * -(-side // seen) for side, seen in zip((layout.height, layout.width), part.shape, strict=True)]
    difference = np.abs(got.astype(int) - expected)
    assert (difference > 1).sum() <= 4 * ties * reach[0] * reach[1]
    assert difference.max(initial=0) <= 10


@pytest.mark.parametrize("frame_format", FORMATS)
def test_alpha_0_is_the_frame_and_alpha_1_the_colours(driver: HostDriver, frame_format: Any) -> None:
    layout = FrameLayout(frame_format, 36, 50)
    frame, raw = random_frame(np.random.default_rng(2), layout), a_map((7, 7))
    placement = placed((36, 50), (24, 32), "squash")
    for by_heat in (False, True):
        got = run_overlay(driver, raw, frame, layout, placement, (24, 32), alpha=0.0, alpha_by_heat=by_heat)
        np.testing.assert_array_equal(got, frame)
    got = run_overlay(driver, raw, frame, layout, placement, (24, 32), alpha=1.0)
    colors = {"bgr": color_table("jet")[:, 0], "bgra": color_table("jet")[:, 0], "nv12": yuv_colors("jet")}[
        frame_format
    ]
    drawn = got[..., :3].reshape(-1, 3) if frame_format != "nv12" else got[:36].reshape(-1, 1)
    allowed = {tuple(color) for color in colors[:, : drawn.shape[1]].tolist()}
    assert {tuple(pixel) for pixel in drawn.tolist()} <= allowed
    if frame_format == "bgra":
        np.testing.assert_array_equal(got[..., 3], frame[..., 3])


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("frame_format", FORMATS)
def test_without_a_frame_the_map_alone_is_coloured(driver: HostDriver, frame_format: Any, resize: str) -> None:
    """As if drawn with alpha 1 over a frame of the lowest colour."""
    layout = FrameLayout(frame_format, 38, 54)
    raw, placement = a_map((7, 5)), placed((38, 54), (24, 32), resize)
    got = run_overlay(driver, raw, None, layout, placement, (24, 32), colormap="viridis", alpha=0.3)
    part = normalize(seen_part(raw, (24, 32), placement))
    lowest = color_table("viridis")[0, 0]
    if frame_format == "nv12":
        luma, *chroma = yuv_colors("viridis")[0]
        ground = np.concatenate([np.full((38, 54), luma), np.tile(np.array(chroma, np.uint8), (19, 27))]).astype(
            np.uint8
        )
        expected = blend_nv12(ground, part, placement, colormap="viridis", alpha=1.0)
        np.testing.assert_array_equal(got, expected)
        return
    ground = np.full((38, 54, 3), lowest, np.uint8)
    np.testing.assert_array_equal(got[..., :3], blend(ground, part, placement, colormap="viridis", alpha=1.0))
    if frame_format == "bgra":
        assert (got[..., 3] == 255).all()


MAPS = {
    "flat": np.full((3, 3), 7.0),
    "zero": np.zeros((3, 3)),
    "flat but for rounding": np.full((3, 3), 1e6) + np.eye(3) * 0.25,
    "negative": -np.arange(1.0, 10).reshape(3, 3),
    "nan": np.where(np.eye(3), np.nan, 1),
    "infinite": np.where(np.eye(3), np.inf, 1),
    "minus infinite": np.where(np.eye(3), -np.inf, 1),
    "huge": np.array([[3e38, -3e38], [0, 1e38]]),
    "tiny": np.array([[1e-40, 0], [3e-40, 1e-41]]),
    "tiny and huge": np.array([[3e38, -1e-30], [1e-30, 2e38]]),
    "large offset": 1e4 + np.arange(9.0).reshape(3, 3) / 16,
    "ordinary": np.random.default_rng(0).normal(size=(3, 3)),
}
NORMALIZATIONS: list[tuple[Any, tuple[float, float] | None]] = [
    ("minmax", None),
    ("max", None),
    ("fixed", (-1, 2)),
    ("fixed", (0.1, 0.2)),
    ("fixed", (1e4, 1e4 + 0.5)),
    ("fixed", (-1e300, 1e300)),
    ("fixed", (0, 1e-300)),
    ("fixed", (-3e38, 3e38)),
    ("fixed", (1e-40, 2e-40)),
]


@pytest.mark.parametrize(("normalization", "limits"), NORMALIZATIONS, ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_normalisation_is_the_references(
    driver: HostDriver, name: str, normalization: Any, limits: tuple[float, float] | None
) -> None:
    raw = MAPS[name].astype(np.float32)
    placement = placed((24, 32), (24, 32), "squash")
    frame = random_frame(np.random.default_rng(2), FrameLayout("bgr", 24, 32))
    with np.errstate(all="ignore"):
        heat = normalize(seen_part(raw, (24, 32), placement), normalization, limits)
    got = run_heat_map(driver, raw, (24, 32), placement, (24, 32), normalization=normalization, limits=limits)
    # Interpolation in float32 errs by some units in the values' last place, which the span may be a small part of.
    span = limits[1] - limits[0] if limits else float(np.ptp(raw.astype(np.float64)))
    error = 3 * float(np.spacing(np.abs(raw).max())) / span if span else 0
    error = error if error < 0.01 else 0  # a flat map's zeros, and limits so close that all is 0 or 1, are exact
    np.testing.assert_allclose(got, heat, rtol=0, atol=1e-6 + error)
    got = run_overlay(
        driver, raw, frame, FrameLayout("bgr", 24, 32), placement, (24, 32), normalization=normalization, limits=limits
    )
    expected = blend(frame, heat, placement)
    difference = np.abs(got.astype(int) - expected)
    assert (difference > 1).sum() <= (40 if error > 1e-5 else 4)
    assert difference.max() <= 3


def test_limits_that_float32_does_not_hold_are_kept_whole(driver: HostDriver) -> None:
    """A map as large as its input, so that nothing is interpolated, of values right between such limits."""
    raw = (1e4 + np.arange(24 * 32).reshape(24, 32) % 12 / 1024).astype(np.float32)
    placement, limits = placed((24, 32), (24, 32), "squash"), (1e4 + 1e-4, 1e4 + 0.0101)
    expected = normalize(raw, "fixed", limits)
    assert float(np.float32(limits[0])) != limits[0]
    got = run_heat_map(driver, raw, (24, 32), placement, (24, 32), normalization="fixed", limits=limits)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def run_heat_map(
    driver: HostDriver,
    raw: np.ndarray,
    frame_size: tuple[int, int],
    placement: Placement,
    input_size: tuple[int, int],
    **how: Any,
) -> np.ndarray:
    with driver.active(), np.errstate(all="ignore"):
        memory = device_constants(driver, raw, extremes_of(seen_part(raw, input_size, placement)))
        heat_map = HeatMap(
            driver,
            driver.module(),
            frame_size=frame_size,
            placement=placement,
            input_size=input_size,
            map_size=raw.shape,
            **how,
        )
        out = np.empty(frame_size, np.float32)
        on_device = driver.allocate(out.nbytes)
        stream = driver.stream()
        array = DeviceArray(on_device.pointer, frame_size, np.dtype(np.float32))
        heat_map.enqueue(memory[0].pointer, memory[1].pointer, array, stream)
        driver.download(on_device.pointer, out, stream)
        stream.synchronize()
    return out


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("sizes", [*SIZES, ((1, 1), (5, 3), (2, 2)), ((37, 53), (32, 40), (3, 9))], ids=str)
def test_the_heat_map_is_the_references(driver: HostDriver, sizes: tuple[tuple[int, int], ...], resize: str) -> None:
    size, input_size, map_size = sizes
    raw, placement = a_map(map_size), placed(size, input_size, resize)
    expected = on_frame(normalize(seen_part(raw, input_size, placement)), size, placement)
    got = run_heat_map(driver, raw, size, placement, input_size)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    assert 0 <= got.min() <= got.max() <= 1
    outside = np.ones(size, bool)
    outside[placement.frame_rect.rows, placement.frame_rect.columns] = False
    assert not got[outside].any()


def test_the_frames_rows_are_words_where_they_can_be_and_bytes_else_with_the_same_result(driver: HostDriver) -> None:
    placement = placed((46, 54), (24, 32), "crop")
    for frame_format in FORMATS:
        layout = FrameLayout(frame_format, 46, 54)
        frame, raw = random_frame(np.random.default_rng(2), layout), a_map((7, 7))
        images = [
            run_overlay(
                driver, raw, frame, layout, placement, (24, 32), extra_pitch=extra, misaligned=off, in_place=in_place
            )
            for extra in (0, 1, 2, 22)
            for off in (0, 1, 2, 3)
            for in_place in (False, True)
        ]
        images += [
            run_overlay(driver, raw, frame, layout, placement, (24, 32), extra_pitch=10, **off)
            for off in ({"frame_misaligned": 1}, {"frame_extra_pitch": 1}, {"frame_misaligned": 4})
        ]
        for image in images[1:]:
            np.testing.assert_array_equal(image, images[0])


def test_the_order_of_blocks_and_threads_does_not_matter(driver: HostDriver) -> None:
    placement = placed((46, 54), (24, 32), "letterbox")
    for frame_format in FORMATS:
        layout = FrameLayout(frame_format, 46, 54)
        frame, raw = random_frame(np.random.default_rng(2), layout), a_map((7, 7))
        expected = run_overlay(driver, raw, frame, layout, placement, (24, 32), in_place=True)
        driver.run_backwards(True)
        try:
            got = run_overlay(driver, raw, frame, layout, placement, (24, 32), in_place=True)
        finally:
            driver.run_backwards(False)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("frame_format", "size", "resize"),
    [
        ("bgr", (1080, 1920), "squash"),
        ("bgr", (2160, 3840), "letterbox"),
        ("bgra", (1080, 1920), "crop"),
        ("nv12", (1080, 1920), "crop"),
        ("nv12", (2160, 3840), "squash"),
    ],
)
def test_full_hd_and_4k(driver: HostDriver, frame_format: Any, size: tuple[int, int], resize: str) -> None:
    """So large that a block takes several tiles one after the other."""
    layout = FrameLayout(frame_format, *size)
    frame, raw = random_frame(np.random.default_rng(2), layout), a_map((7, 7))
    placement = placed(size, (224, 224), resize)
    got = run_overlay(driver, raw, frame, layout, placement, (224, 224))
    expected = reference(frame, layout, normalize(seen_part(raw, (224, 224), placement)), placement)
    assert_alike(got, expected)


def test_an_nv12_overlay_looks_like_that_of_the_converted_frame(driver: HostDriver) -> None:
    """Blending in YUV is blending in BGR, but for the rounding and the coarser chroma: on a smooth frame."""
    height, width = 96, 128
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([60 + x * 100 // width, 80 + y, 200 - x * 100 // width], axis=2).astype(np.uint8)
    planes = cv2.cvtColor(smooth, cv2.COLOR_BGR2YUV_I420)
    chroma = planes[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0).reshape(height // 2, width)
    frame = np.concatenate([planes[:height], chroma])
    raw, placement = a_map((3, 3)), placed((height, width), (96, 128), "squash")
    got = run_overlay(driver, raw, frame, layout_of(frame, "nv12"), placement, (96, 128), colormap="viridis")
    as_bgr = cv2.cvtColor(got, cv2.COLOR_YUV2BGR_NV12).astype(int)
    heat = normalize(seen_part(raw, (96, 128), placement))
    expected = blend(np.asarray(cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)), heat, placement, colormap="viridis")
    difference = np.abs(as_bgr - expected)
    assert difference.max() <= 8
    assert difference.mean() < 1.5


def test_a_frame_much_smaller_than_the_input_takes_fewer_rows_at_a_time(driver: HostDriver) -> None:
    for frame_format, width in (("bgr", 9), ("bgra", 33), ("nv12", 50)):
        layout = FrameLayout(frame_format, 40, width)  # type: ignore[arg-type]
        frame, raw = random_frame(np.random.default_rng(2), layout), a_map((9, 40))
        placement = placed((40, width), (16, 3000), "squash")
        got = run_overlay(driver, raw, frame, layout, placement, (16, 3000))
        heat = normalize(seen_part(raw, (16, 3000), placement))
        difference = np.abs(got.astype(int) - reference(frame, layout, heat, placement))
        assert (difference > 1).sum() <= 2
    with pytest.raises(UsageError, match="too small for the device to draw on"):
        run_overlay(
            driver, a_map((2, 2)), None, FrameLayout("bgr", 4, 3), placed((4, 3), (8, 20000), "squash"), (8, 20000)
        )


def test_the_palette_is_the_colour_map_and_what_the_frame_keeps() -> None:
    np.testing.assert_array_equal(palette("bgr", "jet", 0.3, by_heat=False)[:, :3], color_table("jet")[:, 0])
    np.testing.assert_array_equal(palette("nv12", "hot", 0.3, by_heat=False)[:, :3], yuv_colors("hot"))
    by_heat = palette("bgra", "jet", 1.0, by_heat=True)
    np.testing.assert_array_equal(by_heat[:, 3], 255 - np.arange(256))
    np.testing.assert_array_equal(by_heat[[0, 255], :3], [[0, 0, 0], color_table("jet")[255, 0]])


def test_from_real_features_to_the_overlay_of_a_photograph(
    driver: HostDriver, demo_model: Path, cat: np.ndarray
) -> None:
    """EfficientNet-Lite0: the kernels of the map and of the overlay one after the other, and the session's result."""
    with gapcam.load(demo_model, threads=1) as session:
        result = session(cat)
        input_size, weights = session.contract.preprocessing.size, session.weights
    height, width = cat.shape[:2]
    placement, map_size = result.placement, result.features.shape[1:]
    with driver.active():
        stream = driver.stream()
        logits, features, on_device = device_constants(driver, result.logits[None], result.features[None], weights)
        cam = Cam(
            driver, driver.module(), kind=HeadKind.AFFINE, map_size=map_size, input_size=input_size, weights=on_device
        )
        arrays = new_cam_arrays(CamLayout(1, 1, map_size), driver.allocate)
        cam.enqueue({"logits": logits, "features": features}, [placement.input_rect], arrays, stream)
        layout = FrameLayout("bgr", height, width)
        overlay = Overlay(
            driver, driver.module(), layout=layout, placement=placement, input_size=input_size, map_size=map_size
        )
        frame = upload_frame(driver, stream, cat, "bgr")
        overlay.enqueue(arrays.maps.pointer, arrays.extremes.pointer, frame, frame, stream)
        heat_map = HeatMap(
            driver,
            driver.module(),
            frame_size=(height, width),
            placement=placement,
            input_size=input_size,
            map_size=map_size,
        )
        heat_memory = driver.allocate(4 * height * width)
        heat = DeviceArray(heat_memory.pointer, (height, width), np.dtype(np.float32), owner=heat_memory)
        heat_map.enqueue(arrays.maps.pointer, arrays.extremes.pointer, heat, stream)
        image, values = np.empty_like(cat), np.empty((height, width), np.float32)
        _download(driver, stream, frame, image)
        driver.download(heat.pointer, values, stream)
        stream.synchronize()
        cam.close()
    assert_alike(image, result.overlay())
    np.testing.assert_allclose(values, result.heatmap(), rtol=0, atol=1e-5)
    expected = class_maps(result.features, weights[[result.top[0].index]])  # type: ignore[index]
    np.testing.assert_allclose(result.map(), expected[0], rtol=0, atol=1e-5 * np.abs(expected).max())


def test_frames_that_do_not_fit_are_refused_in_a_line(driver: HostDriver) -> None:
    layout, other = FrameLayout("bgr", 8, 8), FrameLayout("bgr", 8, 9)
    placement = placed((8, 8), (8, 8), "squash")
    settings_ = {"placement": placement, "input_size": (8, 8), "map_size": (2, 2)}
    with driver.active():
        stream = driver.stream()
        memory = driver.allocate(300)
        good, bad = (DeviceFrame(one, ((memory.pointer, 32),)) for one in (layout, other))
        with_frame = Overlay(driver, driver.module(), layout=layout, **settings_)
        without = Overlay(driver, driver.module(), layout=layout, with_frame=False, **settings_)
        with pytest.raises(FrameError, match="got no frame; expected one"):
            with_frame.enqueue(memory.pointer, memory.pointer, None, good, stream)
        with pytest.raises(FrameError, match="got a frame; expected None"):
            without.enqueue(memory.pointer, memory.pointer, good, good, stream)
        with pytest.raises(FrameError, match=r"width=9.*width=8"):
            with_frame.enqueue(memory.pointer, memory.pointer, good, bad, stream)
        heat_map = HeatMap(driver, driver.module(), frame_size=(8, 8), **settings_)
        with pytest.raises(UsageError, match=r"expected \(8, 8\) float32"):
            heat_map.enqueue(
                memory.pointer, memory.pointer, DeviceArray(memory.pointer, (8, 7), np.dtype(np.float32)), stream
            )
        for wrong in ({"alpha": 2.0}, {"colormap": "jte"}, {"normalization": "fixed"}):
            with pytest.raises(UsageError):
                Overlay(driver, driver.module(), layout=layout, **settings_, **wrong)  # type: ignore[arg-type]
