"""The preprocessing kernels against the reference in NumPy and OpenCV, and against float64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from device_frames import as_bgr, layout_of, random_frame, upload_frame
from host_driver import HostDriver
from hypothesis import given, settings
from hypothesis import strategies as st

import gapcam
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.preprocess import Preprocessor
from gapcam.cuda.resampling import MOST_HALVINGS, resampling
from gapcam.geometry import place

FORMATS = ("bgr", "bgra", "nv12")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZES = ("squash", "crop", "letterbox")
# What OpenCV's fixed-point weights of 11 bits and the rounding to uint8 that follows can differ by, in grey levels:
# half a level for the rounding, and for each tap of both sides half a step of its weight, of 255 levels.
FIXED_POINT = {"nearest": 0.0, "bilinear": 1.0, "bicubic": 1.25, "lanczos": 2.25}
NEAR_A_TIE = 1e-3
"""Of a level: nearer than that to half way between two, float32's sums may go to either."""
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
"""A normalisation that leaves pixels as they are."""


@pytest.fixture(scope="module")
def driver(host_library: Path) -> HostDriver:
    """Memory ends at an unmapped page but for 4 bytes: reads past a frame's or a table's end fault."""
    return HostDriver(host_library, alignment=4)


def run(
    driver: HostDriver,
    frame: np.ndarray,
    frame_format: str,
    how: gapcam.Preprocessing,
    dtype: object = np.float32,
    **placing: int,
) -> np.ndarray:
    """The kernel's output for a frame."""
    with driver.active():
        stream = driver.stream()
        preprocessor = Preprocessor(driver, driver.module(), how, layout_of(frame, frame_format), dtype)
        shape = (*how.size, 3) if how.embedded else (3, *how.size)
        memory = driver.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        device_frame = upload_frame(driver, stream, frame, frame_format, **placing)
        preprocessor.enqueue(device_frame, DeviceArray(memory.pointer, shape, np.dtype(dtype)), stream)
        out = np.empty(shape, dtype)
        driver.download(memory.pointer, out, stream)
        stream.synchronize()
        preprocessor.close()
    return out


@dataclass
class Exact:
    """What the kernel computes, in float64 until it rounds, and how far from that the reference may be."""

    pixels: np.ndarray
    reference_error: float


def exact(bgr: np.ndarray, how: gapcam.Preprocessing) -> Exact:
    """Pixels [H,W,3] BGR by means of 2 x 2 and matrix products, clipped, with the bars of a letterbox."""
    placement = place(bgr.shape[:2], how)
    seen, target = placement.frame_rect, placement.input_rect
    resized = resampling((seen.height, seen.width), (target.height, target.width), how.interpolation)
    image = bgr[seen.rows, seen.columns].astype(np.int64)
    for _ in range(resized.halvings):
        image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2] + 2) // 4
    by_rows, by_columns = resized.rows.matrix(len(image)), resized.columns.matrix(image.shape[1])
    source = np.moveaxis(image.astype(np.float64), 2, 0)
    pixels = np.full((*how.size, 3), how.pad, np.float64)
    sums = np.moveaxis(by_rows @ source @ by_columns.T, 0, 2) * resized.share
    pixels[target.rows, target.columns] = np.clip(sums, 0, 255)

    error = 0.0
    if how.interpolation != "nearest":
        height, width, halvings = seen.height, seen.width, 0
        while height % 2 == width % 2 == 0 and height >= 4 * target.height and width >= 4 * target.width:
            height, width, halvings = height // 2, width // 2, halvings + 1
        halvings += (height, width) == (2 * target.height, 2 * target.width)
        error += 0.5 * max(halvings - MOST_HALVINGS, 0)
        if height < target.height or width < target.width:
            gain = np.abs(by_rows).sum(axis=1).max() * np.abs(by_columns).sum(axis=1).max()
            between = height > target.height or width > target.width
            error += FIXED_POINT[how.interpolation] + 0.5 * gain * between
    return Exact(pixels, float(error))


