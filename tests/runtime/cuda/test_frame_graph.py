"""Frame graphs: each frame gives what a session gives, whether captured or queued step by step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from device_frames import random_frame, upload_frame
from host_device_backend import HostDeviceBackend, host_view
from host_driver import HostDriver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_heads import normed, normed_contract, squared, squared_contract
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.backends.onnxruntime_device import OnnxRuntimeDeviceBackend
from gapcam.backends.onnxruntime_session import CPU_PROVIDER, make_options, make_session
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.frame_copy import copy_frame, download_frame, empty_frame
from gapcam.frame import FrameFormat

SIZE = (12, 16)


@pytest.fixture(params=[False, True], ids=["at once", "as late as can be"])
def driver(request: pytest.FixtureRequest, host_library: Path) -> HostDriver:
    """Not active: a session sees to that."""
    return HostDriver(host_library, deferred=request.param)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE, resize="letterbox"))


def opened(path: Path, driver: HostDriver, *, verify: bool = True, **how: bool) -> gapcam.Session:
    with driver.active():
        backend, module = HostDeviceBackend(path, driver, **how), driver.module()
    return gapcam.Session(backend, kernels=module, verify=verify)


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A frame with soft spots, as photographs have them."""
    spots = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def on_host(frame: object, driver: HostDriver) -> NDArray[np.uint8]:
    """What a graph's overlay shows."""
    if isinstance(frame, np.ndarray):
        return frame
    assert isinstance(frame, DeviceFrame)
    with driver.active():
        out, stream = np.empty(frame.array.shape, np.uint8), driver.stream()
        download_frame(frame, out, driver, stream)
        stream.synchronize()
    return out


def assert_same(got: gapcam.FrameGraphResult, expected: gapcam.Result, driver: HostDriver, **look: Any) -> None:
    best = expected.best(len(got.top))
    assert [(entry.index, entry.label) for entry in got.top] == [(entry.index, entry.label) for entry in best]
    assert [entry.score for entry in got.top] == pytest.approx([entry.score for entry in best], rel=1e-5)
    np.testing.assert_array_equal(got.logits, [expected.logits[entry.index] for entry in got.top])
    np.testing.assert_array_equal(got.maps, expected.maps([entry.index for entry in got.top]))
    assert got.placement == expected.placement
    for place, entry in enumerate(got.top):
        assert got.boxes(place, threshold=0.6, all_components=True) == expected.boxes(
            entry.index, threshold=0.6, all_components=True
        )
    np.testing.assert_array_equal(on_host(got.overlay, driver), expected.overlay(**look))


