"""Results of a session on a device: the same as NumPy's, whatever happens meanwhile.

Where results are compared closely, the reference has the very input that the kernels preprocessed; in what
that differs from OpenCV's is the matter of test_preprocess.py.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from device_frames import as_bgr, random_frame, upload_frame
from host_device_backend import HostDeviceBackend, host_view
from host_driver import HostDriver
from numpy.typing import NDArray
from small_heads import normed, normed_contract, squared, squared_contract
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.cam import normalize
from gapcam.class_rows import rows_of_image
from gapcam.contract import HeadKind
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameFormat, FrameLayout
from gapcam.cuda.frame_copy import download_frame, empty_frame
from gapcam.model_check import check_run
from gapcam.numpy_post_process import NumpyPostProcess
from gapcam.step_times import StepTimes
from gapcam.upsample import seen_part

SIZE = (12, 16)

MODELS: dict[str, Callable[..., Path]] = {
    "affine": lambda path, **settings: red_and_blue(path, contract=a_contract(SIZE, **settings)),
    "class-maps": lambda path, **settings: red_and_blue(
        path, contract=a_contract(SIZE, kind=HeadKind.CLASS_MAPS, **settings)
    ),
    "layernorm": lambda path, **settings: normed(path, contract=normed_contract(size=SIZE, **settings)),
    "nonlinear": lambda path, **settings: squared(path, contract=squared_contract(size=SIZE, **settings)),
    "nonlinear with every map": lambda path, **settings: squared(
        path, contract=squared_contract(size=SIZE, **settings), maps=True
    ),
    "uint8 input": lambda path, **settings: red_and_blue(path, contract=a_contract(SIZE, embedded=True, **settings)),
    "sigmoid": lambda path, **settings: red_and_blue(path, contract=a_contract(SIZE, scores="sigmoid", **settings)),
}


@pytest.fixture(params=[False, True], ids=["at once", "as late as can be"])
def driver(request: pytest.FixtureRequest, host_library: Path) -> HostDriver:
    """Not active: a session sees to that."""
    return HostDriver(host_library, deferred=request.param)


@pytest.fixture
def prompt(host_library: Path) -> HostDriver:
    """A driver that several threads may use."""
    return HostDriver(host_library)


def opened(path: Path, driver: HostDriver, **settings: Any) -> tuple[gapcam.Session, HostDeviceBackend]:
    with driver.active():
        backend, module = HostDeviceBackend(path, driver), driver.module()
    return gapcam.Session(backend, kernels=module, **settings), backend


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A frame with soft spots, as photographs have them."""
    spots = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def reference(session: gapcam.Session, backend: HostDeviceBackend, frame: NDArray[np.uint8]) -> gapcam.Result:
    """NumPy's result for a frame, of the input that the last inference had."""
    model = session._model
    arrays = session.infer(host_view(backend.lanes[-1].image).copy())
    check_run(arrays, 1, model.contract, model.name)
    placement, times = gapcam.geometry.place(frame.shape[:2], model.contract.preprocessing), StepTimes()
    post = NumpyPostProcess(
        frame=frame,
        features=arrays["features"][0],
        rows=rows_of_image(model.weights, arrays, 0),
        every_map=arrays["maps"][0] if "maps" in arrays else None,
        input_size=model.contract.preprocessing.size,
        placement=placement,
        times=times,
    )
    return gapcam.Result(model, arrays["logits"][0], post, placement=placement, times=times)


