"""What cam and overlay add to a real model's inference, on whatever engine runs it on the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from gapcam import contract as names
from gapcam.backends.device_protocol import DeviceBackend, Lane
from gapcam.cam import FloatArray, class_maps
from gapcam.class_rows import rows_of_image
from gapcam.contract import HeadKind
from gapcam.cuda.cam import Cam, CamLayout, new_cam_arrays
from gapcam.cuda.constants import device_constants
from gapcam.cuda.device_array import DeviceArray
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.driver import Driver, Graph
from gapcam.cuda.frame_copy import empty_frame
from gapcam.cuda.overlay import Overlay
from gapcam.cuda.preprocess import Preprocessor
from gapcam.geometry import place
from gapcam.interleaved import Step, measure
from gapcam.latency import Latency
from gapcam.loaded_model import LoadedModel, model_from_backend
from gapcam_bench.gpu_figures import Check
from gapcam_bench.gpu_kernels import Workshop
from gapcam_bench.gpu_reference import ALPHA, COLORMAP, MAPS, check_overlay

STEPS = ("inference", "inference, cam, overlay", "preprocess, inference, cam, overlay")
"""What is measured: the logits alone; maps and overlay beside them; and the frame's preprocessing, too. Frames and
overlays stay on the device, and the host waits for each."""


def added_to_inference(
    backend: DeviceBackend, workshop: Workshop, layout: FrameLayout, *, rounds: int, seconds: float, name: str
) -> tuple[dict[str, Latency], bool, list[Check]]:
    """The latency of `STEPS`, interleaved, as the host sees it.

    Args:
        backend: a loaded model. It is closed by whoever opened it.
        workshop: of the backend's own driver.
        layout: of the frame.
        rounds: of `gapcam.interleaved.measure`.
        seconds: when to stop before that.
        name: of the model.

    Returns:
        The latencies, whether each step is one CUDA graph, and what the last step's results are compared with.
    """
    model = model_from_backend(backend, name)
    driver = backend.driver
    with ExitStack() as stack:
        bare = backend.lane([names.LOGITS], 1)
        stack.callback(bare.close)
        lane = backend.lane(model.wanted, 1)
        stack.callback(lane.close)
        bench = _Pipeline(model, lane, workshop, layout)
        stack.callback(bench.close)
        graphs = driver.has_graphs and bare.capturable and lane.capturable
        works: dict[str, tuple[Lane, Callable[[], None]]] = {
            STEPS[0]: (bare, bare.enqueue),
            STEPS[1]: (lane, bench.infer_and_draw),
            STEPS[2]: (lane, bench.whole),
        }
        steps = {step: _step(driver, on, work, stack, graph=graphs) for step, (on, work) in works.items()}
        measured = measure(steps, rounds=rounds, seconds=seconds)
        steps[STEPS[2]]()
        return measured, graphs, bench.check()


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
        (self._frame,), self._host_frame = workshop.frames(layout, 1)
        self._out = empty_frame(layout, driver.allocate)
        self._placement = place((layout.height, layout.width), how)
        self._preprocessor = Preprocessor(driver, workshop.kernels, how, layout, lane.image.dtype)
        image = lane.image
        self._slot = DeviceArray(image.pointer, image.shape[1:], image.dtype, None, image.owner)
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

    def infer_and_draw(self) -> None:
        """Queue inference, cam and overlay."""
        stream, result = self._lane.stream, self._result
        self._lane.enqueue()
        self._cam.enqueue(self._lane.outputs, [self._placement.input_rect], result, stream)
        self._overlay.enqueue(result.maps.pointer, result.extremes.pointer, self._frame, self._out, stream)

    def whole(self) -> None:
        """Queue the preprocessing of the frame, and all the rest."""
        self._preprocessor.enqueue(self._frame, self._slot, self._lane.stream)
        self.infer_and_draw()

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
        seen = self._placement.frame_rect
        if (seen.height, seen.width) == (self._layout.height, self._layout.width):
            got = self._workshop.download_frame(self._out)
            size = self._model.contract.preprocessing.size
            checks.append(check_overlay(got, self._host_frame, self._layout, raw, size, self._placement))
        return checks

    def close(self) -> None:
        """Free what is not freed by itself."""
        self._lane.stream.synchronize()
        self._preprocessor.close()
        self._cam.close()
