"""ONNX Runtime's own CUDA graphs: captured in a stream that is nobody else's, once a lane, replayed for all threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from capturing_session import CapturingSession, capturing_backend
from host_driver import HostDriver
from numpy.typing import NDArray
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.backends.device_protocol import Lane
from gapcam.backends.onnxruntime_device import OnnxRuntimeDeviceBackend
from gapcam.errors import BackendError

SIZE = (6, 8)
FRAMES = [np.full((12, 16, 3), level, np.uint8) for level in range(5, 250, 30)]

Opened = tuple[OnnxRuntimeDeviceBackend, CapturingSession]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "m.onnx", contract=a_contract(SIZE))


@pytest.fixture
def opened(model: Path, host: HostDriver) -> Iterator[Opened]:
    backend, session = capturing_backend(model, host)
    yield backend, session
    backend.close()


def images(seed: int, batch: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((batch, 3, *SIZE), np.float32)


def features(lane: Lane, host: HostDriver) -> NDArray[np.float32]:
    """When the lane's stream has come there."""
    out = np.empty(lane.outputs["features"].shape, np.float32)
    host.download(lane.outputs["features"].pointer, out, lane.stream)  # type: ignore[arg-type]
    lane.stream.synchronize()
    return out


def test_threads_go_on_while_another_s_lane_is_captured(opened: Opened, host: HostDriver) -> None:
    backend, session = opened
    with gapcam.Session(backend, kernels=host.module()) as explained:
        expected = [explained(frame).logits for frame in FRAMES]
        stop = threading.Event()

        def use() -> int:
            rounds = 0
            while not stop.is_set() or not rounds:
                for frame, logits in zip(FRAMES, expected, strict=True):
                    np.testing.assert_array_equal(explained(frame).logits, logits)
                rounds += 1
            return rounds

        with ThreadPoolExecutor(2) as threads:
            jobs = [threads.submit(use) for _ in range(2)]
            try:
                for batch in (2, 3, 4, 2, 3):  # new lanes: each is captured, and an older one makes room
                    results = explained.batch(FRAMES[:batch])
                    for result, logits in zip(results, expected, strict=False):
                        np.testing.assert_allclose(result.logits, logits, atol=1e-6)
            finally:
                stop.set()
            assert all(job.result() for job in jobs)
        assert len(session.graphs) <= 4


def test_each_lane_has_a_stream_and_a_graph_of_its_own_and_runs_leave_graphs_out(
    opened: Opened, host: HostDriver
) -> None:
    backend, session = opened
    lanes = [backend.lane(["features"], 1) for _ in range(3)]
    assert len({lane.stream.handle for lane in lanes} | {session.stream.handle}) == 4
    session.runs.clear()
    for lane in lanes:
        lane.enqueue()
    assert len({run.graph for run in session.runs}) == 3
    assert all(run.graph > 0 and not run.waited for run in session.runs)
    for seed, lane in enumerate(lanes):
        host.upload(images(seed), lane.image.pointer, lane.stream)  # type: ignore[arg-type]
        lane.enqueue()
    for seed, lane in enumerate(lanes):
        np.testing.assert_array_equal(features(lane, host), images(seed)[:, [0, 2]])
    session.runs.clear()
    backend.run(["logits"], images(0))
    assert [(run.graph, run.waited) for run in session.runs] == [(-1, True)]
    for lane in lanes:
        lane.close()
    assert not session.graphs


def test_one_thread_runs_everything_so_that_a_graph_is_captured_once_for_all(opened: Opened, host: HostDriver) -> None:
    """The provider keeps graphs and handles for each thread that ever ran the session."""
    backend, session = opened
    with gapcam.Session(backend, kernels=host.module()) as explained:
        graph = explained.frame_graph(12, 16)
        expected = [explained(frame).logits for frame in FRAMES]

        def use(index: int) -> None:
            np.testing.assert_array_equal(explained(FRAMES[index]).logits, expected[index])
            if index == 0:
                np.testing.assert_array_equal(graph(FRAMES[0]).logits, expected[0].max(keepdims=True))

        for index in range(len(FRAMES)):  # each on a new thread, as in an app that makes one for each frame
            with ThreadPoolExecutor(1) as thread:
                thread.submit(use, index).result()
        assert {run.thread for run in session.runs} == {next(iter(session.graphs))[0]}
        assert threading.get_ident() not in {run.thread for run in session.runs}
        assert len(session.graphs) == 2  # the session's lane and the frame graph's
        assert min(Counter(run.graph for run in session.runs if run.graph > 0).values()) > 1


def test_an_inference_sees_what_was_queued_before_it_and_is_seen_by_what_is_queued_behind(
    opened: Opened, host: HostDriver
) -> None:
    backend, _ = opened
    with host.active():
        lane = backend.lane(["features"], 1)
        host.deferred = True
        for seed in range(3):
            host.upload(images(seed), lane.image.pointer, lane.stream)  # type: ignore[arg-type]
            lane.enqueue()
            backend.run(["logits"], images(9))  # waits for the session's stream, and not for the lane's
            np.testing.assert_array_equal(features(lane, host), images(seed)[:, [0, 2]])
            host.upload(images(seed + 3), lane.image.pointer, lane.stream)  # type: ignore[arg-type]
            lane.enqueue()  # nobody waits for the session's stream
            np.testing.assert_array_equal(features(lane, host), images(seed + 3)[:, [0, 2]])
        host.deferred = False
        lane.close()


def test_what_a_run_queued_before_it_failed_is_waited_for(opened: Opened, host: HostDriver) -> None:
    backend, session = opened
    with host.active():
        lane = backend.lane(["features"], 1)
        host.upload(images(1), lane.image.pointer, lane.stream)  # type: ignore[arg-type]
        host.deferred, session.fails = True, True
        with pytest.raises(BackendError, match=r"input of shape \(1, 3, 6, 8\): CUDA failure 700"):
            lane.enqueue()
        np.testing.assert_array_equal(features(lane, host), images(1)[:, [0, 2]])
        host.deferred, session.fails = False, False
        lane.close()


def test_the_thread_ends_with_the_backend(model: Path, host: HostDriver) -> None:
    backend, session = capturing_backend(model, host)
    backend.run(["logits"], images(0))
    (worker,) = [thread for thread in threading.enumerate() if thread.ident == session.runs[0].thread]
    assert worker.daemon
    backend.close()
    worker.join(timeout=10)
    assert not worker.is_alive()