def check(driver: HostDriver, frame: np.ndarray, frame_format: str, how: dict[str, object], **placing: int) -> int:
    """Float64's rounding and the reference, but for ties and what Preprocessor says. In how many values it differs."""
    bgr = as_bgr(frame, frame_format)
    floats = gapcam.Preprocessing(color="bgr", **PIXELS, **how)  # type: ignore[arg-type]
    embedded = gapcam.Preprocessing(color="bgr", embedded=True, **how)  # type: ignore[arg-type]
    oracle = exact(bgr, floats)
    got = run(driver, frame, frame_format, embedded, np.uint8, **placing)
    assert np.abs(got - oracle.pixels).max() <= 0.5 + NEAR_A_TIE
    np.testing.assert_array_equal(np.moveaxis(run(driver, frame, frame_format, floats, **placing), 0, 2), got)
    difference = np.abs(got.astype(int) - gapcam.preprocess(bgr, embedded))
    if oracle.reference_error:
        assert difference.max() <= np.floor(oracle.reference_error + 0.5)
    else:
        assert difference.max() <= 1
        ties = np.abs(oracle.pixels % 1 - 0.5) <= NEAR_A_TIE
        assert not difference[~ties].any()
    return int(np.count_nonzero(difference))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize("size", [(150, 202), (24, 30), (20, 300), (302, 20), (41, 67)])
def test_a_frame_shrinks_grows_and_does_both(
    driver: HostDriver, size: tuple[int, int], frame_format: str, resize: str, interpolation: str
) -> None:
    rng = np.random.default_rng(0)
    height, width = (size[0] // 2 * 2, size[1] // 2 * 2) if frame_format == "nv12" else size
    frame = random_frame(rng, FrameLayout(frame_format, height, width))
    how = {"size": (37, 45), "resize": resize, "interpolation": interpolation, "pad": 114, "crop_pct": 0.875}
    check(driver, frame, frame_format, how)


@given(
    st.integers(1, 60),
    st.integers(1, 90),
    st.integers(1, 40),
    st.integers(1, 70),
    st.sampled_from(FORMATS),
    st.sampled_from(RESIZES),
    st.sampled_from(INTERPOLATIONS),
    st.integers(0, 5),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=150)
def test_any_geometry_pitch_and_address(
    host_library: Path,
    height: int,
    width: int,
    target_height: int,
    target_width: int,
    frame_format: str,
    resize: str,
    interpolation: str,
    extra_pitch: int,
    misaligned: int,
    seed: int,
) -> None:
    if frame_format == "nv12":
        height, width = 2 * height, 2 * width
    frame = random_frame(np.random.default_rng(seed), FrameLayout(frame_format, height, width))
    how = {"size": (target_height, target_width), "resize": resize, "interpolation": interpolation, "pad": 7}
    driver = HostDriver(host_library, alignment=4)
    check(driver, frame, frame_format, how, extra_pitch=extra_pitch, misaligned=misaligned)


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    ("size", "halvings"), [((480, 640), 0), ((720, 1280), 0), ((1080, 1920), 1), ((2160, 3840), 2)]
)
def test_of_a_camera_frame_only_ties_differ(
    driver: HostDriver, size: tuple[int, int], halvings: int, frame_format: str
) -> None:
    """Noise has a tie for each denominator of the weights: 1080p 135 by 30, so one in 4050, of which some differ."""
    assert resampling(size, (224, 224), "bilinear").halvings == halvings
    frame = random_frame(np.random.default_rng(1), FrameLayout(frame_format, *size))
    differ = check(driver, frame, frame_format, {"size": (224, 224)})
    assert differ <= (1e-3 if size == (480, 640) else 2e-4) * 224 * 224 * 3


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(
    "size", [(37, 45), (74, 90), (148, 180), (296, 720), (111, 90), (148, 90), (37, 270), (222, 180)]
)
def test_averages_of_whole_pixels_are_equal_to_the_reference(
    driver: HostDriver, size: tuple[int, int], frame_format: str
) -> None:
    """Ties, too, of which 2 x 2 go up and all others to the even."""
    if frame_format == "nv12" and (size[0] % 2 or size[1] % 2):
        pytest.skip("NV12 has even sides")
    frame = random_frame(np.random.default_rng(6), FrameLayout(frame_format, *size))
    assert check(driver, frame, frame_format, {"size": (37, 45)}) == 0


@pytest.mark.parametrize("frame_format", FORMATS)
@pytest.mark.parametrize(("seen", "halvings"), [(38, 1), (76, 2)])
@pytest.mark.parametrize(("above", "left"), [(0, 1), (1, 0), (3, 5), (2, 6), (7, 4)])
def test_a_crop_is_halved_from_its_own_first_pixel(
    driver: HostDriver, above: int, left: int, seen: int, halvings: int, frame_format: str
) -> None:
    """Its blocks begin in odd rows and columns of the frame, too, where words and NV12's chroma do not."""
    assert resampling((seen, seen), (9, 9), "bilinear").halvings == halvings
    frame = random_frame(np.random.default_rng(7), FrameLayout(frame_format, seen + 2 * above, seen + 2 * left))
    # The crop is the largest square, times crop_pct.
    crop_pct = seen / (seen + 2 * min(above, left))
    how = {"size": (9, 9), "resize": "crop", "crop_pct": crop_pct}
    rect = place((seen + 2 * above, seen + 2 * left), gapcam.Preprocessing(**how)).frame_rect  # type: ignore[arg-type]
    assert rect == (left, above, seen, seen)
    for misaligned in range(2):
        assert check(driver, frame, frame_format, how, misaligned=misaligned) <= 2