WAYS: dict[str, dict[str, bool]] = {
    "captured": {},
    "no graphs": {"has_graphs": False},
    "not capturable": {"capturable": False},
    "capture fails": {"capture_fails": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frame_format", ["bgr", "bgra", "nv12"])
@pytest.mark.parametrize("output", ["host", "device"])
def test_a_stream_of_frames_gives_what_the_session_gives_for_each(
    host_library: Path, model: Path, way: str, frame_format: FrameFormat, output: Any
) -> None:
    how = dict(WAYS[way])
    driver = HostDriver(host_library, deferred=True, has_graphs=how.pop("has_graphs", True))
    rng = np.random.default_rng(0)
    layout = FrameLayout(frame_format, 26, 38)
    look = {"colormap": "turbo", "alpha": 0.7, "normalization": "max"}
    with (
        opened(model, driver, **how) as session,
        session.frame_graph(26, 38, format=frame_format, topk=2, output=output, **look) as graph,
    ):
        assert graph.captured == (way == "captured")
        assert (
            graph.why_not_captured
            == {
                "captured": "",
                "no graphs": "host has no graphs",
                "not capturable": "the engine cannot be captured",
                "capture fails": "the engine allocates memory for this shape",
            }[way]
        )
        for _ in range(4):
            frame = random_frame(rng, layout)
            assert_same(graph(frame), session(frame, format=frame_format), driver, **look)


@pytest.mark.parametrize("kind", ["layernorm", "nonlinear", "sigmoid"])
def test_graphs_know_every_head(driver: HostDriver, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    if kind == "layernorm":
        normed(path, contract=normed_contract(size=SIZE))
    elif kind == "nonlinear":
        squared(path, contract=squared_contract(size=SIZE))
    else:
        red_and_blue(path, contract=a_contract(SIZE, scores="sigmoid", embedded=True))
    with opened(path, driver) as session, session.frame_graph(20, 30, topk=2) as graph:
        for seed in range(3):
            frame = smooth(20, 30, seed)
            assert_same(graph(frame), session(frame), driver)


def test_onnx_runtime_on_the_devices_memory_runs_in_a_graph_of_frames(host_library: Path, model: Path) -> None:
    """Its lanes are those of the providers for GPUs, whatever becomes of their capture there."""
    driver = HostDriver(host_library)
    with driver.active():
        session = make_session(model, make_options(1, {}), [(CPU_PROVIDER, {})], settings={})
        backend = OnnxRuntimeDeviceBackend(session, driver, driver.stream(), engine="onnxruntime, here", memory="cpu")
        module = driver.module()
    with gapcam.Session(backend, kernels=module) as session, session.frame_graph(20, 30) as graph:
        for seed in range(3):
            assert_same(graph(smooth(20, 30, seed)), session(smooth(20, 30, seed)), driver)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    resize=st.sampled_from(["squash", "crop", "letterbox"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seeds=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    by_heat=st.booleans(),
    alpha=st.floats(0, 1),
)
def test_any_size_gives_what_the_session_gives(
    host_library: Path,
    tmp_path: Path,
    resize: str,
    height: int,
    width: int,
    seeds: list[int],
    by_heat: bool,
    alpha: float,
) -> None:
    driver = HostDriver(host_library, deferred=True)
    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE, resize=resize))
    look = {"alpha": alpha, "alpha_by_heat": by_heat}
    with opened(path, driver) as session, session.frame_graph(height, width, **look) as graph:
        for seed in seeds:
            frame = smooth(height, width, seed)
            assert_same(graph(frame), session(frame), driver, **look)
    assert driver.allocated_bytes == 0


# Where frames come from.


def test_a_frame_may_lie_anywhere(driver: HostDriver, model: Path) -> None:
    frames = [smooth(20, 30, seed) for seed in range(7)]
    with opened(model, driver) as session, session.frame_graph(20, 30) as graph, driver.active():
        expected = [session(frame).overlay() for frame in frames]
        np.testing.assert_array_equal(graph(frames[0]).overlay, expected[0])
        graph.host_frame[:] = frames[1]  # a camera writes there
        np.testing.assert_array_equal(graph(graph.host_frame).overlay, expected[1])
        stream = driver.stream()
        there = upload_frame(driver, stream, frames[2], "bgr", extra_pitch=9, misaligned=1)
        stream.synchronize()
        np.testing.assert_array_equal(graph(there).overlay, expected[2])
        own = driver.wrap_stream(graph.stream)
        (pointer, pitch) = graph.frame.planes[0]
        driver.upload_rows(frames[3].reshape(20, 90), pointer, pitch, own)
        np.testing.assert_array_equal(graph().overlay, expected[3])
        driver.upload_rows(frames[4].reshape(20, 90), pointer, pitch, own)
        np.testing.assert_array_equal(graph(graph.frame).overlay, expected[4])
        mirrored = frames[5][:, ::-1]
        np.testing.assert_array_equal(graph(mirrored).overlay, session(mirrored).overlay())
        np.testing.assert_array_equal(graph(frames[6]).overlay, expected[6])


def test_a_camera_writes_into_pinned_memory_or_its_frames_are_refused(
    host_library: Path, model: Path, tmp_path: Path
) -> None:
    video = str(tmp_path / "video.avi")
    writer = cv2.VideoWriter(video, cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 32))
    for seed in range(3):
        writer.write(smooth(32, 48, seed))
    writer.release()
    with opened(model, HostDriver(host_library)) as session:
        camera = cv2.VideoCapture(video)
        with session.frame_graph(camera.get(cv2.CAP_PROP_FRAME_HEIGHT), camera.get(cv2.CAP_PROP_FRAME_WIDTH)) as graph:
            pictures = []
            while True:
                ok, frame = camera.read(graph.host_frame)
                if not ok:
                    break
                assert frame is graph.host_frame
                pictures.append(graph(frame).copy().overlay)
                np.testing.assert_array_equal(pictures[-1], session(frame.copy()).overlay())
            assert len(pictures) == 3
            assert (pictures[0] != pictures[2]).any()
        camera = cv2.VideoCapture(video)
        with session.frame_graph(34, 48) as graph:
            ok, frame = camera.read(graph.host_frame)
            assert ok
            with pytest.raises(gapcam.FrameError, match=r"height=32.*made for .*height=34"):
                graph(frame)


def test_a_frame_of_another_layout_is_refused(driver: HostDriver, model: Path) -> None:
    with opened(model, driver) as session, session.frame_graph(20, 30) as graph:
        expected = graph(smooth(20, 30)).copy()
        for frame, message in (
            (smooth(20, 31), "made for FrameLayout"),
            (smooth(20, 30)[..., 0], "looks grey"),
            (DeviceFrame(FrameLayout("bgr", 21, 30), ((512, 90),)), "made for FrameLayout"),
            ("cat.png", "read_image"),
        ):
            with pytest.raises(gapcam.FrameError, match=message):
                graph(frame)
        np.testing.assert_array_equal(graph(smooth(20, 30)).overlay, expected.overlay)


# What comes out.


def test_targets_get_maps_in_their_order_whatever_their_scores(driver: HostDriver, model: Path) -> None:
    frame = smooth(20, 30)
    with opened(model, driver) as session:
        expected = session(frame)
        for targets in (["blue", "red"], [0], ["red", 0], [1, 0, 1], ("red", "red", "red")):
            indices = [session.index(target) for target in targets]
            with session.frame_graph(20, 30, targets=targets, clamp_negative=True) as graph:
                result = graph(frame)
                assert [entry.index for entry in result.top] == indices
                assert [entry.score for entry in result.top] == pytest.approx(expected.scores[indices])
                np.testing.assert_array_equal(result.maps, expected.maps(indices, clamp_negative=True))
                np.testing.assert_array_equal(result.overlay, expected.overlay(indices[0], clamp_negative=True))


def test_sides_may_be_any_integers_as_numpy_and_opencv_give_them(driver: HostDriver, model: Path) -> None:
    frame = smooth(20, 30)
    with opened(model, driver) as session:
        expected = session(frame)
        for kind in (float, np.int32, np.int64, np.uint16, np.float32):
            with session.frame_graph(kind(20), kind(30), topk=kind(2), alpha=np.float32(0.5)) as graph:
                assert_same(graph(frame), expected, driver)
                assert str(graph.layout) == str(FrameLayout("bgr", 20, 30))


@pytest.mark.parametrize("place", [1.5, "0", None, 2, -1])
def test_boxes_of_what_is_no_place_are_refused(driver: HostDriver, model: Path, place: Any) -> None:
    with opened(model, driver) as session, session.frame_graph(20, 30, topk=2) as graph:
        result = graph(smooth(20, 30))
        assert result.boxes(np.int64(1)) == result.boxes(1.0) == result.boxes(1)  # type: ignore[arg-type]
        with pytest.raises(gapcam.UsageError, match=f"place(:? is)? {place!r}"):
            result.boxes(place)


def test_without_an_overlay_none_is_drawn(driver: HostDriver, model: Path) -> None:
    with opened(model, driver) as session, session.frame_graph(20, 30, overlay=False) as graph:
        drawn = len([name for name in driver.launches if name.startswith("overlay")])
        result = graph(smooth(20, 30))
        assert result.overlay is None
        assert result.copy().overlay is None
        np.testing.assert_array_equal(result.maps[0], session(smooth(20, 30)).map())
        assert len([name for name in driver.launches if name.startswith("overlay")]) == drawn


def test_the_next_frame_waits_for_who_reads_the_last_overlay_or_writes_the_frame(
    host_library: Path, model: Path
) -> None:
    """As `torch.as_tensor(result.overlay).clone()`, which the host does not wait for."""
    driver = HostDriver(host_library, deferred=True)
    first, second = smooth(20, 30, 1), smooth(20, 30, 2)
    with opened(model, driver) as session, session.frame_graph(20, 30, output="device") as graph, driver.active():
        theirs, overlay = driver.stream(), graph(first).overlay
        assert isinstance(overlay, DeviceFrame)
        kept = empty_frame(overlay.layout, driver.allocate)
        copy_frame(overlay, kept, driver, theirs)
        written = upload_frame(driver, theirs, second, "bgr")
        copy_frame(written, graph.frame, driver, theirs)
        result = graph(after=theirs.handle)
        np.testing.assert_array_equal(on_host(kept, driver), session(first).overlay())
        np.testing.assert_array_equal(on_host(result.overlay, driver), session(second).overlay())
        graph(after=0)  # as PyTorch calls the legacy default stream, which is 1 here


def test_a_copy_that_is_let_go_may_be_read_by_work_that_was_queued_before(host_library: Path, model: Path) -> None:
    driver = HostDriver(host_library, deferred=True)
    first = smooth(20, 30, 1)
    with opened(model, driver) as session, session.frame_graph(20, 30, output="device") as graph, driver.active():
        theirs, copied = driver.stream(), graph(first).copy()
        assert isinstance(copied.overlay, DeviceFrame)
        kept = empty_frame(copied.overlay.layout, driver.allocate)
        copy_frame(copied.overlay, kept, driver, theirs)
        del copied
        _ = graph(smooth(20, 30, 2)).copy()
        np.testing.assert_array_equal(on_host(kept, driver), session(first).overlay())


@pytest.mark.parametrize("output", ["host", "device"])
def test_a_result_is_valid_until_the_next_call_and_a_copy_stays(driver: HostDriver, model: Path, output: Any) -> None:
    with opened(model, driver) as session, session.frame_graph(20, 30, output=output) as graph:
        first = graph(smooth(20, 30, 1))
        kept, expected = first.copy(), session(smooth(20, 30, 1))
        top = first.top
        graph(smooth(20, 30, 2))
        for name in ("logits", "maps", "overlay"):
            with pytest.raises(gapcam.UsageError, match=r"result\.copy"):
                getattr(first, name)
        for verb in (first.boxes, first.copy):
            with pytest.raises(gapcam.UsageError, match=r"result\.copy"):
                verb()
        assert top == first.top == kept.top
        assert_same(kept, expected, driver)
        assert_same(kept.copy(), expected, driver)
        assert kept.device_ms > 0
        assert "0." in repr(kept)
    if output == "host":
        np.testing.assert_array_equal(kept.overlay, expected.overlay())
    np.testing.assert_array_equal(kept.maps[0], expected.map())


def test_a_frame_costs_no_memory_and_only_what_is_wanted_comes_down(
    host_library: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = HostDriver(host_library)
    with opened(model, driver) as session, session.frame_graph(20, 30, output="device") as graph:
        frames = [smooth(20, 30, seed) for seed in range(5)]
        graph(frames[0])
        launched = len(driver.launches)

        def refused(*_: object) -> None:
            raise AssertionError("something is allocated, or downloaded outside of the graph")

        for verb in ("allocate", "pinned", "download", "download_rows", "stream", "event"):
            monkeypatch.setattr(driver, verb, refused)
        for frame in frames:
            graph(frame)
        assert len(driver.launches) - launched == 3 * len(frames)  # preprocess, cam, overlay
        monkeypatch.undo()


# What goes wrong.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"topk": 0}, gapcam.UsageError, "the best 0 classes; give 1 to 2"),
        ({"topk": 3}, gapcam.UsageError, "give 1 to 2"),
        ({"topk": 1.5}, gapcam.UsageError, "topk is 1.5; give a whole number"),
        ({"topk": "1"}, gapcam.UsageError, "topk is '1'"),
        ({"targets": []}, gapcam.UsageError, "targets is an empty list"),
        ({"targets": 0}, gapcam.UsageError, r"got 0 as classes; give a list of them: \[0\]"),
        ({"targets": "red"}, gapcam.UsageError, r"list of them: \['red'\]"),
        ({"targets": [0.5]}, gapcam.UsageError, "got 0.5 as a class"),
        ({"targets": ["green"]}, gapcam.ClassNotFoundError, "green"),
        ({"output": "screen"}, gapcam.UsageError, "host, device"),
        ({"format": "rgb"}, gapcam.UsageError, "frame format is 'rgb'"),
        ({"colormap": "jett"}, gapcam.UsageError, "Did you mean 'jet'"),
        ({"colormap": []}, gapcam.UsageError, r"no colour map \[\]"),
        ({"alpha": 2}, gapcam.UsageError, "alpha is 2"),
        ({"alpha": "x"}, gapcam.UsageError, "alpha is 'x'"),
        ({"normalization": "fixed"}, gapcam.UsageError, "limits"),
        ({"height": 0}, gapcam.UsageError, "no pixels"),
        ({"height": 20.5}, gapcam.UsageError, "height is 20.5; give a whole number"),
        ({"width": "30"}, gapcam.UsageError, "width is '30'"),
        ({"width": None}, gapcam.UsageError, "width is None"),
        ({"height": -4}, gapcam.UsageError, "no pixels"),
        ({"height": 21, "format": "nv12"}, gapcam.UsageError, "even"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing_behind(
    driver: HostDriver, model: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with opened(model, driver) as session, pytest.raises(error, match=message):
        session.frame_graph(**{"height": 20, "width": 30, **settings})
    assert driver.allocated_bytes == 0


@pytest.mark.parametrize("what", ["logits", "cam_scale", "topk_weights"])
def test_what_no_result_can_be_made_of_is_an_error(driver: HostDriver, tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.onnx"
    if what == "logits":
        red_and_blue(path, contract=a_contract(SIZE), bias=np.array([np.nan, 0], np.float32))
    elif what == "cam_scale":
        normed(path, contract=normed_contract(size=SIZE), factor=-1)
    else:
        squared(path, contract=squared_contract(size=SIZE), row_factor=float("nan"))
    with opened(path, driver, verify=False) as session, session.frame_graph(20, 30) as graph:
        for call in (graph, session):
            with pytest.raises(gapcam.VerificationError, match=f"values of {what} that are not finite"):
                call(smooth(20, 30))


def test_a_nonlinear_head_has_maps_of_its_best_classes_or_of_every_one_with_maps(
    driver: HostDriver, tmp_path: Path
) -> None:
    frame = smooth(20, 30)
    path = squared(tmp_path / "m.onnx", contract=squared_contract(size=SIZE))
    with opened(path, driver) as session:
        *best, last = (entry.index for entry in session(frame).best(3))
        with pytest.raises(gapcam.MapNotComputedError, match="--topk 3"):
            session.frame_graph(20, 30, topk=3)
        with session.frame_graph(20, 30, targets=best[::-1]) as graph:
            np.testing.assert_array_equal(graph(frame).maps, session(frame).maps(best[::-1]))
        graph = session.frame_graph(20, 30, targets=[last])
        with pytest.raises(gapcam.MapNotComputedError, match="is not in this frame's result"):
            graph(frame)
    path = squared(tmp_path / "m.onnx", contract=squared_contract(size=SIZE), maps=True)
    with opened(path, driver) as session:
        with session.frame_graph(20, 30, topk=3) as graph:
            np.testing.assert_allclose(graph(frame).maps, session(frame).maps([*best, last]), rtol=1e-5, atol=1e-5)
        with session.frame_graph(20, 30, targets=[last]) as graph:
            np.testing.assert_allclose(graph(frame).maps[0], session(frame).map(last), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(graph(frame).overlay, session(frame).overlay(last))
        with pytest.raises(gapcam.MapNotComputedError, match="--topk 3"):
            session.frame_graph(20, 30, topk=3, clamp_negative=True)


def test_an_engine_that_fails_once_leaves_the_graph_as_it_was(
    driver: HostDriver, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(model, driver, capturable=False) as session, session.frame_graph(20, 30) as graph:
        expected = graph(smooth(20, 30)).copy()

        def failing() -> None:
            raise gapcam.BackendError("the engine failed")

        monkeypatch.setattr(graph._work.lane.lane, "_infer", failing)
        with pytest.raises(gapcam.BackendError, match="the engine failed"):
            graph(smooth(20, 30))
        monkeypatch.undo()
        np.testing.assert_array_equal(graph(smooth(20, 30)).overlay, expected.overlay)


def test_a_closed_graph_says_so_and_gives_its_memory_back(driver: HostDriver, model: Path) -> None:
    session = opened(model, driver)
    before = driver.allocated_bytes
    graph, other = session.frame_graph(20, 30), session.frame_graph(24, 30, output="device")
    result = other(smooth(24, 30))
    graph.close()
    graph.close()  # does nothing
    assert graph.closed
    with pytest.raises(gapcam.UsageError, match="frame graph is closed"):
        graph(smooth(20, 30))
    assert driver.allocated_bytes > before
    session.close()
    assert other.closed
    for call in (lambda: other(smooth(24, 30)), lambda: result.maps, result.copy):
        with pytest.raises(gapcam.UsageError, match="closed"):
            call()
    assert driver.allocated_bytes == 0


def test_a_session_and_graphs_run_side_by_side_in_threads(host_library: Path, model: Path) -> None:
    driver = HostDriver(host_library)
    frames = [smooth(20, 30, seed) for seed in range(10)]
    with opened(model, driver) as session:
        expected = [session(frame).overlay() for frame in frames]
        graphs = [session.frame_graph(20, 30) for _ in range(3)]

        def through_graph(index: int) -> Iterator[object]:
            return [graphs[index](frame).copy().overlay for frame in frames]  # type: ignore[return-value]

        with ThreadPoolExecutor(4) as pool:
            plain = pool.submit(lambda: [session(frame).overlay() for frame in frames])
            for pictures in (*pool.map(through_graph, range(3)), plain.result(60)):
                np.testing.assert_array_equal(pictures, expected)


def test_results_on_the_device_are_arrays_for_others(host_library: Path, model: Path) -> None:
    driver = HostDriver(host_library)
    with opened(model, driver) as session, session.frame_graph(20, 30, output="device") as graph:
        overlay = graph(smooth(20, 30)).overlay
        assert isinstance(overlay, gapcam.DeviceFrame)
        interface = overlay.__cuda_array_interface__
        assert interface["shape"] == (20, 30, 3)
        assert interface["typestr"] == "|u1"
        pitched = host_view(gapcam.DeviceArray(interface["data"][0], (20, interface["strides"][0]), np.dtype(np.uint8)))
        np.testing.assert_array_equal(pitched[:, :90].reshape(20, 30, 3), session(smooth(20, 30)).overlay())
