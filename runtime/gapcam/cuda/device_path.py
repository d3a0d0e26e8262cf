"""The path of a frame on the device: uploaded once, preprocessed and inferred there; only what is small comes back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

import numpy as np

from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.protocol import CLOSED, Array
from gapcam.class_rows import rows_of_image
from gapcam.classes import ClassRef
from gapcam.cuda.cam import Floats
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.device_model import DeviceModel
from gapcam.cuda.device_result import DeviceResult
from gapcam.cuda.driver import Module
from gapcam.cuda.frame_copy import empty_frame
from gapcam.cuda.frame_graph import FrameGraph
from gapcam.cuda.frame_input import FrameInput, checked_input
from gapcam.cuda.frame_work import Output
from gapcam.cuda.inference_lane import InferenceLane, part_of_batch
from gapcam.cuda.lending_pool import LendingPool
from gapcam.cuda.post_process import CudaPostProcess
from gapcam.errors import BackendError, ModelError, UsageError
from gapcam.frame import FrameFormat
from gapcam.geometry import place
from gapcam.loaded_model import LoadedModel
from gapcam.look import Look
from gapcam.model_check import check_run
from gapcam.result import Result
from gapcam.step_times import StepTimes

_LANES = 4
"""Inferences at once. Each has an execution context with its own memory; more seldom make a device faster."""


class DevicePath:
    """Frames in, results out. Several threads may use it.

    Args:
        model: what the backend runs.
        backend: closed with the path.
        kernels: compiled for the backend's device.

    Raises:
        ModelError: the kernels do not take the type of an output.
    """

    def __init__(self, model: LoadedModel, backend: DeviceBackend, kernels: Module) -> None:
        _check_types(model)
        self._model, self._backend, self._driver = model, backend, backend.driver
        self._shared = DeviceModel(model, backend.driver, kernels)
        self._lanes = LendingPool(self._new_lane, InferenceLane.close, _LANES)
        self._graphs: list[FrameGraph] = []
        self._closing, self._closed = Lock(), False

    def checked(self, frame: object, frame_format: FrameFormat, where: str = "") -> FrameInput:
        """What was handed in: an array of this format on the host, or anything on the device."""
        return checked_input(frame, frame_format, where)

    def run(self, frames: Sequence[FrameInput]) -> list[Result]:
        """One inference of at least one frame."""
        count, driver = len(frames), self._driver
        with driver.active(), self._lanes.lent(count) as lane:
            stream = lane.lane.stream
            try:
                lane.mark("start")
                owned = [empty_frame(frame.layout, self._shared.memory.take) for frame in frames]
                for frame, target in zip(frames, owned, strict=True):
                    frame.copy_to(target, driver, stream)
                lane.mark("upload")
                for target, slot in zip(owned, lane.image, strict=True):
                    self._shared.preprocessor(target.layout).enqueue(target, slot, stream)
                lane.mark("preprocess")
                lane.lane.enqueue()
                lane.mark("inference")
                lane.download_small()
                kept = {name: self._kept(lane, name) for name in lane.outputs}
                stream.synchronize()
            except BaseException:
                with suppress(BackendError):  # the first error is the one to tell
                    stream.synchronize()  # before its memory goes to somebody else
                raise
            small = lane.small()
            steps = {
                step: lane.milliseconds(earlier, step) / count
                for earlier, step in (("start", "upload"), ("upload", "preprocess"), ("preprocess", "inference"))
            }
            check_run(small, count, self._model.contract, self._model.name)
            results: list[Result] = []
            for i, frame in enumerate(frames):
                placement = place((frame.layout.height, frame.layout.width), self._model.contract.preprocessing)
                times = StepTimes(steps)
                post = CudaPostProcess(
                    self._shared,
                    frame=owned[i],
                    host_frame=frame.host,
                    outputs={name: part_of_batch(array, i) for name, array in kept.items()},
                    rows=rows_of_image(self._model.weights, small, i),
                    placement=placement,
                    times=times,
                )
                logits = small[names.LOGITS][i].astype(np.float32, copy=False)
                results.append(DeviceResult(self._model, logits, post, placement=placement, times=times))
            return results

    def infer(self, image: Array) -> dict[str, Array]:
        """The network alone, from the host to the host."""
        wanted = self._model.wanted
        return dict(zip(wanted, self._backend.run(wanted, image), strict=True))

    def frame_graph(
        self,
        layout: FrameLayout,
        *,
        topk: int,
        targets: Sequence[ClassRef] | None,
        look: Look | None,
        clamp_negative: bool,
        output: Output,
    ) -> FrameGraph:
        """A new one, which is closed with the path."""
        with self._closing, self._driver.active():
            if self._closed:
                raise UsageError(CLOSED)
            graph = FrameGraph(
                self._shared,
                self._backend,
                layout,
                topk=topk,
                targets=targets,
                look=look,
                clamp_negative=clamp_negative,
                output=output,
            )
            self._graphs = [other for other in self._graphs if not other.closed] + [graph]
            return graph

    def close(self) -> None:
        """Let inferences that have begun end, give living results on the host what they need, and close the backend."""
        with self._driver.active():
            self._lanes.close()
            with self._closing:
                if self._closed:
                    return
                self._closed = True
                try:
                    for graph in self._graphs:
                        graph.close()
                    self._shared.close()
                finally:
                    self._backend.close()

    def _new_lane(self, batch: int) -> InferenceLane:
        return InferenceLane(self._backend, self._model, batch)

    def _kept(self, lane: InferenceLane, name: str) -> DeviceArray:
        """A copy in memory of the results' own, since the next inference overwrites it."""
        output = lane.outputs[name]
        memory = self._shared.memory.take(output.nbytes)
        self._driver.copy(output.pointer, memory.pointer, output.nbytes, lane.lane.stream)
        return DeviceArray(memory.pointer, output.shape, output.dtype, None, memory)


def _check_types(model: LoadedModel) -> None:
    for name in model.wanted:
        dtype = model.dtypes[name]
        if name != names.TOPK_CLASSES and dtype not in Floats:
            raise ModelError(
                f"{model.name} gives {name} as {dtype}; maps on a device are computed of float32 or float16. Export it "
                "in float32, or load it with post='numpy'"
            )
