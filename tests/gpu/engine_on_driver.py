"""A backend on a CUDA device without an engine for it: ONNX Runtime computes on the CPU, its tensors are the device's.

With it the whole path of a frame is tested on any machine with a GPU, whatever engines it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.backends.protocol import Array
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.driver import Driver


class EngineOnDriver(OnnxRuntimeBackend):
    """A `gapcam.backends.device_protocol.DeviceBackend`.

    Args:
        path: of the .onnx file.
        driver: where its lanes have their memory.
        recorded: an input; every inference then gives its outputs, by copies on the device, which can be captured.
    """

    def __init__(self, path: Path, driver: Driver, recorded: Array | None = None) -> None:
        super().__init__(path, threads=1)
        self.driver, self.recorded = driver, recorded

    def lane(self, outputs: Sequence[str], batch: int) -> LaneOnDriver:
        return LaneOnDriver(self, outputs, batch)


class LaneOnDriver:
    """A `gapcam.backends.device_protocol.Lane`."""

    def __init__(self, backend: EngineOnDriver, outputs: Sequence[str], batch: int) -> None:
        self._backend, self._driver, self._names = backend, backend.driver, list(outputs)
        self.capturable = backend.recorded is not None
        self.stream = self._driver.stream()
        (image,) = backend.inputs.values()
        first = np.zeros((batch, *image.shape[1:]), image.dtype) if backend.recorded is None else backend.recorded
        self._host_image = self._driver.pinned(first.shape, first.dtype)
        self.image = self._on_device(first)
        computed = dict(zip(self._names, backend.run(self._names, first), strict=True))
        self._recorded = {name: self._on_device(array) for name, array in computed.items()}
        self.outputs: Mapping[str, DeviceArray] = {name: self._on_device(array) for name, array in computed.items()}

    def enqueue(self) -> None:
        if self.capturable:
            for name, output in self.outputs.items():
                self._driver.copy(self._recorded[name].pointer, output.pointer, output.nbytes, self.stream)
            return
        self._driver.download(self.image.pointer, self._host_image, self.stream)
        self.stream.synchronize()
        for name, array in zip(self._names, self._backend.run(self._names, self._host_image), strict=True):
            self._driver.upload(np.ascontiguousarray(array), self.outputs[name].pointer, self.stream)

    def close(self) -> None:
        self.stream.synchronize()

    def _on_device(self, array: Array) -> DeviceArray:
        memory = self._driver.allocate(array.nbytes)
        self._driver.upload(np.ascontiguousarray(array), memory.pointer, self.stream)
        return DeviceArray(memory.pointer, array.shape, array.dtype, None, memory)
