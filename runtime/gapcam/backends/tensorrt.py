"""TensorRT and TensorRT-RTX: an engine file's plan, run on a GPU.

Both libraries have one Python interface, from 10.0 on: named tensors and `execute_async_v3`. What only some versions
have is asked for with `hasattr`. An execution context belongs to one shape of the input, with addresses that do not
change, so that its inference can be in a CUDA graph; several run at once, each on a stream of its own.

`cam_weights` and `cam_bias` are not in the plan. `run` gives them from the engine file's header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from gapcam.atomic_file import write_atomically
from gapcam.backends.protocol import CLOSED, Array, TensorInfo
from gapcam.backends.tensorrt_lanes import Execution, TensorRTLane, TensorRTWorker
from gapcam.backends.tensorrt_shapes import (
    Shape,
    batch_shape,
    check_tensors,
    known_shape,
    profile_of,
)
from gapcam.cache_folder import cache_folder
from gapcam.cuda.driver import Driver, Stream
from gapcam.cuda.lending_pool import LendingPool
from gapcam.engine_file import REBUILD, EngineFile
from gapcam.engine_fit import DeviceFacts, differences, this_platform
from gapcam.errors import BackendError, DataError, UsageError
from gapcam.tensorrt_log import collected, logger_of
from gapcam.tensorrt_module import TITLES, import_tensorrt

_WORKERS = 2
"""Callers of `run` at once: one copies while the other's inference runs."""