@pytest.mark.parametrize("frame_format", FORMATS)
def test_more_halvings_than_the_kernel_has_are_averaged_unrounded(driver: HostDriver, frame_format: str) -> None:
    frame = random_frame(np.random.default_rng(8), FrameLayout(frame_format, 1152, 640))
    for size in ((18, 10), (9, 10), (12, 7), (144, 80)):  # the reference halves 6, 6, 5 and 3 times
        assert 0 < check(driver, frame, frame_format, {"size": size}) <= 0.5 * size[0] * size[1] * 3


@pytest.mark.parametrize("size", [(1, 1), (1, 9000), (9000, 1), (3, 20_000)])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("frame_format", ["bgr", "bgra"])
def test_extreme_frames(driver: HostDriver, size: tuple[int, int], resize: str, frame_format: str) -> None:
    """Windows longer than shared memory are summed in stretches."""
    frame = random_frame(np.random.default_rng(2), FrameLayout(frame_format, *size))
    check(driver, frame, frame_format, {"size": (32, 40), "resize": resize})


def test_a_frame_of_the_inputs_size_is_equal_to_the_reference(driver: HostDriver) -> None:
    """To the last bit, in float32, float16 and uint8, in both channel orders."""
    rng = np.random.default_rng(3)
    for frame_format in FORMATS:
        frame = random_frame(rng, FrameLayout(frame_format, 48, 70))
        bgr = as_bgr(frame, frame_format)
        for color in ("rgb", "bgr"):
            how = gapcam.Preprocessing(size=(48, 70), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), color=color)
            expected = gapcam.preprocess(bgr, how)
            np.testing.assert_array_equal(run(driver, frame, frame_format, how), expected)
            half = run(driver, frame, frame_format, how, np.float16)
            np.testing.assert_array_equal(half, expected.astype(np.float16))
            embedded = gapcam.Preprocessing(size=(48, 70), color=color, embedded=True)
            np.testing.assert_array_equal(
                run(driver, frame, frame_format, embedded, np.uint8), gapcam.preprocess(bgr, embedded)
            )


def test_half_precision_is_the_rounded_float(driver: HostDriver) -> None:
    frame = random_frame(np.random.default_rng(4), FrameLayout("bgr", 100, 130))
    how = gapcam.Preprocessing(size=(33, 65), resize="letterbox")
    np.testing.assert_array_equal(
        run(driver, frame, "bgr", how, np.float16), run(driver, frame, "bgr", how).astype(np.float16)
    )


def test_every_colour_of_nv12_is_converted_as_opencv_does(driver: HostDriver) -> None:
    """Y by all, U and V by every third value and the last: 256 x 87 x 87 colours."""
    steps = np.append(np.arange(0, 256, 3), 255).astype(np.uint8)
    u, v = np.meshgrid(steps, steps)
    pairs = np.stack([u, v], axis=-1).reshape(-1, 2)
    pairs = np.concatenate([pairs, pairs[: -len(pairs) % 256]]).reshape(-1, 256, 2)
    for first in range(0, 256, 64):  # each pair of chroma has four lumas a frame
        lumas = np.arange(first, first + 64, dtype=np.uint8).reshape(16, 2, 2)
        for luma in lumas[:: 16 if first not in (0, 192) else 1]:
            frame = np.concatenate([np.tile(luma, (len(pairs), 256)), pairs.reshape(len(pairs), 512)])
            how = gapcam.Preprocessing(size=(2 * len(pairs), 512), color="bgr", embedded=True)
            got = run(driver, np.ascontiguousarray(frame), "nv12", how, np.uint8)
            np.testing.assert_array_equal(got, cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12))


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920)])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee", "rocket"])
def test_photographs_are_preprocessed_as_by_the_reference(
    driver: HostDriver, name: str, resize: str, size: tuple[int, int]
) -> None:
    """With the normalisation of a network: all but a few ties to the last bit."""
    from gapcam_export.photographs import photograph

    frame = cv2.resize(photograph(name), size[::-1], interpolation=cv2.INTER_CUBIC)
    check(driver, frame, "bgr", {"size": (224, 224), "resize": resize})
    how = gapcam.Preprocessing(size=(224, 224), resize=resize)
    got, expected = run(driver, frame, "bgr", how), gapcam.preprocess(frame, how)
    assert np.count_nonzero(got != expected) <= 3e-4 * got.size
    assert np.abs(got - expected).max() <= 1.001 / (255 * min(how.std))


