"""A backend on a CUDA device that is none: ONNX Runtime's CPU provider on the host driver's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from host_driver import HostDriver, HostStream
from numpy.typing import NDArray

from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.backends.protocol import CLOSED, Array
from gapcam.cuda.device_array import DeviceArray
from gapcam.errors import BackendError, UsageError


class HostDeviceBackend(OnnxRuntimeBackend):
    """A `gapcam.backends.device_protocol.DeviceBackend`, with a real engine.

    Args:
        path: of the .onnx file.
        driver: where its lanes have their memory.
        capturable: whether its lanes are.
        capture_fails: whether they find out too late that they are not.
    """

    def __init__(self, path: Path, driver: HostDriver, *, capturable: bool = True, capture_fails: bool = False) -> None:
        super().__init__(path, threads=1)
        self.driver = driver
        self.capturable, self.capture_fails = capturable, capture_fails
        self.lanes: list[HostLane] = []
        self.runs = 0

    def lane(self, outputs: Sequence[str], batch: int) -> HostLane:
        if self.closed:
            raise UsageError(CLOSED)
        self.lanes.append(HostLane(self, outputs, batch))
        return self.lanes[-1]

    def run(self, outputs: Sequence[str], image: Array) -> list[Array]:
        self.runs += 1
        return super().run(outputs, image)

    @property
    def closed(self) -> bool:
        return self._session is None

    def close(self) -> None:
        assert not self.closed, "it is closed once"
        assert all(lane.closed for lane in self.lanes), "its lanes are closed before it"
        super().close()


class HostLane:
    """A `gapcam.backends.device_protocol.Lane`."""

    def __init__(self, backend: HostDeviceBackend, outputs: Sequence[str], batch: int) -> None:
        (image,) = backend.inputs.values()
        self._backend, self._names, self.capturable = backend, list(outputs), backend.capturable
        self.stream: HostStream = backend.driver.stream()
        self.closed = False
        zeros = np.zeros((batch, *image.shape[1:]), image.dtype)
        self.image = self._memory_like(zeros)
        computed = OnnxRuntimeBackend.run(backend, self._names, zeros)
        self.outputs: Mapping[str, DeviceArray] = {
            name: self._memory_like(array) for name, array in zip(self._names, computed, strict=True)
        }
        self.enqueued = 0

    def enqueue(self) -> None:
        if self._backend.closed:
            raise UsageError(CLOSED)
        if self.stream.capturing is not None:
            assert self.capturable, "it is not"
            assert self.enqueued, "it must run once before it is captured"
            if self._backend.capture_fails:
                raise BackendError("the engine allocates memory for this shape")
        self.enqueued += 1
        self.stream.enqueue(self._infer)

    def close(self) -> None:
        self.closed = True
        for array in (self.image, *self.outputs.values()):
            array.owner.close()  # type: ignore[attr-defined]

    def _infer(self) -> None:
        computed = OnnxRuntimeBackend.run(self._backend, self._names, host_view(self.image))
        for name, array in zip(self._names, computed, strict=True):
            host_view(self.outputs[name])[...] = array

    def _memory_like(self, array: NDArray[Any]) -> DeviceArray:
        memory = self._backend.driver.allocate(array.nbytes)
        return DeviceArray(memory.pointer, array.shape, array.dtype, None, memory)


def host_view(array: DeviceArray) -> NDArray[Any]:
    """What lies in the host driver's memory. It keeps the array."""
    assert array.strides is None
    span = (ctypes.c_uint8 * array.nbytes).from_address(array.pointer)
    span.owner = array  # type: ignore[attr-defined]
    return np.frombuffer(span, array.dtype).reshape(array.shape)
