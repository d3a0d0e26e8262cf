"""ONNX Runtime on a GPU: frames and outputs stay there, bound by their addresses.

**Streams.** The session's provider is given one stream of the driver's (`user_compute_stream`), so that the kernels
before and after an inference are queued behind and in front of it and nobody waits in between. A provider takes one
stream a session, and a second session would hold the weights twice: all lanes share the stream and the session, and one
inference runs at a time, which is what a GPU does with a network that fills it.

**CUDA graphs.** The CUDA provider captures them itself (`enable_cuda_graph`): each lane is a graph of its own
(`gpu_graph_id`), since a graph has the addresses of its buffers in it. A lane is therefore not capturable in somebody
else's graph; ONNX Runtime does not promise that it is without its own either. `run`, whose arrays come and go, leaves
graphs out (-1). ONNX Runtime's TensorRT providers have no such way around a graph, and are run without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from gapcam.backends.onnxruntime_providers import explain_failure
from gapcam.backends.onnxruntime_session import ORT_ERRORS, one_line, onnxruntime, tensor_infos
from gapcam.backends.protocol import CLOSED, Array
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver, Stream
from gapcam.errors import BackendError, UsageError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = "-1"
_NO_WAITING = ("disable_synchronize_execution_providers", "1")


class OnnxRuntimeDeviceBackend:
    """A session whose provider computes on a driver's device. `gapcam.backends.onnxruntime_gpu` makes one.

    Several threads may use it.

    Args:
        session: it queues everything on `stream`.
        driver: of the device. The backend closes it.
        stream: of the driver.
        engine: what messages and users call it.
        memory: ONNX Runtime's name of the memory that the driver allocates: "cuda", or "cpu".
    """

    def __init__(
        self, session: InferenceSession, driver: Driver, stream: Stream, *, engine: str, memory: str = "cuda"
    ) -> None:
        self.driver, self.engine, self.memory = driver, engine, memory
        self.stream = stream
        self.inputs, self.outputs = tensor_infos(session.get_inputs()), tensor_infos(session.get_outputs())
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self._session: InferenceSession | None = session
        self._lock = Lock()
        self._numbers = count(1)

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names, from the host to the host. Safe to call while another thread closes."""
        (name,) = self.inputs
        with self._lock, self.driver.active():
            session = self._opened()
            try:
                return list(session.run(list(outputs), {name: image}, _run_options((_GRAPH_ID, _NO_GRAPH))))
            except ORT_ERRORS as error:
                raise self._failure(image.shape, error) from error

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
            self.stream.synchronize()
        return lane

    def close(self) -> None:
        """Wait for the inference that has begun, and drop the session and its memory."""
        with self._lock:
            session, self._session = self._session, None
            if session is None:
                return
            with self.driver.active():
                self.stream.synchronize()
                del session
        self.driver.close()

    def bind(self, image: DeviceArray, outputs: Mapping[str, DeviceArray]) -> Binding:
        """Tell ONNX Runtime where a lane's arrays are."""
        (name,) = self.inputs
        with self._lock:
            binding = self._opened().io_binding()
        place = (self.memory, self.driver.device)
        binding.bind_input(name, *place, image.dtype.type, image.shape, image.pointer)
        for output, array in outputs.items():
            binding.bind_output(output, *place, array.dtype.type, array.shape, array.pointer)
        number = next(self._numbers)
        return Binding(binding, _run_options((_GRAPH_ID, str(number)), _NO_WAITING), number)

    def unbind(self, binding: Binding) -> None:
        """Forget a lane's arrays, and the graph that has their addresses in it."""
        with self._lock:
            session = self._session
            if session is not None and hasattr(session, "release_captured_graph"):  # older ones keep them
                session.release_captured_graph(binding.number)

    def enqueue(self, binding: Binding, image: DeviceArray) -> None:
        """Queue an inference on bound arrays."""
        with self._lock:
            session = self._opened()
            try:
                session.run_with_iobinding(binding.arrays, binding.options)
            except ORT_ERRORS as error:
                raise self._failure(image.shape, error) from error

    def _opened(self) -> InferenceSession:
        if self._session is None:
            raise UsageError(CLOSED)
        return self._session

    def _failure(self, shape: Sequence[int], error: Exception) -> BackendError:
        why = one_line(error)
        hint = explain_failure(why, self.driver.architecture)
        return BackendError(f"ONNX Runtime failed on an input of shape {tuple(shape)}: {why}{hint}")


class Binding:
    """Arrays that ONNX Runtime knows by their addresses, the options of a run on them, and the number of its graph."""

    def __init__(self, arrays: onnxruntime.IOBinding, options: RunOptions, number: int) -> None:
        self.arrays, self.options, self.number = arrays, options, number


class OnnxRuntimeLane:
    """Buffers of a batch, bound to the backend's session.

    Attributes:
        stream: the backend's.
        image: the input.
        outputs: by name.
        capturable: False; see the module.
    """

    capturable = False

    def __init__(
        self, backend: OnnxRuntimeDeviceBackend, image: DeviceArray, outputs: Mapping[str, DeviceArray]
    ) -> None:
        self.stream, self.image, self.outputs = backend.stream, image, outputs
        self._backend = backend
        self._binding: Binding | None = backend.bind(image, outputs)

    def enqueue(self) -> None:
        """Queue one inference. Call it inside `driver.active()`."""
        if self._binding is None:
            raise UsageError(CLOSED)
        self._backend.enqueue(self._binding, self.image)

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
