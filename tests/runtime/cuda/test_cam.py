"""The kernel of class activation maps against the NumPy reference: top k, scores, maps and their extremes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_driver import HostDriver
from hypothesis import given, settings
from hypothesis import strategies as st

import gapcam
from gapcam.cam import class_maps
from gapcam.class_rows import rows_of_image
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamLayout, CamStatus, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.errors import UsageError
from gapcam.geometry import Placement, Rect
from gapcam.scores import scores_from_logits
from gapcam.upsample import seen_part

INPUT = (32, 48)
WHOLE = Rect(0, 0, 48, 32)


@pytest.fixture(scope="module")
def driver(host_library: Path) -> HostDriver:
    """Memory ends at an unmapped page but for 4 bytes: reads past an array's end fault."""
    return HostDriver(host_library, alignment=4)


class Model:
    """Random outputs of a head of a kind, as `Session.infer` would give them."""

    def __init__(
        self,
        kind: HeadKind,
        shape: tuple[int, int, int, int],
        classes: int,
        *,
        dtype: Any = np.float32,
        places: int = 3,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        images, channels, _, _ = shape
        self.kind = kind
        self.map_size = shape[2:]
        self.outputs = {
            "logits": rng.normal(size=(images, classes)).astype(dtype),
            "features": rng.normal(size=shape).astype(dtype),
        }
        self.weights: np.ndarray | None = None
        if kind in (HeadKind.AFFINE, HeadKind.LAYERNORM):
            self.weights = rng.normal(size=(classes, channels)).astype(np.float32)
        if kind is HeadKind.LAYERNORM:
            self.outputs["cam_scale"] = rng.uniform(0.5, 2, images).astype(dtype)
        if kind is HeadKind.NONLINEAR:
            order = np.argsort(-self.outputs["logits"], axis=1, kind="stable")[:, :places]
            self.outputs["topk_classes"] = order.astype(np.int64)
            self.outputs["topk_weights"] = rng.normal(size=(images, places, channels)).astype(dtype)

    def reference(self, image: int, classes: Sequence[int], *, clamp_negative: bool = False) -> np.ndarray:
        """[n,h,w], in NumPy, and the sum of the sizes of what is summed: what float32 may err by a part of."""
        features = self.outputs["features"][image]
        rows = rows_of_image(self.weights, self.outputs, image)
        if rows is None:
            return features[list(classes)].astype(np.float32)
        return class_maps(features, rows.of(classes), clamp_negative=clamp_negative)

    def scale(self, image: int, classes: Sequence[int]) -> float:
        """The greatest sum of the sizes of what is summed up: float32 errs by a small part of that."""
        rows = rows_of_image(self.weights, self.outputs, image)
        sizes = np.abs(self.outputs["features"][image].astype(np.float64))
        if rows is None:
            return float(sizes.max())
        return float(np.einsum("nc,chw->nhw", np.abs(rows.of(classes)).astype(np.float64), sizes).max())


def run(
    driver: HostDriver,
    model: Model,
    count: int,
    *,
    targets: np.ndarray | None = None,
    seen: Sequence[Rect] | None = None,
    clamp_negative: bool = False,
    scoring: Any = "softmax",
    times: int = 1,
) -> Mapping[str, np.ndarray]:
    """What the kernel gives, by the names in `CamArrays`."""
    images = len(model.outputs["logits"])
    with driver.active():
        stream = driver.stream()
        (weights,) = device_constants(driver, model.weights) if model.weights is not None else (None,)
        outputs = {name: device_constants(driver, array)[0] for name, array in model.outputs.items()}
        cam = Cam(
            driver,
            driver.module(),
            kind=model.kind,
            map_size=model.map_size,
            input_size=INPUT,
            weights=weights,
            scoring=scoring,
            images=images,
            count=count,
        )
        layout = CamLayout(images, count, model.map_size)
        into = new_cam_arrays(layout, driver.allocate)
        wanted = None if targets is None else device_constants(driver, targets.astype(np.int32))[0]
        for _ in range(times):
            cam.enqueue(outputs, seen or [WHOLE] * images, into, stream, targets=wanted, clamp_negative=clamp_negative)
        buffer = np.zeros(layout.nbytes, np.uint8)
        driver.download(into.classes.pointer, buffer, stream)
        stream.synchronize()
        cam.close()
    return layout.on_host(buffer)


def check(model: Model, got: Mapping[str, np.ndarray], seen: Sequence[Rect], *, clamp_negative: bool = False) -> None:
    """Maps and extremes against the reference, of the classes that the kernel names."""
    for image, rect in enumerate(seen):
        classes = got["classes"][image].tolist()
        expected = model.reference(image, classes, clamp_negative=clamp_negative)
        bound = 2e-6 * model.scale(image, classes)
        np.testing.assert_allclose(got["maps"][image], expected, rtol=0, atol=bound)
        for values, extremes in zip(got["maps"][image], got["extremes"][image], strict=True):
            part = seen_part(values, INPUT, Placement(rect, rect))
            np.testing.assert_allclose(extremes, [part.min(), part.max()], rtol=1e-6, atol=bound)


HEADS = [kind for kind in HeadKind if kind is not HeadKind.NONE]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("clamp_negative", [False, True])
def test_every_head_in_both_precisions(driver: HostDriver, kind: HeadKind, dtype: Any, clamp_negative: bool) -> None:
    """The best three of seven classes for two images, seven channels, maps of 3 x 5: nothing divides evenly."""
    channels = 7 if kind is HeadKind.CLASS_MAPS else 13
    model = Model(kind, (2, channels, 3, 5), 7, dtype=dtype)
    got = run(driver, model, 3, clamp_negative=clamp_negative)
    logits = model.outputs["logits"].astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(got["classes"], order)
    np.testing.assert_array_equal(got["logits"], np.take_along_axis(logits, order, axis=1))
    expected = np.stack([scores_from_logits(row, "softmax") for row in logits])
    np.testing.assert_allclose(got["scores"], np.take_along_axis(expected, order, axis=1), rtol=2e-6)
    assert not got["status"].any()
    check(model, got, [WHOLE] * 2, clamp_negative=clamp_negative)


@pytest.mark.parametrize(
    ("shape", "classes", "count"),
    [
        ((1, 2048, 7, 7), 1000, 1),  # ResNet-50
        ((1, 1280, 7, 7), 1000, 5),  # EfficientNet-Lite0
        ((1, 384, 14, 14), 1000, 2),
        ((1, 61, 56, 56), 20, 2),  # more pixels than threads: tiles
        ((2, 5, 20, 31), 9, 9),  # every class
        ((3, 1, 1, 1), 1, 1),
        ((1, 700, 1, 1), 3, 2),  # a pixel, and 256 threads to sum its channels
        ((1, 9, 1, 257), 4, 1),
        ((5, 40, 2, 2), 50, 3),
    ],
)
def test_sizes_of_real_networks_and_odd_ones(
    driver: HostDriver, shape: tuple[int, int, int, int], classes: int, count: int
) -> None:
    model = Model(HeadKind.AFFINE, shape, classes)
    got = run(driver, model, count)
    order = np.argsort(-model.outputs["logits"], axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(got["classes"], order)
    check(model, got, [WHOLE] * shape[0])


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_sizes(driver: HostDriver, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    kind = data.draw(st.sampled_from(HEADS))
    images, classes, channels, height, width = draw(1, 3), draw(1, 30), draw(1, 90), draw(1, 19), draw(1, 19)
    channels = classes if kind is HeadKind.CLASS_MAPS else channels
    count = draw(1, min(classes, 4))
    model = Model(kind, (images, channels, height, width), classes, places=count, seed=draw(0, 99))
    x, y = draw(0, 47), draw(0, 31)
    rects = [Rect(x, y, draw(1, 48 - x), draw(1, 32 - y)) for _ in range(images)]
    got = run(driver, model, count, seen=rects)
    order = np.argsort(-model.outputs["logits"], axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(got["classes"], order)
    check(model, got, rects)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_scores_do_not_overflow(driver: HostDriver, scoring: Any) -> None:
    model = Model(HeadKind.AFFINE, (2, 4, 2, 2), 5)
    model.outputs["logits"] = np.array([[3e4, 2.9999e4, -1, 0, 5], [-200, -100, -101, -1e30, -150]], np.float32)
    got = run(driver, model, 5, scoring=scoring)
    for image, logits in enumerate(model.outputs["logits"]):
        expected = scores_from_logits(logits, scoring)[got["classes"][image]]
        np.testing.assert_allclose(got["scores"][image], expected, rtol=2e-6, atol=1e-37)
    assert not got["status"].any()


def test_among_equals_the_lower_index_comes_first(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (1, 4, 2, 2), 600)
    logits = np.zeros(600, np.float32)
    logits[[5, 300, 599]] = 1
    logits[::2] *= -1  # -0 equals 0; class 300 has -1
    model.outputs["logits"] = logits[None]
    got = run(driver, model, 6)
    assert got["classes"][0].tolist() == [5, 599, 0, 1, 2, 3]


def test_classes_that_are_asked_for_come_in_their_order(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (2, 6, 3, 3), 8)
    targets = np.array([[7, 0, 7], [3, 2, 1]])
    got = run(driver, model, 3, targets=targets)
    np.testing.assert_array_equal(got["classes"], targets)
    np.testing.assert_array_equal(got["logits"], np.take_along_axis(model.outputs["logits"], targets, axis=1))
    check(model, got, [WHOLE] * 2)


@pytest.mark.parametrize("target", [-1, 8, 1 << 30])
def test_a_class_that_there_is_not_is_said_and_has_no_map(driver: HostDriver, target: int) -> None:
    model = Model(HeadKind.AFFINE, (1, 6, 3, 3), 8)
    got = run(driver, model, 2, targets=np.array([[target, 3]]))
    assert got["status"].tolist() == [[CamStatus.NO_CLASS, 0]]
    assert np.isnan(got["maps"][0, 0]).all()
    assert np.isnan(got["extremes"][0, 0]).all()
    np.testing.assert_allclose(got["maps"][0, 1], model.reference(0, [3])[0], atol=1e-5)


def test_a_class_without_a_row_is_said_and_has_no_map(driver: HostDriver) -> None:
    model = Model(HeadKind.NONLINEAR, (1, 6, 3, 3), 8, places=2)
    last, second = int(model.outputs["logits"].argmin()), int(model.outputs["topk_classes"][0, 1])
    got = run(driver, model, 2, targets=np.array([[last, second]]))
    assert got["status"].tolist() == [[CamStatus.NO_ROW, 0]]
    assert np.isnan(got["maps"][0, 0]).all()
    np.testing.assert_allclose(got["maps"][0, 1], model.reference(0, [second])[0], atol=1e-5)


def test_rows_of_int32_classes_as_tensorrt_may_give_them(driver: HostDriver) -> None:
    model = Model(HeadKind.NONLINEAR, (3, 6, 3, 3), 8, places=4)
    model.outputs["topk_classes"] = model.outputs["topk_classes"].astype(np.int32)
    got = run(driver, model, 4)
    np.testing.assert_array_equal(got["classes"], model.outputs["topk_classes"])
    check(model, got, [WHOLE] * 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_said_and_the_rest_of_the_batch_is_right(driver: HostDriver, bad: float) -> None:
    model = Model(HeadKind.AFFINE, (2, 6, 3, 3), 8)
    model.outputs["logits"][0, 4] = bad
    got = run(driver, model, 8)
    assert (got["status"] == [[CamStatus.LOGITS_NOT_FINITE], [0]]).all()
    assert sorted(got["classes"][0]) == list(range(8))  # each once, whatever the order
    assert got["classes"][0, 0 if bad == np.inf else 7] == 4  # NaN and -inf last
    order = np.argsort(-model.outputs["logits"][1], kind="stable")
    np.testing.assert_array_equal(got["classes"][1], order)


def test_logits_that_are_all_nan_do_no_harm(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (1, 6, 3, 3), 8)
    model.outputs["logits"][:] = np.nan
    got = run(driver, model, 8)
    assert (got["status"] == CamStatus.LOGITS_NOT_FINITE).all()
    assert got["classes"][0].tolist() == list(range(8))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_not_positive_is_said(driver: HostDriver, scale: float) -> None:
    model = Model(HeadKind.LAYERNORM, (2, 6, 3, 3), 8)
    model.outputs["cam_scale"][1] = scale
    got = run(driver, model, 1)
    assert got["status"].tolist() == [[0], [CamStatus.SCALE_NOT_POSITIVE]]


def test_a_row_that_is_not_finite_is_said(driver: HostDriver) -> None:
    model = Model(HeadKind.NONLINEAR, (2, 6, 3, 3), 8)
    model.outputs["topk_weights"][0, 2, 5] = np.inf
    got = run(driver, model, 1)
    assert got["status"].tolist() == [[CamStatus.ROWS_NOT_FINITE], [0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1, 6, 4, 4), (1, 6, 20, 20)])
def test_a_map_that_is_not_finite_where_the_network_saw_has_nan_as_extremes(
    driver: HostDriver, bad: float, shape: tuple[int, int, int, int]
) -> None:
    model = Model(HeadKind.AFFINE, shape, 3)
    model.outputs["features"][0, 2, 0, 0] = bad
    got = run(driver, model, 1)
    assert not np.isfinite(got["maps"][0, 0, 0, 0])
    assert np.isfinite(got["maps"][0, 0].ravel()[1:]).all()
    assert np.isnan(got["extremes"]).all()


def test_what_lies_on_the_letterboxs_bars_is_not_among_the_extremes(driver: HostDriver) -> None:
    """The map's upper and lower quarter are on the bars, and hold its extremes or NaN."""
    model = Model(HeadKind.CLASS_MAPS, (2, 1, 8, 6), 1)
    model.outputs["features"][0, 0, 0] = 100
    model.outputs["features"][1, 0, 7] = np.nan
    seen = Rect(0, 8, 48, 16)
    got = run(driver, model, 1, seen=[seen] * 2)
    np.testing.assert_array_equal(got["maps"], model.outputs["features"])
    for values, extremes in zip(got["maps"][:, 0], got["extremes"][:, 0], strict=True):
        part = seen_part(values, INPUT, Placement(seen, seen))
        np.testing.assert_allclose(extremes, [part.min(), part.max()], rtol=1e-6)
        assert part.max() < 10


def test_images_of_a_batch_have_windows_of_their_own(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (4, 6, 7, 7), 3)
    seen = [WHOLE, Rect(0, 8, 48, 16), Rect(0, 8, 48, 16), Rect(16, 0, 16, 32)]
    driver.launches.clear()
    check(model, run(driver, model, 2, seen=seen), seen)
    assert driver.launches == ["cam"] * 3  # one for each series of equal windows


def test_huge_values_stay_what_they_are(driver: HostDriver) -> None:
    model = Model(HeadKind.CLASS_MAPS, (1, 1, 2, 2), 1)
    model.outputs["features"][0, 0] = [[3e38, -3e38], [1e-45, 0]]
    got = run(driver, model, 1)
    np.testing.assert_array_equal(got["maps"][0, 0], model.outputs["features"][0, 0])
    np.testing.assert_array_equal(got["extremes"][0, 0], np.float32([-3e38, 3e38]))


@pytest.mark.parametrize("shape", [(2, 300, 7, 7), (1, 64, 20, 20)])
def test_every_run_and_every_order_of_blocks_gives_the_same_bits(
    driver: HostDriver, shape: tuple[int, int, int, int]
) -> None:
    """Also the second and third launch with the same memory: counters are zero again, so that a graph can replay."""
    model = Model(HeadKind.AFFINE, shape, 10)
    first = run(driver, model, 2)
    again = run(driver, model, 2, times=3)
    driver.run_backwards(True)
    try:
        backwards = run(driver, model, 2, times=2)
    finally:
        driver.run_backwards(False)
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
        np.testing.assert_array_equal(backwards[name], array)


def test_float16_features_are_summed_in_float32(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (1, 2048, 1, 1), 1, dtype=np.float16)
    model.outputs["features"][:] = 60  # the sum is beyond float16's 65504
    assert model.weights is not None
    model.weights[:] = 1
    assert run(driver, model, 1)["maps"].item() == 60 * 2048


@pytest.mark.parametrize("half", ["logits", "features", "cam_scale"])
def test_each_output_has_a_dtype_of_its_own(driver: HostDriver, half: str) -> None:
    model = Model(HeadKind.LAYERNORM, (2, 33, 3, 3), 5)
    model.outputs[half] = model.outputs[half].astype(np.float16)
    got = run(driver, model, 5)
    np.testing.assert_array_equal(got["logits"], -np.sort(-model.outputs["logits"].astype(np.float32), axis=1))
    check(model, got, [WHOLE] * 2)


def test_weights_may_be_float16_too(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (1, 33, 3, 3), 5)
    assert model.weights is not None
    model.weights = model.weights.astype(np.float16)
    check(model, run(driver, model, 5), [WHOLE])


def test_real_features_of_a_photograph(driver: HostDriver, demo_model: Path, cat: np.ndarray) -> None:
    """EfficientNet-Lite0: the three best classes of the cat, as the session has them."""
    with gapcam.load(demo_model, threads=1) as session:
        result = session(cat)
        model = Model(HeadKind.AFFINE, (1, *result.features.shape), len(result.logits))
        model.outputs = {"logits": result.logits[None], "features": result.features[None]}
        model.weights = session.weights
    got = run(driver, model, 3)
    assert got["classes"][0].tolist() == [prediction.index for prediction in result.best(3)]
    np.testing.assert_allclose(got["scores"][0], [prediction.score for prediction in result.best(3)], rtol=1e-5)
    for index, values in zip(got["classes"][0].tolist(), got["maps"][0], strict=True):
        expected = result.map(index)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    check(model, got, [WHOLE])


def test_what_does_not_fit_is_refused_in_a_line(driver: HostDriver) -> None:
    model = Model(HeadKind.AFFINE, (1, 6, 3, 3), 8)
    with pytest.raises(UsageError, match="at most 1 and 9, and the model has 8 classes"):
        run(driver, model, 9)
    with pytest.raises(UsageError, match="expected one of each an image"):
        run(driver, model, 1, seen=[WHOLE, WHOLE])
    with pytest.raises(UsageError, match=r"expected \(1, 2\) int32"):
        run(driver, model, 2, targets=np.array([[1]]))
    model.outputs["features"] = model.outputs["features"].astype(np.float64)
    with pytest.raises(UsageError, match="float32 or float16"):
        run(driver, model, 1)
    model.weights = None
    with pytest.raises(UsageError, match="got none for a head of kind 'affine'"):
        run(driver, model, 1)