class TensorRTBackend:
    """An engine on a GPU. Several threads may use it.

    Args:
        file: read and checked; the backend closes it.
        driver: of the device; the backend closes it.

    Attributes:
        warnings: what TensorRT warned of when it loaded the engine, such as that it was built on another GPU.

    Raises:
        BackendError: TensorRT is not installed, the engine does not fit the device, or cannot be loaded there.
        MissingExtraError: TensorRT-RTX is not installed.
        ModelError: the engine's tensors are not those that its header names.
    """

    def __init__(self, file: EngineFile, driver: Driver) -> None:
        self.driver, self.header, self.metadata = driver, file.header, file.metadata
        self._file, self._closed = file, False
        self._constants = file.tensors
        self._trt = trt = import_tensorrt(file.header.runtime)
        title = f"{TITLES[file.header.runtime]} {trt.__version__}"
        self.engine = f"{title}, {driver.device_name}"
        self._refuse_unfit(str(trt.__version__))
        with driver.active():
            self._load(title)
            self._workers: LendingPool[None, TensorRTWorker] = LendingPool(
                self._new_worker, TensorRTWorker.close, _WORKERS
            )
        (self.image,) = self.header.inputs
        constants = [TensorInfo(name, array.shape, str(array.dtype)) for name, array in self._constants.items()]
        given = [TensorInfo(tensor.name, tensor.shape, tensor.dtype) for tensor in self.header.outputs]
        self.inputs = {self.image.name: TensorInfo(self.image.name, self.image.shape, self.image.dtype)}
        self.outputs = {info.name: info for info in (*given, *constants)}

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        """The outputs of these names, from the host to the host; only those are downloaded."""
        asked = [name for name in outputs if name not in self._constants]
        computed: dict[str, Array] = {}
        if asked:
            with self.driver.active(), self._workers.lent(None) as worker:
                computed = worker.run(asked, image)
        elif self._closed:
            raise UsageError(CLOSED)
        return [computed[name] if name in computed else self._constants[name].copy() for name in outputs]

    def lane(self, outputs: Sequence[str], batch: int) -> TensorRTLane:
        """A new lane.

        Raises:
            BackendError: there is not enough memory, or no optimisation profile covers this batch.
            UsageError: the backend is closed.
        """
        self.check_open()
        shape = batch_shape(self.header.profiles, self.image, batch)
        with self.driver.active():
            lane = TensorRTLane(self, outputs, shape)
            self._keep_compiled_kernels()
        return lane

    def close(self) -> None:
        """Wait for the inferences that have begun, and free the engine and its memory."""
        if self._closed:
            return
        self._closed = True
        with self.driver.active():
            self._workers.close()
            self._keep_compiled_kernels()
            del self._config, self._cache, self._engine, self._runtime
        self._file.close()
        self.driver.close()

    def check_open(self) -> None:
        """Raises UsageError after `close`."""
        if self._closed:
            raise UsageError(CLOSED)

    def execution(self, shape: Shape, stream: Stream) -> Execution:
        """A new execution context for a shape of the input, without addresses yet. Call it inside `driver.active()`.

        Raises:
            BackendError: no optimisation profile covers the shape, or there is not enough memory.
        """
        number = profile_of(self.header.profiles, self.image, shape)
        with collected(self._trt) as said:
            context = self._new_context()
            if context is None:
                raise self._failure("cannot make an execution context", said)
            if number and not context.set_optimization_profile_async(number, stream.handle):
                raise self._failure(f"cannot use the optimisation profile {number}", said)
            stream.synchronize()
            try:
                taken = context.set_input_shape(self.image.name, shape) and not context.infer_shapes()
            except RuntimeError as error:  # how the binding says that shapes contradict each other
                raise self._failure(f"does not take an input of shape {shape}", said, error) from error
            if not taken:
                raise self._failure(f"does not take an input of shape {shape}", said)
            shapes = {
                tensor.name: known_shape(tensor.name, tuple(context.get_tensor_shape(tensor.name)))
                for tensor in self.header.outputs
            }
        return Execution(self, context, stream, {self.image.name: shape, **shapes})

    def addressed(self, context: Any, addresses: Mapping[str, int]) -> None:
        """Tell a context where its tensors are."""
        with collected(self._trt) as said:
            for name, pointer in addresses.items():
                if not context.set_tensor_address(name, pointer):
                    raise self._failure(f"does not take the address of {name}", said)

    def enqueued(self, context: Any, stream: Stream) -> None:
        """Queue one inference of a context."""
        with collected(self._trt) as said:
            if not context.execute_async_v3(stream.handle):
                raise self._failure("failed", said)

    def _refuse_unfit(self, version: str) -> None:
        driver = self.driver
        facts = DeviceFacts(
            runtime=self.header.runtime,
            runtime_version=version,
            platform=this_platform(),
            architecture=driver.architecture,
            device=driver.device_name,
            cuda_driver=driver.driver_version,
        )
        found = differences(self.header, facts)
        if found:
            raise BackendError(f"{self._file.path} does not fit this device: {'; '.join(found)}. Here, {self._rebuild}")

    @property
    def _rebuild(self) -> str:
        return REBUILD.format(path=self._file.path)

    def _load(self, title: str) -> None:
        """Make a Runtime, which must live as long as its engines, and the engine."""
        trt, path = self._trt, self._file.path
        with collected(trt) as said:
            try:
                self._runtime = runtime = trt.Runtime(logger_of(trt))
            except (RuntimeError, TypeError) as error:  # how the binding says that C++ gave it a null pointer
                raise BackendError(f"{title} does not start here: {_joined(said, error)}") from error
            if self.header.options.version_compatible:  # such plans bring the code that runs them
                runtime.engine_host_code_allowed = True
            self._engine = engine = runtime.deserialize_cuda_engine(self._file.plan)
        if engine is None:
            raise BackendError(f"{title} cannot load {path}: {_joined(said)}. If the GPU is fine, {self._rebuild}")
        self.warnings = tuple(said)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        check_tensors(self.header, {name: engine.get_tensor_dtype(name).name for name in names}, path)
        self._config = config = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
        self._cache, self._kept = None, b""
        # TensorRT-RTX compiles kernels for the GPU when a context is made. They are kept from one process to the next.
        if config is not None and hasattr(config, "create_runtime_cache"):
            # For the shape that is asked for at once, not in the background after some inferences: a graph would keep
            # the general ones. Its own graphs (cuda_graph_strategy) stay off: a lane is part of a greater one.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            self._cache = cache = config.create_runtime_cache()
            with suppress(OSError):
                cache.deserialize(self._cache_file.read_bytes())  # False where it is of another GPU or driver
            config.set_runtime_cache(cache)

    @property
    def _cache_file(self) -> Path:
        key = hashlib.sha256(msgspec.json.encode(self.header)).hexdigest()[:24]
        return cache_folder() / f"tensorrt-rtx-{key}-{self.driver.architecture}.kernels"

    def _keep_compiled_kernels(self) -> None:
        """Not only at the end: a camera's power is switched off."""
        if self._cache is None:
            return
        serialized = self._cache.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content and content != self._kept:
            self._kept = content
            with suppress(DataError):  # a cache that cannot be written is done without
                write_atomically(self._cache_file, content)

    def _new_worker(self, _: None) -> TensorRTWorker:
        worker = TensorRTWorker(self)
        self._keep_compiled_kernels()
        return worker

    def _new_context(self) -> Any:
        if self._config is not None:
            return self._engine.create_execution_context(self._config)
        return self._engine.create_execution_context()

    def _failure(self, what: str, said: Sequence[str], error: Exception | None = None) -> BackendError:
        return BackendError(f"{self.engine.partition(',')[0]} {what}: {_joined(said, error)}")


def _joined(said: Sequence[str], error: Exception | None = None) -> str:
    given = [*said[:3]] or ([" ".join(str(error).split())] if error is not None else [])
    return "; ".join(given).rstrip(".") or "it gave no reason"
