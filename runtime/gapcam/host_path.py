"""The path of a frame through host memory: preprocessed by OpenCV, results computed by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from gapcam import contract as names
from gapcam.backends.protocol import CLOSED, Array, Backend
from gapcam.class_rows import rows_of_image
from gapcam.errors import FrameError, UsageError
from gapcam.frame import Frame, FrameFormat, check_format, check_frame
from gapcam.geometry import place
from gapcam.loaded_model import LoadedModel
from gapcam.model_check import check_run
from gapcam.numpy_post_process import NumpyPostProcess
from gapcam.preprocessing import empty_input, fill_input
from gapcam.result import Result
from gapcam.step_times import StepTimes


class HostPath:
    """Frames in, results out.

    Args:
        model: what the backend runs.
        backend: closed with the path.
    """

    def __init__(self, model: LoadedModel, backend: Backend) -> None:
        self._model = model
        self._backend: Backend | None = backend

    def checked(self, frame: object, frame_format: FrameFormat, where: str = "") -> Frame:
        """H x W x 3 uint8 BGR; there is no other format here."""
        check_format(frame_format)
        if frame_format != "bgr":
            raise FrameError(
                f"{where}got a frame of format {frame_format!r}; this session computes on the host and expected 'bgr'. "
                "Convert it: cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR) or cv2.COLOR_YUV2BGR_NV12"
            )
        return check_frame(frame, where)

    def run(self, frames: Sequence[Frame]) -> list[Result]:
        """One inference of at least one frame, each H x W x 3 uint8 BGR and checked."""
        model = self._model
        self._opened()  # before any work
        preprocessing = model.contract.preprocessing
        tensor = empty_input(len(frames), preprocessing)
        placements, times = [], []
        for frame, slot in zip(frames, tensor, strict=True):
            times.append(StepTimes())
            with times[-1].timed("preprocess"):
                placements.append(place((frame.shape[0], frame.shape[1]), preprocessing))
                fill_input(frame, preprocessing, placements[-1], slot)
        started = perf_counter()
        arrays = self.infer(tensor)
        inference_ms = (perf_counter() - started) * 1e3 / len(frames)
        check_run(arrays, len(frames), model.contract, model.name)
        logits, features, every_map = arrays[names.LOGITS], arrays[names.FEATURES], arrays.get(names.MAPS)
        results = []
        for i, frame in enumerate(frames):
            times[i]["inference"] = inference_ms
            post = NumpyPostProcess(
                frame=frame,
                features=features[i],
                rows=rows_of_image(model.weights, arrays, i),
                every_map=None if every_map is None else every_map[i],
                input_size=preprocessing.size,
                placement=placements[i],
                times=times[i],
            )
            results.append(
                Result(model, logits[i].astype(np.float32, copy=False), post, placement=placements[i], times=times[i])
            )
        return results

    def infer(self, image: Array) -> dict[str, Array]:
        """The network alone."""
        wanted = self._model.wanted
        return dict(zip(wanted, self._opened().run(wanted, image), strict=True))

    def close(self) -> None:
        """Close the backend. Inferences that have begun are finished. Closing twice does nothing."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _opened(self) -> Backend:
        if self._backend is None:
            raise UsageError(CLOSED)
        return self._backend
