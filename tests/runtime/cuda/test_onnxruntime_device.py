"""ONNX Runtime on a driver's memory: its real I/O binding, with its CPU provider and the host's memory for a GPU's.

What this cannot show is the provider's own stream and CUDA graphs; tests/gpu has those.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from host_driver import HostDriver
from numpy.typing import NDArray
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.backends.onnxruntime_device import OnnxRuntimeDeviceBackend
from gapcam.backends.onnxruntime_session import CPU_PROVIDER, make_options, make_session
from gapcam.cuda.device_array import DeviceArray
from gapcam.errors import BackendError, UsageError

SIZE = (6, 8)
WANTED = ("logits", "features")


def device_backend(path: Path, driver: HostDriver) -> OnnxRuntimeDeviceBackend:
    session = make_session(path, make_options(1, {}), [(CPU_PROVIDER, {})], settings={})
    return OnnxRuntimeDeviceBackend(session, driver, driver.stream(), engine="onnxruntime, here", memory="cpu")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE))


@pytest.fixture
def backend(model: Path, host: HostDriver) -> Iterator[OnnxRuntimeDeviceBackend]:
    opened = device_backend(model, host)
    yield opened
    opened.close()


def images(batch: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((batch, 3, *SIZE), np.float32)


def on_host(array: DeviceArray, driver: HostDriver, stream: object) -> NDArray[np.float32]:
    out = np.empty(array.shape, array.dtype)
    driver.download(array.pointer, out, stream)  # type: ignore[arg-type]
    return out


def test_it_is_what_a_session_calls_a_device_backend(backend: OnnxRuntimeDeviceBackend) -> None:
    assert isinstance(backend, DeviceBackend)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_lane_computes_what_a_run_does_image_after_image_in_the_same_memory(
    model: Path, backend: OnnxRuntimeDeviceBackend, host: HostDriver, batch: int
) -> None:
    reference = OnnxRuntimeBackend(model, threads=1)
    lane = backend.lane(WANTED, batch)
    addresses = [array.pointer for array in (lane.image, *lane.outputs.values())]
    for seed in range(3):
        image = images(batch, seed)
        host.upload(image, lane.image.pointer, lane.stream)
        lane.enqueue()
        for name, expected in zip(WANTED, reference.run(WANTED, image), strict=True):
            np.testing.assert_array_equal(on_host(lane.outputs[name], host, lane.stream), expected)
        for name, expected, got in zip(WANTED, reference.run(WANTED, image), backend.run(WANTED, image), strict=True):
            np.testing.assert_array_equal(got, expected, name)
    assert addresses == [array.pointer for array in (lane.image, *lane.outputs.values())]
    assert [array.shape for array in lane.outputs.values()] == [(batch, 2), (batch, 2, *SIZE)]
    lane.close()


def test_lanes_keep_their_results_apart(backend: OnnxRuntimeDeviceBackend, host: HostDriver) -> None:
    lanes = [backend.lane(["features"], 1) for _ in range(2)]
    for seed, lane in enumerate(lanes):
        host.upload(images(1, seed), lane.image.pointer, lane.stream)
        lane.enqueue()
    for seed, lane in enumerate(lanes):
        features = on_host(lane.outputs["features"], host, lane.stream)
        np.testing.assert_array_equal(features, images(1, seed)[:, [0, 2]])
        lane.close()


def test_constants_are_outputs_like_any_other(backend: OnnxRuntimeDeviceBackend) -> None:
    weights, features = backend.run(["cam_weights", "features"], images(2))
    assert (weights.shape, features.shape) == ((2, 2), (2, 2, *SIZE))


def test_a_lane_gives_its_memory_back_and_then_refuses_to_run(
    backend: OnnxRuntimeDeviceBackend, host: HostDriver
) -> None:
    before = host.allocated_bytes
    lane = backend.lane(WANTED, 2)
    assert host.allocated_bytes > before
    lane.close()
    lane.close()
    assert host.allocated_bytes == before
    with pytest.raises(UsageError):
        lane.enqueue()


def test_a_closed_backend_refuses_everything_and_lets_its_lanes_go(model: Path, host: HostDriver) -> None:
    before = host.allocated_bytes
    backend = device_backend(model, host)
    lane = backend.lane(WANTED, 1)
    backend.close()
    backend.close()
    for call in (lane.enqueue, lambda: backend.run(WANTED, images(1)), lambda: backend.lane(WANTED, 1)):
        with pytest.raises(UsageError):
            call()
    lane.close()
    assert host.allocated_bytes == before


def test_a_batch_that_the_model_does_not_take_is_one_line(tmp_path: Path, host: HostDriver) -> None:
    static = device_backend(red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE), batch=1), host)
    static.lane(WANTED, 1).close()
    with pytest.raises(BackendError, match=r"image \[1,3,6,8\] float32, and a batch of 2 images"):
        static.lane(WANTED, 2)
    static.close()


def test_a_wrong_input_names_its_shape(backend: OnnxRuntimeDeviceBackend) -> None:
    with pytest.raises(BackendError, match=r"input of shape \(1, 3, 5, 5\)"):
        backend.run(WANTED, np.zeros((1, 3, 5, 5), np.float32))


def test_several_threads_run_while_lanes_do(backend: OnnxRuntimeDeviceBackend, host: HostDriver) -> None:
    def call(seed: int) -> bool:
        image = images(2, seed)
        (features,) = backend.run(["features"], image)
        return bool((features == image[:, [0, 2]]).all())

    def in_a_lane(seed: int) -> bool:
        with host.active():
            lane = backend.lane(["features"], 2)
            image = images(2, seed)
            host.upload(image, lane.image.pointer, lane.stream)
            lane.enqueue()
            features = np.empty(lane.outputs["features"].shape, np.float32)
            ctypes.memmove(features.ctypes.data, lane.outputs["features"].pointer, features.nbytes)
            lane.close()
        return bool((features == image[:, [0, 2]]).all())

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(call if seed % 2 else in_a_lane, seed) for seed in range(40)]
        assert all(job.result() for job in jobs)


def test_uint8_images_with_the_preprocessing_in_the_graph_are_bound_as_bytes(tmp_path: Path, host: HostDriver) -> None:
    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE, embedded=True))
    backend = device_backend(path, host)
    lane = backend.lane(WANTED, 1)
    assert (lane.image.shape, lane.image.dtype) == ((1, *SIZE, 3), np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    host.upload(image, lane.image.pointer, lane.stream)
    lane.enqueue()
    expected = OnnxRuntimeBackend(path, threads=1).run(["features"], image)[0]
    np.testing.assert_array_equal(on_host(lane.outputs["features"], host, lane.stream), expected)
    lane.close()
    backend.close()


def test_a_session_on_it_gives_the_maps_of_one_on_the_cpu(
    demo_model: Path, host: HostDriver, cat: NDArray[np.uint8]
) -> None:
    with (
        gapcam.load(demo_model, device="cpu", threads=1) as plain,
        gapcam.Session(device_backend(demo_model, host), kernels=host.module()) as session,
    ):
        expected, result = plain(cat), session(cat)
        assert result.top[0].index == expected.top[0].index
        np.testing.assert_allclose(result.logits, expected.logits, atol=0.05)
        scale = np.abs(expected.map()).max()
        np.testing.assert_allclose(result.map(), expected.map(), atol=0.01 * scale)
