"""Where a TensorRT engine runs: execution contexts with their streams and buffers, captured or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gapcam.backends.protocol import CLOSED, Array
from gapcam.backends.tensorrt_shapes import Shape, largest_shape, nbytes
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Graph, Memory, Stream
from gapcam.errors import BackendError, UsageError

if TYPE_CHECKING:
    from gapcam.backends.tensorrt import TensorRTBackend

_SHAPES = 4
"""Execution contexts of a worker. Each has scratch memory of its own; the one that was used longest ago goes."""


class Execution:
    """An execution context for one shape of the input, and where its tensors are.

    Attributes:
        shapes: of the input and all outputs, by name.
    """

    def __init__(self, backend: TensorRTBackend, context: Any, stream: Stream, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._backend, self._context, self._stream = backend, context, stream
        self._graph: Graph | None = None

    def place(self, addresses: Mapping[str, int]) -> None:
        """Set the addresses of all tensors: TensorRT writes every output, whether it was asked for or not."""
        self._backend.addressed(self._context, addresses)

    @property
    def capturable(self) -> bool:
        """Whether TensorRT says that an inference may be in a CUDA graph. Versions that cannot say are tried."""
        context = self._context
        return not hasattr(context, "is_stream_capturable") or bool(context.is_stream_capturable(self._stream.handle))

    def enqueue(self) -> None:
        """Queue one inference."""
        self._backend.enqueued(self._context, self._stream)

    def capture(self) -> None:
        """Capture an inference, so that `launch` is one call. Where that fails, `launch` queues it kernel by kernel."""
        driver = self._backend.driver
        self.enqueue()  # TensorRT's first inference of a context may allocate
        self._stream.synchronize()
        if not (driver.has_graphs and self.capturable):
            return
        with suppress(BackendError):
            with driver.capture(self._stream) as captured:
                self.enqueue()
            self._graph = captured.graph()

    def launch(self) -> None:
        """Queue one inference: the captured one, if there is one."""
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self.enqueue()

    def close(self) -> None:
        """Free the graph and the context's memory. What was queued must be done."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = None


class TensorRTLane:
    """Buffers and an execution context for one shape of the input.

    Attributes:
        stream: of the lane.
        image: the input.
        outputs: those that were asked for, by name.
    """

    def __init__(self, backend: TensorRTBackend, outputs: Sequence[str], shape: Shape) -> None:
        self.stream = backend.driver.stream()
        self._backend = backend
        self._execution: Execution | None = backend.execution(shape, self.stream)
        self._memory: list[Memory] = []
        dtypes = {tensor.name: tensor.dtype for tensor in (*backend.header.inputs, *backend.header.outputs)}
        arrays: dict[str, DeviceArray] = {}
        for name, sides in self._execution.shapes.items():
            memory = backend.driver.allocate(nbytes(sides, dtypes[name]))
            self._memory.append(memory)
            arrays[name] = DeviceArray(memory.pointer, sides, np.dtype(dtypes[name]), owner=memory)
        self._execution.place({name: array.pointer for name, array in arrays.items()})
        self.image = arrays[backend.image.name]
        self.outputs = {name: arrays[name] for name in outputs}

    @property
    def capturable(self) -> bool:
        """Whether `enqueue` may be captured."""
        return self._execution is not None and self._execution.capturable

    def enqueue(self) -> None:
        """Queue one inference. Call it inside `driver.active()`."""
        self._backend.check_open()
        if self._execution is None:
            raise UsageError(CLOSED)
        self._execution.enqueue()

    def close(self) -> None:
        """Free the context and the buffers, when what was queued is done."""
        execution, self._execution = self._execution, None
        if execution is None:
            return
        with self._backend.driver.active():
            self.stream.synchronize()
            execution.close()
            for memory in self._memory:
                memory.close()


class TensorRTWorker:
    """What one call of `run` needs: a stream, buffers for the largest input, an execution context for each shape."""

    def __init__(self, backend: TensorRTBackend) -> None:
        driver, header = backend.driver, backend.header
        self._backend, self._driver = backend, driver
        self._stream = driver.stream()
        self._dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in (*header.inputs, *header.outputs)}
        largest = largest_shape(header.profiles, backend.image)
        first = backend.execution(largest, self._stream)
        sizes = {name: nbytes(shape, str(self._dtypes[name])) for name, shape in first.shapes.items()}
        self._memory = {name: driver.allocate(size) for name, size in sizes.items()}
        self._pinned: dict[str, Array] = {}
        self._executions: dict[Shape, Execution] = {}  # the one that was used last is the last
        self._add(largest, first)

    def run(self, outputs: Sequence[str], image: Array) -> dict[str, Array]:
        """Those outputs of an inference."""
        name, stream = self._backend.image.name, self._stream
        if image.dtype != self._dtypes[name]:
            raise BackendError(f"the image is {image.dtype}, and the engine takes {self._dtypes[name]}")
        execution = self._execution(tuple(image.shape))
        source = self._host(name, image.shape)
        np.copyto(source, image)
        self._driver.upload(source, self._memory[name].pointer, stream)
        execution.launch()
        targets = {output: self._host(output, execution.shapes[output]) for output in outputs}
        for output, target in targets.items():
            self._driver.download(self._memory[output].pointer, target, stream)
        stream.synchronize()
        return {output: target.copy() for output, target in targets.items()}

    def close(self) -> None:
        """Free everything."""
        with self._driver.active():
            for execution in self._executions.values():
                execution.close()
            for memory in self._memory.values():
                memory.close()

    def _execution(self, shape: Shape) -> Execution:
        found = self._executions.pop(shape, None)
        if found is None:
            return self._add(shape, self._backend.execution(shape, self._stream))
        self._executions[shape] = found
        return found

    def _add(self, shape: Shape, execution: Execution) -> Execution:
        execution.place({name: memory.pointer for name, memory in self._memory.items()})
        execution.capture()
        if len(self._executions) == _SHAPES:
            self._executions.pop(next(iter(self._executions))).close()
        self._executions[shape] = execution
        return execution

    def _host(self, name: str, shape: Sequence[int]) -> Array:
        """The pinned array of a tensor: made once for the largest shape, when it is first asked for."""
        if name not in self._pinned:
            self._pinned[name] = self._driver.pinned((self._memory[name].nbytes,), np.uint8)
        dtype = self._dtypes[name]
        return self._pinned[name][: nbytes(shape, str(dtype))].view(dtype).reshape(shape)
