"""ONNX Runtime on a GPU: frames and outputs stay there, bound by their addresses.

**Streams.** A provider takes one stream a session (`user_compute_stream`), and a second session would hold the weights
twice: one inference runs at a time, which is what a GPU does with a network that fills it. While the CUDA provider
captures that stream, nobody else may queue anything on it. Each lane therefore has a stream of its own, for what comes
before and after an inference; the provider's stream waits for the lane's, and the lane's for the provider's, on the
device. (The host may wait all the same: until its pull request 28686, of 2026, ONNX Runtime's CUDA provider did at the
end of each replay. That costs overlap, and changes no result.)

**One thread.** With graphs, the CUDA provider keeps for each thread that ever ran the session, as long as the session
lives: the graphs that this thread captured, and handles of cuBLAS and cuDNN with their memory. So one thread of the
backend's runs everything, whoever asks: each graph is captured once and replayed for all, also where a lane is made on
one thread and used on another, and an app with a thread for each frame does not fill the GPU.

**CUDA graphs.** The CUDA provider captures them itself (`enable_cuda_graph`): each lane is a graph of its own
(`gpu_graph_id`), since a graph has the addresses of its buffers in it. A lane is therefore not capturable in somebody
else's graph; ONNX Runtime does not promise that it is without its own either. `run`, whose arrays come and go, leaves
graphs out (-1). ONNX Runtime's TensorRT providers have no such way around a graph, and are run without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gapcam.backends.onnxruntime_providers import explain_failure
from gapcam.backends.onnxruntime_session import ORT_ERRORS, one_line, onnxruntime, tensor_infos
from gapcam.backends.own_thread import OwnThread
from gapcam.backends.protocol import CLOSED, Array
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, Stream
from gapcam.errors import BackendError, UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

T = TypeVar("T")

_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
_NO_WAITING = ("disable_synchronize_execution_providers", "1")


class OnnxRuntimeDeviceBackend:
    """A session whose provider computes on a driver's device. `gapcam.backends.onnxruntime_gpu` makes one.

    Several threads may use it.

    Args:
        session: it queues everything on `stream`, and nobody else queues anything there.
        driver: of the device. The backend closes it.
        stream: of the driver.
        engine: what messages and users call it.
        memory: ONNX Runtime's name of the memory that the driver allocates: "cuda", or "cpu".
    """

    def __init__(
        self, session: InferenceSession, driver: Driver, stream: Stream, *, engine: str, memory: str = "cuda"
    ) -> None:
        self.driver, self.engine, self.memory = driver, engine, memory
        self.inputs, self.outputs = tensor_infos(session.get_inputs()), tensor_infos(session.get_outputs())
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self._session: InferenceSession | None = session
        self._stream = stream
        self._numbers = count(1)
        self._thread = OwnThread("gapcam: ONNX Runtime")

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names, from the host to the host. Safe to call while another thread closes."""
        (name,) = self.inputs

        def run() -> list[Array]:
            session = self._opened()
            try:
                return list(session.run(list(outputs), {name: image}, _run_options((_GRAPH_ID, _NO_GRAPH))))
            except ORT_ERRORS as error:
                raise self._failure(image.shape, error) from error

        return self._done(run)

    def lane(self, outputs: Sequence[str], batch: int) -> OnnxRuntimeLane:
        """A new lane. It runs the model, once to see its outputs' shapes and once to let ONNX Runtime make its graph.

        Raises:
            BackendError: there is not enough memory, or the model does not take this batch.
            UsageError: the backend is closed.
        """
        (image,) = self.inputs.values()
        if None in image.shape[1:] or image.shape[0] not in (None, batch):
            raise BackendError(f"the model takes {image}, and a batch of {batch} images was asked for")
        shape = (batch, *(side for side in image.shape[1:] if side is not None))
        seen = self.run(outputs, np.zeros(shape, image.dtype))
        with self.driver.active():
            arrays = {
                name: _allocate(self.driver, array.shape, array.dtype)
                for name, array in zip(outputs, seen, strict=True)
            }
            lane = OnnxRuntimeLane(self, _allocate(self.driver, shape, np.dtype(image.dtype)), arrays)
            lane.enqueue()
            lane.stream.synchronize()
        return lane

    def close(self) -> None:
        """Wait for the inference that has begun, and drop the session and its memory."""

        def drop() -> None:
            session, self._session = self._session, None
            if session is not None:
                self._stream.synchronize()

        with suppress(UsageError):  # it is closed already
            self._done(drop)
        self._thread.close()
        self.driver.close()

    def bind(self, image: DeviceArray, outputs: Mapping[str, DeviceArray], stream: Stream) -> Binding:
        """Tell ONNX Runtime where a lane's arrays are.

        Args:
            image: the input.
            outputs: by name.
            stream: of the lane.
        """
        (name,) = self.inputs
        place = (self.memory, self.driver.device)

        def bind() -> Binding:
            arrays = self._opened().io_binding()
            arrays.bind_input(name, *place, image.dtype.type, image.shape, image.pointer)
            for output, array in outputs.items():
                arrays.bind_output(output, *place, array.dtype.type, array.shape, array.pointer)
            return Binding(arrays, next(self._numbers), image.shape, stream, self.driver)

        return self._done(bind)

    def unbind(self, binding: Binding) -> None:
        """Forget a lane's arrays, and the graph that has their addresses in it."""

        def unbind() -> None:
            session = self._session
            if session is not None and hasattr(session, "release_captured_graph"):  # older ones keep them
                session.release_captured_graph(binding.number)

        with suppress(UsageError):  # it is closed, and all graphs are gone
            self._done(unbind)

    def enqueue(self, binding: Binding) -> None:
        """Queue an inference on bound arrays: behind what is on the lane's stream, which then goes on behind it."""

        def enqueue() -> None:
            session, own = self._opened(), self._stream
            binding.before.record(binding.stream)
            own.wait(binding.before)
            try:
                session.run_with_iobinding(binding.arrays, binding.options)
            except ORT_ERRORS as error:
                with suppress(BackendError):  # the first error is the one to tell
                    self._let_go_on(binding)  # a part of it may be queued
                raise self._failure(binding.shape, error) from error
            self._let_go_on(binding)

        self._done(enqueue)

    def _let_go_on(self, binding: Binding) -> None:
        binding.behind.record(self._stream)
        binding.stream.wait(binding.behind)

    def _done(self, job: Callable[[], T]) -> T:
        """A job's outcome, from the backend's thread.

        Raises:
            UsageError: the backend is closed.
        """

        def active() -> T:
            with self.driver.active():
                return job()

        return self._thread.done(active)

    def _opened(self) -> InferenceSession:
        if self._session is None:
            raise UsageError(CLOSED)
        return self._session

    def _failure(self, shape: Sequence[int], error: Exception) -> BackendError:
        why = one_line(error)
        hint = explain_failure(why, self.driver.architecture)
        return BackendError(f"ONNX Runtime failed on an input of shape {tuple(shape)}: {why}{hint}")