def test_real_images(driver: HostDriver, data: Path) -> None:
    for path in sorted((data / "imagenet_val").glob("*.JPEG"))[:20]:
        check(driver, gapcam.read_image(path), "bgr", {"size": (224, 224), "resize": "crop", "crop_pct": 0.875})


def test_results_do_not_depend_on_the_order_of_threads(driver: HostDriver) -> None:
    frame = random_frame(np.random.default_rng(5), FrameLayout("bgr", 200, 301))
    how = gapcam.Preprocessing(size=(50, 70))
    forwards = run(driver, frame, "bgr", how)
    driver.run_backwards(True)
    try:
        backwards = run(driver, frame, "bgr", how)
    finally:
        driver.run_backwards(False)
    np.testing.assert_array_equal(forwards, backwards)


def test_slots_of_a_batch_are_written_one_by_one(host: HostDriver) -> None:
    how = gapcam.Preprocessing(size=(20, 36))
    layout = FrameLayout("bgr", 50, 40)
    frames = [random_frame(np.random.default_rng(seed), layout) for seed in range(3)]
    stream = host.stream()
    preprocessor = Preprocessor(host, host.module(), how, layout, np.float32)
    batch = host.allocate(3 * 3 * 20 * 36 * 4)
    for index, frame in enumerate(frames):
        slot = DeviceArray(batch.pointer + index * 3 * 20 * 36 * 4, (3, 20, 36), np.dtype(np.float32))
        preprocessor.enqueue(upload_frame(host, stream, frame, "bgr"), slot, stream)
    out = np.empty((3, 3, 20, 36), np.float32)
    host.download(batch.pointer, out, stream)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(out[index], run(host, frame, "bgr", how))


def test_its_tables_are_freed(host: HostDriver) -> None:
    before = host.allocated_bytes
    preprocessor = Preprocessor(
        host, host.module(), gapcam.Preprocessing(size=(8, 8)), FrameLayout("bgr", 9, 9), np.float32
    )
    assert host.allocated_bytes > before
    preprocessor.close()
    preprocessor.close()
    assert host.allocated_bytes == before


@pytest.mark.parametrize(
    ("embedded", "dtype"), [(False, np.uint8), (True, np.float32), (False, np.float64), (False, np.int32)]
)
def test_an_input_of_another_type_is_refused(host: HostDriver, embedded: bool, dtype: type) -> None:
    how = gapcam.Preprocessing(size=(8, 8), embedded=embedded)
    with pytest.raises(gapcam.UsageError, match=f"input is {np.dtype(dtype)}; its preprocessing gives"):
        Preprocessor(host, host.module(), how, FrameLayout("bgr", 9, 9), dtype)


def test_another_layout_or_slot_is_refused(host: HostDriver) -> None:
    stream, float32 = host.stream(), np.dtype(np.float32)
    how, layout = gapcam.Preprocessing(size=(8, 8)), FrameLayout("bgr", 6, 6)
    preprocessor = Preprocessor(host, host.module(), how, layout, float32)
    memory = host.allocate(4 * 3 * 8 * 8)
    frame = upload_frame(host, stream, np.zeros((6, 6, 3), np.uint8), "bgr")
    other = upload_frame(host, stream, np.zeros((6, 7, 3), np.uint8), "bgr")
    with pytest.raises(gapcam.UsageError, match=r"width=7.*expected.*width=6"):
        preprocessor.enqueue(other, DeviceArray(memory.pointer, (3, 8, 8), float32), stream)
    for wrong in (
        DeviceArray(memory.pointer, (1, 3, 8, 8), float32),
        DeviceArray(memory.pointer, (3, 8, 8), np.dtype(np.float16)),
        DeviceArray(memory.pointer, (3, 8, 8), float32, strides=(4, 96, 12)),
    ):
        with pytest.raises(gapcam.UsageError, match="expected contiguous float32 of shape"):
            preprocessor.enqueue(frame, wrong, stream)
