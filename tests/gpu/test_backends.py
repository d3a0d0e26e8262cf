"""Each way to run a model on a GPU that this machine has gives what the CPU gives, by runs, lanes and sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_quantizable import exported, residual

import gapcam
from gapcam.backends.device_protocol import DeviceBackend, Lane
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.backends.onnxruntime_providers import check_loads, rtx_devices
from gapcam.cuda.device_array import DeviceArray
from gapcam.devices import open_backend
from gapcam.errors import BackendError, GapcamError
from gapcam.tensorrt_module import import_tensorrt
from gapcam_export import BuildOptions, build
from gapcam_export.engines.gpu import first_gpu

WAYS = ("cuda", "tensorrt", "tensorrt-rtx", "engine of tensorrt", "engine of tensorrt-rtx")
WANTED = ("logits", "features")
LARGEST = 3

Maker = Callable[[Path], tuple[Path, str]]


@pytest.fixture(params=WAYS)
def prepared(request: pytest.FixtureRequest) -> Maker:
    """From an ONNX file to what is loaded, and on which device; skipped where this way is not installed."""
    found = first_gpu()
    if found is None or "not a GPU" in found.name:
        pytest.skip("no GPU that an inference engine could use")
    kind, way = request.param.removeprefix("engine of "), request.param
    try:
        if way != kind:
            import_tensorrt(kind)
        elif kind == "tensorrt-rtx":
            rtx_devices()
        else:
            check_loads(kind)
    except GapcamError as error:
        pytest.skip(str(error))
    if way == "engine of tensorrt-rtx" and found.architecture == "sm_90":
        pytest.skip("TensorRT-RTX does not know sm_90")

    def make(path: Path) -> tuple[Path, str]:
        if way == kind:
            return path, kind
        engine = path.with_suffix(".engine")
        build(path, engine, BuildOptions(batch=(1, 1, LARGEST), tf32=False), runtime=kind)
        return engine, kind

    return make


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network with convolutions, in float32."""
    exported(tmp_path, residual)
    return tmp_path / "exported.onnx"


@pytest.fixture
def reference(model: Path) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, threads=2)


@pytest.fixture
def backend(prepared: Maker, model: Path) -> Iterator[DeviceBackend]:
    path, device = prepared(model)
    options = {"use_tf32": "0"} if device == "cuda" else None
    opened = open_backend(path, device=device, provider_options=options)
    assert isinstance(opened, DeviceBackend)
    yield opened
    opened.close()


def images(backend: DeviceBackend, batch: int, seed: int) -> NDArray[np.float32]:
    (image,) = backend.inputs.values()
    sides = [side or 1 for side in image.shape[1:]]
    return np.random.default_rng(seed).normal(size=(batch, *sides)).astype(np.float32)


def on_host(backend: DeviceBackend, array: DeviceArray, lane: Lane) -> NDArray[np.float32]:
    out = np.empty(array.shape, array.dtype)
    backend.driver.download(array.pointer, out, lane.stream)
    lane.stream.synchronize()
    return out


def assert_close(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(got, expected, atol=2e-3 * float(np.abs(expected).max()))


def test_a_run_gives_what_the_cpu_gives_batch_after_batch(
    backend: DeviceBackend, reference: OnnxRuntimeBackend
) -> None:
    for seed, batch in enumerate((1, 3, 1, 2, 3, 1, 1)):
        image = images(backend, batch, seed)
        for got, expected in zip(backend.run(WANTED, image), reference.run(WANTED, image), strict=True):
            assert_close(got, expected)


def test_constants_are_the_model_s(backend: DeviceBackend, reference: OnnxRuntimeBackend) -> None:
    image = images(backend, 1, 0)
    names = ("cam_weights", "logits", "cam_bias")
    for got, expected in zip(backend.run(names, image), reference.run(names, image), strict=True):
        assert_close(got, expected)


def test_lanes_give_the_same_in_the_stream_s_order_and_keep_apart(
    backend: DeviceBackend, reference: OnnxRuntimeBackend
) -> None:
    """What is queued before an inference is seen by it, what is queued behind sees its outputs: nobody waits."""
    with backend.driver.active():
        lanes = [backend.lane(WANTED, batch) for batch in (1, 2, 1)]
        for seed in range(4):  # a provider that captures graphs replays from the second or third on
            sent = []
            for index, lane in enumerate(lanes):
                image = images(backend, lane.image.shape[0], 10 * seed + index)
                backend.driver.upload(image, lane.image.pointer, lane.stream)
                lane.enqueue()
                sent.append(image)
            for lane, image in zip(lanes, sent, strict=True):
                for name, expected in zip(WANTED, reference.run(WANTED, image), strict=True):
                    assert_close(on_host(backend, lane.outputs[name], lane), expected)
        for lane in lanes:
            lane.close()


def test_a_captured_lane_replays_with_new_images(backend: DeviceBackend, reference: OnnxRuntimeBackend) -> None:
    driver = backend.driver
    with driver.active():
        lane = backend.lane(WANTED, 1)
        lane.enqueue()
        lane.stream.synchronize()
        if not (lane.capturable and driver.has_graphs):
            lane.close()
            pytest.skip(f"{backend.engine}: its lanes are not captured")
        with driver.capture(lane.stream) as captured:
            lane.enqueue()
        graph = captured.graph()
        for seed in range(3):
            image = images(backend, 1, seed)
            driver.upload(image, lane.image.pointer, lane.stream)
            graph.launch(lane.stream)
            for name, expected in zip(WANTED, reference.run(WANTED, image), strict=True):
                assert_close(on_host(backend, lane.outputs[name], lane), expected)
        graph.close()
        lane.close()


def test_several_threads_run_at_once(backend: DeviceBackend, reference: OnnxRuntimeBackend) -> None:
    def run(seed: int) -> None:
        image = images(backend, 1 + seed % LARGEST, seed)
        assert_close(backend.run(WANTED, image)[0], reference.run(WANTED, image)[0])

    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(run, seed) for seed in range(24)]:
            job.result()


def test_a_batch_that_is_too_large_is_one_line_and_the_backend_goes_on(backend: DeviceBackend) -> None:
    if "TensorRT " not in backend.engine and "TensorRT-RTX " not in backend.engine:
        pytest.skip("ONNX Runtime takes any batch")
    with pytest.raises(BackendError, match="--batch"):
        backend.run(WANTED, images(backend, LARGEST + 1, 0))
    backend.run(WANTED, images(backend, 1, 0))


def test_a_session_explains_a_photograph_as_the_cpu_does(prepared: Maker, model: Path, cat: NDArray[np.uint8]) -> None:
    path, device = prepared(model)
    with gapcam.load(model, device="cpu") as plain, gapcam.load(path, device=device) as session:
        assert session.identity_error <= session.identity_tolerance
        expected = plain(cat)
        for result in (session(cat), session(cat), *session.batch([cat] * LARGEST)):
            assert result.top[0].index == expected.top[0].index
            assert np.corrcoef(result.map().ravel(), expected.map().ravel())[0, 1] > 0.999
            difference = np.abs(result.overlay().astype(int) - expected.overlay().astype(int))
            assert np.percentile(difference, 99) <= 3