class Binding:
    """A lane's arrays, which ONNX Runtime knows by their addresses, and what an inference on them takes.

    Args:
        arrays: bound.
        number: of the graph.
        shape: of the input.
        stream: of the lane.
        driver: of the stream.
    """

    def __init__(
        self, arrays: onnxruntime.IOBinding, number: int, shape: Sequence[int], stream: Stream, driver: Driver
    ) -> None:
        self.arrays, self.number, self.shape, self.stream = arrays, number, tuple(shape), stream
        self.options = _run_options((_GRAPH_ID, str(number)), _NO_WAITING)
        self.before, self.behind = driver.event(), driver.event()


class OnnxRuntimeLane:
    """Buffers of a batch, bound to the backend's session.

    Attributes:
        stream: of the lane.
        image: the input.
        outputs: by name.
        capturable: False; see the module.
    """

    capturable = False

    def __init__(
        self, backend: OnnxRuntimeDeviceBackend, image: DeviceArray, outputs: Mapping[str, DeviceArray]
    ) -> None:
        self.stream, self.image, self.outputs = backend.driver.stream(), image, outputs
        self._backend = backend
        self._binding: Binding | None = backend.bind(image, outputs, self.stream)

    def enqueue(self) -> None:
        """Queue one inference."""
        if self._binding is None:
            raise UsageError(CLOSED)
        self._backend.enqueue(self._binding)

    def close(self) -> None:
        """Free the buffers, when what was queued on them is done."""
        binding, self._binding = self._binding, None
        if binding is None:
            return
        with self._backend.driver.active():
            self.stream.synchronize()
            self._backend.unbind(binding)
            for array in (self.image, *self.outputs.values()):
                array.owner.close()  # type: ignore[attr-defined]  # the memory that `_allocate` made


def _allocate(driver: Driver, shape: Sequence[int], dtype: np.dtype[np.generic]) -> DeviceArray:
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = driver.allocate(max(nbytes, 1))
    return DeviceArray(memory.pointer, tuple(shape), dtype, owner=memory)


def _run_options(*entries: tuple[str, str]) -> RunOptions:
    options = onnxruntime.RunOptions()
    for name, value in entries:
        options.add_run_config_entry(name, value)
    return options
