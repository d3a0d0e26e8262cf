"""A TensorRT that is none: the part of its Python interface that gapcam calls, on the host driver's memory.

A plan is an ONNX file, which ONNX Runtime runs, so that everything around TensorRT is executed for real: shapes,
addresses, streams, capture and replay. Like `host_driver` it is stricter than what it stands for: nothing runs unless
the shape is within a profile and every tensor has an address, addresses and shapes of a context that was captured must
not change, a context has run once before it is captured, and a change of its profile is waited for. That the real
library has these names is tested elsewhere (test_tensorrt_calls).
"""

from __future__ import annotations

import ctypes
from math import prod
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from host_driver import HostDriver

DTYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "UINT8": np.uint8}


class ILogger:
    WARNING, ERROR, INTERNAL_ERROR = "warning", "error", "internal error"

    def __init__(self) -> None:
        pass


class HostTensorRT(ModuleType):
    """The module `tensorrt`.

    Args:
        driver: on whose streams and memory everything runs.
        largest: the largest batch that each profile covers, by its number.
        capturable: whether an inference may be captured; without, `execute_async_v3` gives False while one is.
        runtime_cache: whether it has what only TensorRT-RTX has.
        warning: of each engine that it loads; "" for none.
        contradiction: what `infer_shapes` raises instead of an answer; "" for nothing.
    """

    ILogger = ILogger
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def __init__(
        self,
        driver: HostDriver,
        *,
        largest: tuple[int, ...],
        capturable: bool = True,
        runtime_cache: bool = False,
        warning: str = "",
        contradiction: str = "",
    ) -> None:
        super().__init__(f"host_tensorrt_{id(self):x}")
        self.__version__ = "10.13.3.9"
        self.driver, self.largest, self.capturable, self.runtime_cache = driver, largest, capturable, runtime_cache
        self.warning, self.contradiction = warning, contradiction
        self.contexts: list[HostContext] = []
        self.compiled: bytes = b""
        self.Runtime = lambda logger: HostRuntime(self, logger)


class HostRuntime:
    def __init__(self, module: HostTensorRT, logger: Any) -> None:
        self._module, self._logger = module, logger

    def deserialize_cuda_engine(self, plan: memoryview) -> HostEngine | None:
        self._module.driver.check_active()
        if self._module.warning:
            self._logger.log(ILogger.WARNING, self._module.warning)
        try:
            return HostEngine(self._module, self._logger, bytes(plan))
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf:
            self._logger.log(ILogger.ERROR, "deserializeCudaEngine: Error Code 1: the magic tag does not match")
            return None


class HostEngine:
    def __init__(self, module: HostTensorRT, logger: Any, plan: bytes) -> None:
        self.module, self.logger = module, logger
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        self.tensors = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.tensors)
        if module.runtime_cache:
            self.create_runtime_config = lambda: HostConfig(module)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=DTYPES[self.tensors[name].type])

    def create_execution_context(self, config: HostConfig | None = None) -> HostContext:
        assert (config is not None) == self.module.runtime_cache
        context = HostContext(self)
        self.module.contexts.append(context)
        return context


class HostConfig:
    """`IRuntimeConfig` of TensorRT-RTX."""

    def __init__(self, module: HostTensorRT) -> None:
        self._module = module
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"

    def create_runtime_cache(self) -> HostRuntimeCache:
        return HostRuntimeCache(self._module)

    def set_runtime_cache(self, cache: HostRuntimeCache) -> bool:
        assert isinstance(cache, HostRuntimeCache)
        return True


class HostRuntimeCache:
    def __init__(self, module: HostTensorRT) -> None:
        self._module = module

    def deserialize(self, blob: bytes) -> bool:
        self._module.compiled = blob
        return True

    def serialize(self) -> bytes:
        return f"kernels of {len(self._module.contexts)} contexts".encode()


class HostContext:
    def __init__(self, engine: HostEngine) -> None:
        self._engine = engine
        self._image = engine.session.get_inputs()[0].name
        self._shape: tuple[int, ...] | None = None
        self._addresses: dict[str, int] = {}
        self._profile, self._changing = 0, False
        self.captured = False
        self.executed = 0

    def set_optimization_profile_async(self, number: int, stream_handle: int) -> bool:
        if number >= len(self._engine.module.largest):
            self._engine.logger.log(ILogger.ERROR, f"setOptimizationProfileAsync: there is no profile {number}")
            return False
        self._profile, self._shape, self._changing = number, None, True
        self._engine.module.driver.wrap_stream(stream_handle).enqueue(self._change)
        return True

    def _change(self) -> None:
        self._changing = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.captured, "a captured context must keep its shape"
        assert name == self._image
        if not 1 <= shape[0] <= self._engine.module.largest[self._profile]:
            self._engine.logger.log(ILogger.ERROR, f"setInputShape: {shape} is outside of the profile")
            return False
        self._shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        if self._engine.module.contradiction:
            raise RuntimeError(self._engine.module.contradiction)
        return [] if self._shape else [self._image]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shape is not None
        if name == self._image:
            return self._shape
        return tuple(self._shape[0] if isinstance(side, str) else side for side in self._engine.tensors[name].shape)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        assert not self.captured, "a captured context must keep its addresses"
        self._addresses[name] = pointer
        return name in self._engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        module = self._engine.module
        stream = module.driver.wrap_stream(stream_handle)
        if stream.capturing is not None and not module.capturable:
            return False
        if self._shape is None or set(self._addresses) != set(self._engine.tensors):
            self._engine.logger.log(ILogger.ERROR, "enqueueV3: a tensor has no shape or address")
            return False
        if self._changing:
            self._engine.logger.log(ILogger.ERROR, "enqueueV3: the change of the profile is not done")
            return False
        if stream.capturing is not None and not self.executed:
            self._engine.logger.log(ILogger.ERROR, "enqueueV3: the first inference of a context cannot be captured")
            return False
        self.captured |= stream.capturing is not None
        stream.enqueue(self._execute)
        return True

    def _execute(self) -> None:
        self.executed += 1
        names = [node.name for node in self._engine.session.get_outputs()]
        results = self._engine.session.run(names, {self._image: self._array(self._image)})
        for name, result in zip(names, results, strict=True):
            self._array(name)[...] = result

    def _array(self, name: str) -> np.ndarray:
        """A tensor where its address says it is; a GPU would fault where that is not allocated."""
        shape = self.get_tensor_shape(name)
        dtype = np.dtype(NUMPY[DTYPES[self._engine.tensors[name].type]])
        nbytes, pointer = prod(shape) * dtype.itemsize, self._addresses[name]
        driver = self._engine.module.driver
        assert any(at <= pointer and pointer + nbytes <= at + size for at, size in driver._live.items()), name
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pointer)).view(dtype).reshape(shape)
