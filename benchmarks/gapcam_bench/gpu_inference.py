"""What cam and overlay add to a real model's inference, on whatever engine runs it on the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np

import gapcam
from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend, Lane
from gapcam.cam import FloatArray, class_maps
from gapcam.class_rows import rows_of_image
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamLayout, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import DeviceFrame, FrameLayout
from gapcam.cuda.driver import Driver, Graph
from gapcam.cuda.frame_copy import copy_frame, empty_frame
from gapcam.cuda.frame_graph_result import FrameGraphResult
from gapcam.cuda.overlay import Overlay
from gapcam.cuda.preprocess import Preprocessor
from gapcam.frame import Frame
from gapcam.geometry import place
from gapcam.interleaved import Step, measure
from gapcam.latency import Latency
from gapcam.loaded_model import LoadedModel, model_from_backend
from gapcam_bench.gpu_figures import Check
from gapcam_bench.gpu_kernels import Workshop
from gapcam_bench.gpu_reference import ALPHA, COLORMAP, MAPS, check_overlay

BARE, EXPLAINED, ON_DEVICE, ON_HOST = STEPS = (
    "inference",
    "inference, cam, overlay",
    "frame graph, on the device",
    "frame graph, from and to the host",
)
"""What is measured, each as the host waits for it: the logits alone; maps and overlay beside them; a whole frame with
its preprocessing, where frame and overlay stay on the device; and one where they come from the host and to it.
"""


def added_to_inference(
    session: gapcam.Session,
    backend: DeviceBackend,
    workshop: Workshop,
    layout: FrameLayout,
    *,
    rounds: int,
    seconds: float,
) -> tuple[dict[str, Latency], bool, list[Check]]:
    """The latency of `STEPS`, interleaved.

    Args:
        session: on the backend.
        backend: a loaded model.
        workshop: of the backend's own driver.
        layout: of the frame.
        rounds: of `gapcam.interleaved.measure`.
        seconds: when to stop before that.

    Returns:
        The latencies, whether each step is one CUDA graph, and what the results are compared with.
    """
    model, driver = model_from_backend(backend, session.name), backend.driver
    make = partial(
        session.frame_graph, layout.height, layout.width, format=layout.format, colormap=COLORMAP, alpha=ALPHA
    )
    with ExitStack() as stack:
        bare = backend.lane([names.LOGITS], 1)
        stack.callback(bare.close)
        lane = backend.lane(model.wanted, 1)
        stack.callback(lane.close)
        pipeline = _Pipeline(model, lane, workshop, layout)
        stack.callback(pipeline.close)
        on_device = stack.enter_context(make(output="device"))
        on_host = stack.enter_context(make(output="host"))
        pipeline.fill(on_device.frame)
        graphs = driver.has_graphs and bare.capturable and lane.capturable
        steps: dict[str, Step] = {
            BARE: _step(driver, bare, bare.enqueue, stack, graph=graphs),
            EXPLAINED: _step(driver, lane, pipeline.queue, stack, graph=graphs),
            ON_DEVICE: on_device,
            ON_HOST: lambda: on_host(pipeline.host_frame),
        }
        measured = measure(steps, rounds=rounds, seconds=seconds)
        checks = pipeline.check()
        for result in (on_device(), on_host(pipeline.host_frame)):
            checks += pipeline.check_graph(result)
        return measured, graphs and on_device.captured, checks


def _step(driver: Driver, lane: Lane, work: Callable[[], None], stack: ExitStack, *, graph: bool) -> Step:
    """One run and the wait for it."""
    work()
    lane.stream.synchronize()
    if graph:
        with driver.capture(lane.stream) as capture:
            work()
        captured: Graph = capture.graph()
        stack.callback(captured.close)

        def work() -> None:
            captured.launch(lane.stream)

    def run() -> None:
        work()
        lane.stream.synchronize()

    return run


class _Pipeline:
    """A lane with gapcam's kernels around it, on its stream."""

    def __init__(self, model: LoadedModel, lane: Lane, workshop: Workshop, layout: FrameLayout) -> None:
        driver, how = workshop.driver, model.contract.preprocessing
        self._model, self._lane, self._workshop, self._layout = model, lane, workshop, layout
        (self._frame,), self.host_frame = workshop.frames(layout, 1)
        self._out = empty_frame(layout, driver.allocate)
        self._placement = place((layout.height, layout.width), how)
        image = lane.image
        preprocessor = Preprocessor(driver, workshop.kernels, how, layout, image.dtype)
        slot = DeviceArray(image.pointer, image.shape[1:], image.dtype, None, image.owner)
        preprocessor.enqueue(self._frame, slot, lane.stream)
        lane.stream.synchronize()
        preprocessor.close()
        kind = model.contract.head.kind
        with_weights = kind in (HeadKind.AFFINE, HeadKind.LAYERNORM) and model.weights is not None
        self._cam = Cam(
            driver,
            workshop.kernels,
            kind=kind,
            map_size=model.map_size,
            input_size=how.size,
            weights=device_constants(driver, model.weights)[0] if with_weights and model.weights is not None else None,
            scoring=model.contract.head.scores,
        )
        self._result = new_cam_arrays(CamLayout(1, 1, model.map_size), driver.allocate)
        self._overlay = Overlay(
            driver,
            workshop.kernels,
            layout=layout,
            placement=self._placement,
            input_size=how.size,
            map_size=model.map_size,
            colormap=COLORMAP,
            alpha=ALPHA,
        )

    def fill(self, frame: DeviceFrame) -> None:
        """Copy the frame into another one on the device."""
        copy_frame(self._frame, frame, self._workshop.driver, self._lane.stream)
        self._lane.stream.synchronize()

    def queue(self) -> None:
        """Queue inference, cam and overlay."""
        stream, result = self._lane.stream, self._result
        self._lane.enqueue()
        self._cam.enqueue(self._lane.outputs, [self._placement.input_rect], result, stream)
        self._overlay.enqueue(result.maps.pointer, result.extremes.pointer, self._frame, self._out, stream)

    def check(self) -> list[Check]:
        """What the last run computed, compared with NumPy on the same logits and features."""
        download = self._workshop.download
        outputs = {name: download(array) for name, array in self._lane.outputs.items()}
        index, raw = int(download(self._result.classes)[0, 0]), download(self._result.maps)[0, 0]
        best = int(np.argmax(outputs[names.LOGITS][0].astype(np.float32)))
        features = outputs[names.FEATURES][0]
        rows = rows_of_image(self._model.weights, outputs, 0)
        expected: FloatArray = (
            features[best].astype(np.float32) if rows is None else class_maps(features, rows.of([best]))[0]
        )
        greatest = max(float(np.abs(expected).max()), 1e-30)
        checks = [
            Check(what="classes that differ", found=float(index != best), allowed=0),
            Check(
                what="maps, of the greatest magnitude",
                found=float(np.abs(raw - expected).max()) / greatest,
                allowed=MAPS.get(features.dtype, MAPS[np.dtype(np.float16)]),
            ),
        ]
        return checks + self._check_overlay(self._workshop.download_frame(self._out), raw)

    def check_graph(self, result: FrameGraphResult) -> list[Check]:
        """A frame graph's result: its map is this pipeline's, its overlay what NumPy draws of that."""
        raw, ours = result.maps[0], self._workshop.download(self._result.maps)[0, 0]
        greatest = max(float(np.abs(ours).max()), 1e-30)
        same = Check(
            what="frame graph's map, of the greatest magnitude",
            found=float(np.abs(raw - ours).max()) / greatest,
            allowed=MAPS[np.dtype(np.float16)],
        )
        drawn = result.overlay
        got = self._workshop.download_frame(drawn) if isinstance(drawn, DeviceFrame) else drawn
        return [same] if got is None else [same, *self._check_overlay(got, raw)]

    def _check_overlay(self, got: Frame, raw: FloatArray) -> list[Check]:
        """Where the network saw all of the frame; a cropped one has an edge that the check does not know."""
        seen = self._placement.frame_rect
        if (seen.height, seen.width) != (self._layout.height, self._layout.width):
            return []
        size = self._model.contract.preprocessing.size
        return [check_overlay(got, self.host_frame, self._layout, raw, size, self._placement)]

    def close(self) -> None:
        """Free what is not freed by itself."""
        self._lane.stream.synchronize()
        self._cam.close()
