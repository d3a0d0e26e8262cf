"""ONNX Runtime's CUDA provider with graphs, without a GPU: as cuda_graph.cc and cuda_execution_provider.cc have it.

The first run of a graph's number on a thread is captured, in the session's one stream, which takes a while; each later
one on that thread is replayed, whatever arrays are bound by then. -1 leaves graphs out. What is computed is real: ONNX
Runtime's provider for CPUs runs it, when the stream comes there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
from host_driver import HostDriver, HostGraph, HostStream

from gapcam.backends.onnxruntime_device import OnnxRuntimeDeviceBackend
from gapcam.backends.onnxruntime_session import CPU_PROVIDER, make_options, make_session

CAPTURE_S = 0.02
"""How long a capture takes: a network's launches."""


class Run(NamedTuple):
    """One call of the session: on which thread, of which graph, and whether the host waited for it."""

    thread: int
    graph: int
    waited: bool


class CapturingSession:
    """`onnxruntime.InferenceSession` with such a provider.

    Args:
        real: the session that computes.
        driver: of the stream.
        stream: the session's.
    """

    def __init__(self, real: onnxruntime.InferenceSession, driver: HostDriver, stream: HostStream) -> None:
        self.real, self.driver, self.stream = real, driver, stream
        self.graphs: dict[tuple[int, int], HostGraph] = {}
        self.runs: list[Run] = []
        self.fails = False
        """Whether a run raises an error behind the part that it queued."""
        self._running = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, outputs: list[str], feeds: dict[str, Any], options: onnxruntime.RunOptions) -> list[Any]:
        with self._alone(options):
            self.stream.synchronize()
            return list(self.real.run(outputs, feeds))

    def run_with_iobinding(self, arrays: onnxruntime.IOBinding, options: onnxruntime.RunOptions) -> None:
        work = partial(self.real.run_with_iobinding, arrays)
        with self._alone(options) as run:
            key = run.thread, run.graph
            if run.graph < 0:
                self.stream.enqueue(work)
            elif key in self.graphs:
                self.graphs[key].launch(self.stream)
            else:
                self.stream.synchronize()
                with self.driver.capture(self.stream) as captured:
                    self.stream.enqueue(work)
                    time.sleep(CAPTURE_S)
                assert captured.work == [work], "something of another thread's came into the capture"
                self.graphs[key] = captured.graph()
                self.graphs[key].launch(self.stream)
            if self.fails:
                raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
            if run.waited:
                self.stream.synchronize()

    def release_captured_graph(self, number: int) -> None:
        """As the provider does: the thread's own."""
        self.graphs.pop((threading.get_ident(), number))

    @contextlib.contextmanager
    def _alone(self, options: onnxruntime.RunOptions) -> Iterator[Run]:
        entries = [_entry(options, name) for name in ("gpu_graph_id", "disable_synchronize_execution_providers")]
        run = Run(threading.get_ident(), int(entries[0] or 0), entries[1] != "1")
        assert self._running.acquire(blocking=False), "two threads run the session, whose stream is one"
        try:
            self.driver.check_active()
            self.runs.append(run)
            yield run
        finally:
            self._running.release()


def capturing_backend(path: Path, driver: HostDriver) -> tuple[OnnxRuntimeDeviceBackend, CapturingSession]:
    """A backend on such a session."""
    with driver.active():
        stream = driver.stream()
    real = make_session(path, make_options(1, {}), [(CPU_PROVIDER, {})], settings={})
    session = CapturingSession(real, driver, stream)
    backend = OnnxRuntimeDeviceBackend(
        session,  # type: ignore[arg-type]
        driver,
        stream,
        engine="onnxruntime, with graphs",
        memory="cpu",
    )
    return backend, session


def _entry(options: onnxruntime.RunOptions, name: str) -> str | None:
    try:
        return str(options.get_run_config_entry(name))
    except RuntimeError:
        return None