def assert_same_overlay(
    got: NDArray[np.uint8], expected: gapcam.Result, target: int | str | None = None, **look: Any
) -> None:
    """Within 1 grey level; but where float32 may round a level to its neighbour, within that colour's."""
    clamp = look.get("clamp_negative", False)
    part = seen_part(expected.map(target, clamp_negative=clamp), expected._input_size, expected.placement)
    levels = normalize(part, look.get("normalization", "minmax"), look.get("limits")).astype(np.float64) * 255
    ties = int((np.abs(levels % 1 - 0.5) < 2e-3).sum())
    # How many of the frame's pixels a level is part of, along each side.
    reach = [2 * -(-frame // seen) for frame, seen in zip(expected.frame.shape[:2], part.shape, strict=True)]
    picture = expected.overlay(target, **look)
    assert got.shape == picture.shape
    difference = np.abs(got.astype(int) - picture.astype(int)).max(axis=-1)
    assert difference.max() <= (6 if ties else 1)
    assert (difference > 1).sum() <= ties * reach[0] * reach[1]
    assert ties < 0.1 * part.size  # the small models' maps are multiples of a byte, so that some are


LOOKS: list[dict[str, Any]] = [
    {},
    {"normalization": "max", "colormap": "viridis", "alpha": 0.3},
    {"normalization": "fixed", "limits": (-0.371, 2.613), "alpha": 1.0},
    {"alpha_by_heat": True, "alpha": 0.8},
]


def _message(verb: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(gapcam.MapNotComputedError) as told:
        verb(*arguments, **named)
    return str(told.value)


def assert_same(got: gapcam.Result, expected: gapcam.Result) -> None:
    """Every verb, of every class, says the same."""
    np.testing.assert_array_equal(got.logits, expected.logits)
    np.testing.assert_array_equal(got.scores, expected.scores)
    assert got.top == expected.top
    assert got.placement == expected.placement
    np.testing.assert_array_equal(got.features, expected.features)
    some = 0
    for index in range(len(got.logits)):
        for clamp in (False, True):
            if expected._post.lacking([index], clamp_negative=clamp):
                messages = {
                    _message(verb, index, clamp_negative=clamp)
                    for verb in (expected.map, got.map, got.heatmap, got.boxes, got.overlay)
                }
                assert len(messages) == 1
                continue
            some += 1
            raw = expected.map(index, clamp_negative=clamp)
            np.testing.assert_allclose(got.map(index, clamp_negative=clamp), raw, rtol=1e-5, atol=1e-5)
            assert not got.map(index, clamp_negative=clamp).flags.writeable
            for look in LOOKS:
                of_heat = {name: look[name] for name in ("normalization", "limits") if name in look}
                np.testing.assert_allclose(
                    got.heatmap(index, clamp_negative=clamp, **of_heat),
                    expected.heatmap(index, clamp_negative=clamp, **of_heat),
                    atol=1e-5,
                )
                assert_same_overlay(
                    got.overlay(index, clamp_negative=clamp, **look), expected, index, clamp_negative=clamp, **look
                )
            np.testing.assert_allclose(
                got.boxes(index, threshold=0.6, all_components=True, clamp_negative=clamp),
                expected.boxes(index, threshold=0.6, all_components=True, clamp_negative=clamp),
            )
    assert some >= 2
    best = [entry.index for entry in got.best(2)]
    best += best[:1]  # one may be named twice
    np.testing.assert_allclose(got.maps(best), expected.maps(best), rtol=1e-5, atol=1e-5)
    assert got.maps([]).shape == (0, *SIZE)
    said, wanted = (
        {name: value for name, value in result.to_dict(best).items() if name != "timings_ms"}
        for result in (got, expected)
    )
    assert said == wanted


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_every_verb_gives_what_numpy_gives(driver: HostDriver, tmp_path: Path, kind: str, resize: str) -> None:
    session, backend = opened(MODELS[kind](tmp_path / "m.onnx", resize=resize), driver)
    with session:
        for size in ((37, 53), SIZE, (5, 9)):
            frame = smooth(*size)
            result = session(frame)
            assert isinstance(result, gapcam.DeviceResult)
            assert result.frame is frame
            assert_same(result, reference(session, backend, frame))


def test_a_frame_of_the_inputs_size_gives_what_a_session_on_the_cpu_gives(driver: HostDriver, tmp_path: Path) -> None:
    """Nothing is resized, so that nothing is rounded."""
    path = MODELS["affine"](tmp_path / "m.onnx")
    session, _ = opened(path, driver)
    with session, gapcam.load(path, device="cpu", threads=1) as on_cpu:
        frame = smooth(*SIZE)
        assert_same(session(frame), on_cpu(frame))


def test_a_photograph_through_a_real_network_is_explained_as_on_the_cpu(
    prompt: HostDriver, demo_model: Path, cat: NDArray[np.uint8]
) -> None:
    session, backend = opened(demo_model, prompt)
    with session, gapcam.load(demo_model, device="cpu", threads=1) as on_cpu:
        result, expected = session(cat), on_cpu(cat)
        closely = reference(session, backend, cat)
        assert [entry.index for entry in result.top] == [entry.index for entry in expected.top]
        # A few pixels of the input are ties, which float32 rounds otherwise (test_preprocess.py).
        np.testing.assert_allclose(result.logits, expected.logits, rtol=0, atol=2e-3)
        np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-4)
        assert result.boxes() == expected.boxes()
        for index in (result.top[0].index, result.top[4].index):
            scale = np.abs(closely.map(index)).max()
            np.testing.assert_allclose(result.map(index), expected.map(index), rtol=0, atol=1e-3 * scale)
            np.testing.assert_allclose(result.map(index), closely.map(index), rtol=0, atol=1e-5 * scale)
            np.testing.assert_allclose(result.heatmap(index), closely.heatmap(index), atol=1e-4)
            assert_same_overlay(result.overlay(index), closely, index)
        assert result.boxes() == closely.boxes()


# Formats, and frames on the device.


@pytest.mark.parametrize("frame_format", ["bgra", "nv12"])
def test_frames_of_other_formats_are_explained_as_what_they_show(
    driver: HostDriver, tmp_path: Path, frame_format: FrameFormat
) -> None:
    session, backend = opened(MODELS["affine"](tmp_path / "m.onnx", resize="crop"), driver)
    layout = FrameLayout(frame_format, 30, 44)
    frame = random_frame(np.random.default_rng(3), layout)
    shown = as_bgr(frame, frame_format)
    with session:
        result = session(frame, format=frame_format)
        expected = reference(session, backend, shown)
        assert result.frame is frame
        np.testing.assert_allclose(result.logits, session(shown).logits, atol=1e-5)
        np.testing.assert_allclose(result.map("red"), expected.map("red"), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(result.heatmap("red"), expected.heatmap("red"), atol=1e-5)
        assert result.to_dict()["height"] == 30
        picture = result.overlay("red")
        assert picture.shape == frame.shape
        np.testing.assert_array_equal(result.overlay("red", alpha=0), frame)
        if frame_format == "bgra":
            assert_same_overlay(picture[..., :3], expected, "red")
            np.testing.assert_array_equal(picture[..., 3], frame[..., 3])
            drawn = result.overlay("red", boxes=result.boxes("red", threshold=0.6), caption="x")
            np.testing.assert_array_equal(drawn[..., 3], frame[..., 3])
            np.testing.assert_array_equal(
                drawn[..., :3], _drawn(picture[..., :3], result.boxes("red", threshold=0.6), "x")
            )
        else:
            with pytest.raises(gapcam.UsageError, match="drawn on BGR and BGRA"):
                result.overlay("red", caption="x")
    with pytest.raises(gapcam.UsageError, match="closed"):  # NumPy blends BGR
        result.overlay("red")
    np.testing.assert_allclose(result.heatmap("blue"), expected.heatmap("blue"), atol=1e-5)


def _drawn(picture: NDArray[np.uint8], boxes: object, caption: str) -> NDArray[np.uint8]:
    picture = np.ascontiguousarray(picture)
    gapcam.overlay.draw_boxes(picture, boxes)  # type: ignore[arg-type]
    gapcam.overlay.draw_caption(picture, caption)
    return picture


@pytest.mark.parametrize("frame_format", ["bgr", "bgra", "nv12"])
def test_a_frame_on_the_device_gives_the_same_and_may_be_overwritten_at_once(
    driver: HostDriver, tmp_path: Path, frame_format: FrameFormat
) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    frame = random_frame(np.random.default_rng(4), FrameLayout(frame_format, 22, 34))
    with session, driver.active():
        expected = session(frame, format=frame_format)
        stream = driver.stream()
        there = upload_frame(driver, stream, frame, frame_format, extra_pitch=7, misaligned=3)
        stream.synchronize()
        result = session(there)
        for (pointer, pitch), rows in zip(there.planes, (22, 11), strict=False):
            driver.upload(np.zeros(pitch * (rows - 1), np.uint8), pointer, stream)
        stream.synchronize()
        np.testing.assert_array_equal(result.logits, expected.logits)
        np.testing.assert_array_equal(result.overlay(), expected.overlay())
        np.testing.assert_array_equal(result.frame, frame)
        assert result.frame is result.frame  # downloaded once


class Foreign:
    """An array of another library's, whose stream may still be writing it."""

    def __init__(self, frame: DeviceFrame, stream: int) -> None:
        self.__cuda_array_interface__ = {**frame.array.__cuda_array_interface__, "stream": stream}


def test_a_frame_of_another_library_is_waited_for(host_library: Path, tmp_path: Path) -> None:
    driver = HostDriver(host_library, deferred=True)
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    frame = smooth(20, 30)
    with session, driver.active():
        stream = driver.stream()
        there = upload_frame(driver, stream, frame, "bgr")  # queued, and not there yet
        result = session(Foreign(there, stream.handle))
        np.testing.assert_array_equal(result.logits, session(frame).logits)


class Refusing:
    """As PyTorch does, of a tensor on the GPU that requires a gradient."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad. use var.detach()")


def test_a_tensor_that_requires_a_gradient_is_refused_in_its_librarys_words(driver: HostDriver, tmp_path: Path) -> None:
    path = MODELS["affine"](tmp_path / "m.onnx")
    session, _ = opened(path, driver)
    with session, session.frame_graph(*SIZE) as graph:
        for call in (session, graph):
            with pytest.raises(gapcam.FrameError, match=r"use var\.detach\(\)"):
                call(Refusing())
    with gapcam.load(path, device="cpu", threads=1) as on_cpu, pytest.raises(gapcam.FrameError, match="GPU's memory"):
        on_cpu(Refusing())


def test_what_stays_on_the_device_is_what_would_come_down(driver: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["layernorm"](tmp_path / "m.onnx"), driver)
    frame = smooth(21, 33)
    with session, driver.active():
        result = session(frame)
        assert isinstance(result, gapcam.DeviceResult)
        np.testing.assert_array_equal(host_view(result.map_on_device("red")), result.map("red"))
        np.testing.assert_array_equal(host_view(result.features_on_device), result.features)
        np.testing.assert_array_equal(
            host_view(result.heatmap_on_device("red", normalization="max")), result.heatmap("red", normalization="max")
        )
        stream = driver.stream()
        out = empty_frame(FrameLayout("bgr", 21, 33), driver.allocate)
        for there, expected in (
            (result.frame_on_device, frame),
            (result.overlay_on_device("red", alpha=0.2), result.overlay("red", alpha=0.2)),
            (result.overlay_on_device("red", out=out), result.overlay("red")),
        ):
            back = np.empty_like(frame)
            download_frame(there, back, driver, stream)
            stream.synchronize()
            np.testing.assert_array_equal(back, expected)
        assert there is out
        owner = empty_frame(FrameLayout("bgr", 24, 33), driver.allocate)
        ((pointer, _),) = owner.planes
        bgr = FrameLayout("bgr", 21, 33)
        for wrong, message in (
            (empty_frame(FrameLayout("bgr", 21, 34), driver.allocate), "as out, got a frame of .*width=34.* like the"),
            (empty_frame(FrameLayout("bgra", 21, 33), driver.allocate), "expected one like the frame"),
            (DeviceFrame(bgr, ((pointer, 98),), owner), "as out, got .*pitches of at least 99 bytes"),
            (DeviceFrame(bgr, ((pointer, 99.0),), owner), "expected integers"),  # type: ignore[arg-type]
            (DeviceFrame(bgr, (), owner), "expected 1 of them"),
            (np.empty_like(frame), "as out, got ndarray; expected an array in device memory"),
            (Foreign(owner, 1), r"expected one like the frame"),
            (DeviceArray(pointer, (21, 33), np.dtype(np.uint8)), "H x W x 3"),
            ("cat.png", "got str; expected an array in device memory"),
        ):
            with pytest.raises(gapcam.FrameError, match=message):
                result.overlay_on_device(out=wrong)
        foreign = Foreign(out, 1)
        drawn = result.overlay_on_device("blue", out=foreign)
        assert drawn.owner is foreign
        assert drawn.planes == out.planes
        back = np.empty_like(frame)
        download_frame(out, back, driver, stream)
        stream.synchronize()
        np.testing.assert_array_equal(back, result.overlay("blue"))
    for verb in (result.map_on_device, result.heatmap_on_device, result.overlay_on_device):
        with pytest.raises(gapcam.UsageError, match="closed"):
            verb()
    for name in ("frame_on_device", "features_on_device"):
        with pytest.raises(gapcam.UsageError, match="closed"):
            getattr(result, name)


def test_an_overlay_is_written_when_the_frame_for_it_is_no_longer_in_use(host_library: Path, tmp_path: Path) -> None:
    driver = HostDriver(host_library, deferred=True)
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    with session, driver.active():
        result = session(smooth(21, 33))
        assert isinstance(result, gapcam.DeviceResult)
        expected, theirs = result.overlay(), driver.stream()
        blank = upload_frame(driver, theirs, np.zeros((21, 33, 3), np.uint8), "bgr")  # queued, and not there yet
        out = DeviceFrame(blank.layout, blank.planes, blank.owner, stream=theirs.handle)
        assert result.overlay_on_device(out=out) is out
        theirs.synchronize()
        back = np.empty_like(expected)
        download_frame(out, back, driver, theirs)
        theirs.synchronize()
        np.testing.assert_array_equal(back, expected)


GIVEN: dict[str, Callable[[gapcam.DeviceResult], Any]] = {
    "overlay": lambda result: result.overlay_on_device().array,
    "heatmap": lambda result: result.heatmap_on_device(),
    "map": lambda result: result.map_on_device(),
    "features": lambda result: result.features_on_device,
    "frame": lambda result: result.frame_on_device.array,
}


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_let_go_may_be_read_by_work_that_was_queued_before(
    host_library: Path, tmp_path: Path, what: str
) -> None:
    """As `torch.as_tensor(result.overlay_on_device()).clone()` does, which the host does not wait for."""
    driver = HostDriver(host_library, deferred=True)
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    with session, driver.active():
        given = GIVEN[what](session(smooth(21, 33)))  # the result goes at once
        nbytes = given.strides[0] * given.shape[0] if given.strides else given.nbytes
        theirs, copied = driver.stream(), driver.allocate(nbytes)
        expected, got = np.empty(nbytes, np.uint8), np.empty(nbytes, np.uint8)
        driver.download(given.pointer, expected, theirs)
        theirs.synchronize()
        driver.copy(given.pointer, copied.pointer, nbytes, theirs)
        del given
        for seed in range(1, 4):
            GIVEN[what](session(smooth(21, 33, seed)))  # in the same sizes
        driver.download(copied.pointer, got, theirs)
        theirs.synchronize()
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("side", "seen"), [(8, (256, 1024)), (24, (640, 1024))])
def test_a_frame_too_small_for_the_kernels_is_drawn_on_the_host(
    driver: HostDriver, tmp_path: Path, side: int, seen: tuple[int, int]
) -> None:
    session, backend = opened(red_and_blue(tmp_path / "m.onnx", contract=a_contract(seen)), driver)
    with session:
        frame = smooth(side, side)
        result, out = session(frame), np.zeros_like(frame)
        expected = reference(session, backend, frame)
        np.testing.assert_allclose(result.heatmap("red"), expected.heatmap("red"), atol=1e-5)
        np.testing.assert_array_equal(result.overlay("red", alpha=0.7), expected.overlay("red", alpha=0.7))
        assert result.overlay("red", out=out) is out
        np.testing.assert_array_equal(out, expected.overlay("red"))
        assert isinstance(result, gapcam.DeviceResult)
        for verb in (result.overlay_on_device, result.heatmap_on_device):
            with pytest.raises(gapcam.UsageError, match="too small for the device to draw on"):
                verb("red")
        with pytest.raises(gapcam.UsageError, match="a frame graph takes it with overlay=False"):
            session.frame_graph(side, side)
        with session.frame_graph(side, side, overlay=False) as graph:
            np.testing.assert_array_equal(graph(frame).logits, [result.logits[result.top[0].index]])
        in_color = session(np.dstack([frame, frame[..., 0]]), format="bgra")
        np.testing.assert_array_equal(in_color.heatmap("red"), result.heatmap("red"))
        with pytest.raises(gapcam.UsageError, match="of BGR"):
            in_color.overlay("red")
    np.testing.assert_array_equal(result.overlay("red"), out)


def test_outputs_that_the_kernels_do_not_take_are_refused_at_load(driver: HostDriver, tmp_path: Path) -> None:
    def in_float64(model: onnx.ModelProto) -> None:
        model.graph.node.append(onnx.helper.make_node("Cast", ["features"], ["wide"], to=onnx.TensorProto.DOUBLE))
        for node in model.graph.node:
            if node.op_type == "Gather":
                node.output[0] = "narrow"
            elif node.op_type == "GlobalAveragePool":
                node.input[0] = "narrow"
        model.graph.node[-1].input[0], model.graph.node[-1].output[0] = "narrow", "features"
        model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE), change=in_float64)
    with pytest.raises(gapcam.ModelError, match=r"features as float64; .* float32 or float16.* post='numpy'") as told:
        opened(path, driver)
    assert "\n" not in str(told.value)
    session, _ = opened(path, driver, post="numpy")
    with session:
        assert session(smooth(*SIZE)).overlay().shape == (*SIZE, 3)


@pytest.mark.parametrize(
    ("frame", "frame_format", "message"),
    [
        (np.zeros((4, 4), np.uint8), "bgr", "looks grey"),
        (np.zeros((4, 4, 4), np.uint8), "bgr", "BGRA"),
        (np.zeros((4, 4, 3), np.float32), "bgr", "255"),
        (np.zeros((4, 4, 3), np.uint8), "bgra", "H x W x 4"),
        (np.zeros((4, 4, 3), np.uint8), "nv12", "NV12 with even H and W"),
        (np.zeros((10, 4), np.uint8), "nv12", r"shape \(10, 4\)"),
        (np.zeros((6, 5), np.uint8), "nv12", r"shape \(6, 5\)"),
        (np.zeros((6, 4), np.int8), "nv12", "int8"),
        (np.zeros((0, 4, 4), np.uint8), "bgra", r"shape \(0, 4, 4\)"),
        (None, "bgra", "VideoCapture"),
        ("cat.png", "bgr", "read_image"),
        (DeviceFrame(FrameLayout("bgr", 3, 4), ((256, 4),)), "bgr", "pitches of at least 12"),
    ],
)
def test_what_is_no_frame_of_the_format_is_refused_and_named_in_a_batch(
    driver: HostDriver, tmp_path: Path, frame: object, frame_format: FrameFormat, message: str
) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    with session:
        with pytest.raises(gapcam.FrameError, match=message):
            session(frame, format=frame_format)
        fine = random_frame(np.random.default_rng(0), FrameLayout(frame_format, 4, 4))
        with pytest.raises(gapcam.FrameError, match="frame 1 of the batch: got"):
            session.batch([fine, frame], format=frame_format)
        with pytest.raises(gapcam.UsageError, match="bgr, bgra, nv12"):
            session(fine, format="rgb")  # type: ignore[arg-type]


def test_a_session_on_the_host_says_which_frames_want_a_device(tmp_path: Path) -> None:
    with gapcam.load(MODELS["affine"](tmp_path / "m.onnx"), device="cpu", threads=1) as session:
        with pytest.raises(gapcam.FrameError, match=r"on the host and expected 'bgr'.*COLOR_BGRA2BGR"):
            session(np.zeros((4, 4, 4), np.uint8), format="bgra")
        with pytest.raises(gapcam.FrameError, match="GPU's memory"):
            session(DeviceFrame(FrameLayout("bgr", 4, 4), ((256, 12),)))
        with pytest.raises(gapcam.UsageError, match="frame format is 'rgb'"):
            session(np.zeros((4, 4, 4), np.uint8), format="rgb")  # type: ignore[arg-type]


# Batches, threads, time.


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_is_one_inference_and_each_frame_gets_its_own_result(
    driver: HostDriver, tmp_path: Path, kind: str
) -> None:
    session, backend = opened(MODELS[kind](tmp_path / "m.onnx", resize="letterbox"), driver)
    frames = [smooth(30, 20, 1), smooth(*SIZE, 2), smooth(7, 40, 3)]
    with session:
        together = session.batch(frames)
        assert [lane.enqueued for lane in backend.lanes] == [1]
        for frame, result in zip(frames, together, strict=True):
            alone = session(frame)
            np.testing.assert_allclose(result.logits, alone.logits, rtol=1e-6)
            np.testing.assert_allclose(result.heatmap(), alone.heatmap(), atol=1e-5)
            assert_same_overlay(result.overlay(), alone)
            assert result.frame is frame
        assert session.batch([]) == []


def test_a_model_for_one_image_takes_a_batch_one_after_the_other(driver: HostDriver, tmp_path: Path) -> None:
    session, backend = opened(red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE), batch=1), driver)
    with session:
        frames = [smooth(30, 20, seed) for seed in range(3)]
        results = session.batch(frames)
        assert [lane.enqueued for lane in backend.lanes] == [3]
        for frame, result in zip(frames, results, strict=True):
            np.testing.assert_array_equal(result.overlay(), session(frame).overlay())


def test_earlier_results_stay_right_when_later_frames_come(driver: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["nonlinear"](tmp_path / "m.onnx"), driver)
    with session:
        frames = [smooth(20, 30, seed) for seed in range(6)]
        expected = [session(frame).overlay() for frame in frames]
        later = [session(frame) for frame in frames]  # none is looked at before all are there
        for result, picture in zip(reversed(later), reversed(expected), strict=True):
            np.testing.assert_array_equal(result.overlay(), picture)


def test_threads_share_a_session_and_each_gets_its_own_results(prompt: HostDriver, tmp_path: Path) -> None:
    session, backend = opened(MODELS["layernorm"](tmp_path / "m.onnx"), prompt)
    frames = [smooth(20 + seed % 3, 30, seed) for seed in range(40)]
    with session:
        alone = [(result.logits, result.overlay("blue")) for result in map(session, frames)]

        def explain(frame: NDArray[np.uint8]) -> tuple[object, object]:
            result = session(frame)
            return result.logits, result.overlay("blue")

        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(explain, frames))
        assert len(backend.lanes) <= 4
    for (logits, picture), (expected_logits, expected_picture) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(logits, expected_logits)
        np.testing.assert_array_equal(picture, expected_picture)


def test_one_result_may_be_asked_by_several_threads(prompt: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), prompt)
    with session:
        result, other = session(smooth(20, 30)), session(smooth(20, 30))
        with ThreadPoolExecutor(4) as pool:
            pictures = list(pool.map(lambda index: result.overlay(index % 2), range(16)))
        for index, picture in enumerate(pictures):
            np.testing.assert_array_equal(picture, other.overlay(index % 2))


def test_steps_are_timed_by_the_device_and_by_the_host(driver: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    with session:
        result = session(smooth(20, 30))
        assert set(result.timings_ms) == {"upload", "preprocess", "inference"}
        result.boxes()
        result.overlay()
        result.heatmap()
        assert set(result.timings_ms) == {
            "upload", "preprocess", "inference", "map", "boxes", "overlay", "heatmap"
        }  # fmt: skip
        assert all(value > 0 for value in result.timings_ms.values())


def test_only_what_is_asked_for_comes_down(prompt: HostDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), prompt)
    downloaded: list[int] = []
    for verb in ("download", "download_rows"):
        whole = getattr(prompt, verb)

        def counted(*arguments: Any, whole: Any = whole) -> None:
            downloaded.append(next(part.nbytes for part in arguments if isinstance(part, np.ndarray)))
            whole(*arguments)

        monkeypatch.setattr(prompt, verb, counted)
    height, width = SIZE
    with session:
        result = session(smooth(20, 30))
        assert result.top[0].score > 0
        assert downloaded == [2 * 4]  # the logits
        result.boxes("red")
        result.boxes("red", threshold=0.5)
        assert downloaded[1:] == [height * width * 4]
        result.overlay("red")
        assert downloaded[2:] == [20 * 30 * 3]
        assert isinstance(result, gapcam.DeviceResult)
        result.overlay_on_device("blue")
        assert len(downloaded) == 3


# The end of a session, and what goes wrong.


@pytest.mark.parametrize("kind", MODELS)
def test_results_outlive_the_session_and_the_device_gets_all_of_its_memory_back(
    driver: HostDriver, tmp_path: Path, kind: str
) -> None:
    session, backend = opened(MODELS[kind](tmp_path / "m.onnx", resize="letterbox"), driver)
    frame = smooth(25, 31)
    touched, untouched = session(frame), session(frame)
    expected = reference(session, backend, frame)
    touched.overlay()
    assert driver.allocated_bytes > 0
    session.close()
    session.close()  # does nothing
    assert backend.closed
    assert driver.allocated_bytes == 0
    for result in (touched, untouched):
        assert_same(result, expected)
    with pytest.raises(gapcam.UsageError, match="the session is closed"):
        session(frame)
    with pytest.raises(gapcam.UsageError, match="the session is closed"):
        session.frame_graph(25, 31)
    assert driver.allocated_bytes == 0


def test_a_camera_may_use_its_buffer_again_whatever_becomes_of_the_session(driver: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    buffer = smooth(25, 31, 1)
    touched, untouched = session(buffer), session(buffer)
    expected = touched.overlay()
    buffer[:] = smooth(25, 31, 2)
    np.testing.assert_array_equal(touched.overlay(), expected)
    session.close()
    for result in (touched, untouched):
        assert_close_pictures(result.overlay(), expected)
        assert result.frame is buffer


def test_a_camera_may_use_its_buffer_again_when_a_small_frame_is_drawn_on_the_host(
    driver: HostDriver, tmp_path: Path
) -> None:
    session, _ = opened(red_and_blue(tmp_path / "m.onnx", contract=a_contract((1024, 1024))), driver)
    with session:
        buffer = smooth(8, 8, 1)
        expected, result = session(buffer).overlay(), session(buffer)
        buffer[:] = 0
        np.testing.assert_array_equal(result.overlay(), expected)


def assert_close_pictures(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Of NumPy and of the kernels: by 1, but where float32 rounds a level to its neighbour."""
    difference = np.abs(got.astype(int) - expected.astype(int)).max(axis=-1)
    assert difference.max() <= 6
    assert (difference > 1).mean() < 0.02


def test_a_result_that_is_let_go_gives_its_memory_to_the_next(driver: HostDriver, tmp_path: Path) -> None:
    session, _ = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    frame = smooth(25, 31)
    with session:
        session(frame).overlay()
        session(frame).overlay()
        gc.collect()
        allocated = driver.allocated_bytes
        for _ in range(20):
            result = session(frame)
            gone = weakref.ref(result)
            result.overlay()
            del result
            assert gone() is None
        assert driver.allocated_bytes == allocated


def test_calls_while_another_thread_closes_the_session_work_or_say_that_it_is_closed(
    prompt: HostDriver, tmp_path: Path
) -> None:
    path = MODELS["affine"](tmp_path / "m.onnx")
    for _ in range(5):
        session, backend = opened(path, prompt)
        frame = smooth(20, 30)
        expected = _first_reference(session, backend, frame)

        def call(_: int, session: gapcam.Session = session, frame: NDArray[np.uint8] = frame) -> list[Any]:
            pictures = []
            end = time.monotonic() + 60
            try:
                while time.monotonic() < end:
                    result = session(frame)
                    pictures = [*pictures[-20:], result.overlay("red")]
            except gapcam.UsageError as error:
                return [str(error), *pictures]
            return ["never closed"]

        with ThreadPoolExecutor(4) as pool:
            calls = pool.map(call, range(4))
            while sum(lane.enqueued for lane in backend.lanes) < 10:
                pass
            session.close()
            for told, *pictures in calls:
                assert "the session is closed" in told
                for picture in pictures:
                    assert_same_overlay(picture, expected, "red")
        assert prompt.allocated_bytes == 0


def _first_reference(session: gapcam.Session, backend: HostDeviceBackend, frame: NDArray[np.uint8]) -> gapcam.Result:
    session(frame)
    return reference(session, backend, frame)


def _broken(kind: str, path: Path) -> Path:
    if kind == "logits":
        return red_and_blue(path, contract=a_contract(SIZE), bias=np.array([np.nan, 0], np.float32))
    if kind == "cam_scale":
        return normed(path, contract=normed_contract(size=SIZE), factor=-1)
    return squared(path, contract=squared_contract(size=SIZE), row_factor=float("nan"))


@pytest.mark.parametrize("what", ["logits", "cam_scale", "topk_weights"])
def test_what_no_result_can_be_made_of_is_an_error_and_the_session_goes_on(
    driver: HostDriver, tmp_path: Path, what: str
) -> None:
    path = _broken(what, tmp_path / "m.onnx")
    session, _ = opened(path, driver, verify=False)
    with session, gapcam.load(path, device="cpu", threads=1, verify=False) as on_cpu:
        messages = []
        for each in (session, session, on_cpu):
            each.name = each._model.name
            with pytest.raises(gapcam.VerificationError, match=f"values of {what}") as told:
                each(smooth(20, 30))
            messages.append(str(told.value).partition(" gave ")[2])
        assert len(set(messages)) == 1


def test_an_engine_that_fails_once_leaves_the_session_as_it_was(
    driver: HostDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, backend = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    frame = smooth(20, 30)
    with session:
        expected = session(frame).overlay()

        def failing() -> None:
            raise gapcam.BackendError("the engine failed")

        for step in ("enqueue", "_infer"):
            monkeypatch.setattr(backend.lanes[0], step, failing)
            with pytest.raises(gapcam.BackendError, match="the engine failed"):
                session(frame)
            assert backend.lanes[0].stream.idle  # its memory goes to somebody else
            monkeypatch.undo()
            np.testing.assert_array_equal(session(frame).overlay(), expected)
        assert len(backend.lanes) == 1
    assert driver.allocated_bytes == 0


def test_wrong_looks_and_outs_are_refused_as_on_the_host(driver: HostDriver, tmp_path: Path) -> None:
    session, backend = opened(MODELS["affine"](tmp_path / "m.onnx"), driver)
    frame = smooth(20, 30)
    with session:
        result = session(frame)
        expected = reference(session, backend, frame)
        wrong: list[dict[str, Any]] = [
            {"colormap": "jett"}, {"alpha": 1.5}, {"alpha": float("nan")}, {"normalization": "sum"}, {"limits": (0, 1)},
            {"colormap": []}, {"alpha": "0.5"}, {"alpha": None},
            {"normalization": "fixed"}, {"normalization": "fixed", "limits": (1, 0)}, {"out": np.zeros((20, 30))},
            {"out": [1]}, {"out": np.zeros((20, 31, 3), np.uint8)}, {"target": "green"}, {"target": 1.5},
        ]  # fmt: skip
        for arguments in wrong:
            with pytest.raises(gapcam.GapcamError) as told:
                expected.overlay(**arguments)
            with pytest.raises(type(told.value)) as got:
                result.overlay(**arguments)
            assert str(got.value) == str(told.value)
        for alpha in (True, np.float32(0.3), np.True_ + 0):
            assert_same_overlay(result.overlay(alpha=alpha), expected, alpha=alpha)
        out = np.empty_like(frame)
        assert result.overlay(out=out) is out
        np.testing.assert_array_equal(out, result.overlay())
        drawn = result.overlay(boxes=result.boxes(threshold=0.6), caption="red")
        np.testing.assert_array_equal(drawn, _drawn(out, result.boxes(threshold=0.6), "red"))


def test_post_says_where_results_are_computed(prompt: HostDriver, tmp_path: Path) -> None:
    path = MODELS["affine"](tmp_path / "m.onnx")
    session, backend = opened(path, prompt, post="numpy")
    with session:
        result = session(smooth(20, 30))
        assert not isinstance(result, gapcam.DeviceResult)
        assert result.overlay().shape == (20, 30, 3)
        assert not backend.lanes
        with pytest.raises(gapcam.BackendError, match=r"post='numpy' leaves .* to NumPy. Load .* post='auto'"):
            session.frame_graph(20, 30)
        with pytest.raises(gapcam.FrameError, match=r"GPU's memory.*post='auto'"):
            session(DeviceFrame(FrameLayout("bgr", 4, 4), ((256, 12),)))
    with (
        gapcam.load(path, device="cpu", threads=1) as session,
        pytest.raises(gapcam.BackendError, match=r"and onnxruntime.* does not. Load the model with device='cuda'"),
    ):
        session.frame_graph(20, 30)
    with pytest.raises(gapcam.BackendError, match="not on a CUDA device"):
        gapcam.load(path, device="cpu", threads=1, post="cuda")
    with pytest.raises(gapcam.UsageError, match="auto, numpy, cuda"):
        gapcam.load(path, device="cpu", threads=1, post="gpu")  # type: ignore[arg-type]
