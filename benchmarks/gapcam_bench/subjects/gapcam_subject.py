"""gapcam itself: a picture decoded, explained, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.protocol import Backend
from gapcam.contract import Contract
from gapcam.errors import ModelError
from gapcam.frame import Frame
from gapcam.frame_path import FramePath
from gapcam.result import Result
from gapcam.session import Session
from gapcam_bench.cell import Cell
from gapcam_bench.subjects.assignment import assigned_nodes
from gapcam_bench.subjects.emitted_maps import path_of
from gapcam_bench.subjects.pictures import frames_of
from gapcam_bench.subjects.plain_subject import ONE_BY_ONE
from gapcam_bench.subjects.protocol import Answer, Picture, StageTimes

if TYPE_CHECKING:
    from gapcam.cuda.device_result import DeviceResult
    from gapcam.cuda.driver import Driver, Module

_VERBS_OF_A_DEVICE = (
    "on a device the host's time of upload, preprocessing and inference is that of one call, and stands under inference"
)


class GapcamSubject:
    """A model that keeps the contract, on gapcam's path of a frame.

    On the host, "preprocess" and "inference" are what the path itself measures (`Result.timings_ms`), and the other
    stages are timed around the verbs of `gapcam.Result`. On a CUDA device, device times come from events; the host's
    time of the one call that uploads, preprocesses and infers stands under "inference".

    Args:
        backend: that the model was opened on; closed with the subject.
        contract: of the model.
        cell: what is measured.
        name: how messages call the model.
        kernels: gapcam's, loaded already; by default they are compiled for the device.

    Attributes:
        notes: a sentence each.
        providers: nodes by the execution provider that runs them.

    Raises:
        ModelError: the model is not what its contract says, lacks the cell's output, or does not take its batch.
        VerificationError: the identity does not hold on this device.
        BackendError: the engine failed.
    """

    def __init__(
        self, backend: Backend, contract: Contract, cell: Cell, name: str, *, kernels: Module | None = None
    ) -> None:
        (image,) = backend.inputs.values()
        self._one_by_one = image.shape[0] is not None
        if self._one_by_one and cell.batch > 1:
            raise ModelError(
                f"{name} takes one image at a time ({image}), and a batch of {cell.batch} was asked for; export it "
                "again without --static-batch"
            )
        self._work, self._emit = frozenset(cell.work), cell.emit
        self._driver: Driver | None = backend.driver if isinstance(backend, DeviceBackend) else None
        self.engine = backend.engine
        self.providers = assigned_nodes(backend)
        self._path: FramePath[Any]
        if cell.emit == "features":
            # What `gapcam.load` does with an opened backend; a session checks the identity.
            self._path = Session(backend, name=name, kernels=kernels)._path
        else:
            self._path = path_of(backend, contract, cell.emit, name, kernels=kernels)
        notes = [ONE_BY_ONE] if self._one_by_one else []
        if self._driver is not None:
            from gapcam_bench.subjects.device_drawing import DeviceDrawing  # here, because the CPU needs none of it

            notes.append(_VERBS_OF_A_DEVICE)
            with self._driver.active():
                self._drawing = DeviceDrawing(self._driver)
        self.notes = tuple(notes)
        self._drawn: list[Frame] = []

    def run(self, pictures: Sequence[Picture]) -> StageTimes:
        """Answer one query of at least one picture."""
        times = StageTimes()
        frames = frames_of(pictures, self._work, times)
        results = self._inferred(frames, times)
        if self._emit == "plain":
            return times
        self._make_room(frames)
        active = nullcontext() if self._driver is None else self._driver.active()
        with active:
            for result, out in zip(results, self._drawn, strict=False):
                if self._driver is None:
                    self._draw(result, out, times)
                else:
                    self._draw_on_device(result, out, times)
        return times

    def answer(self, picture: Picture) -> Answer:
        """Logits and map of one picture."""
        (result,) = self._inferred([picture.frame], StageTimes())
        if self._emit == "plain":
            return Answer(result.logits, None)
        return Answer(result.logits, np.array(result.map(self._target(result))))

    def close(self) -> None:
        """Give everything back."""
        self._path.close()

    def _inferred(self, frames: Sequence[Frame], times: StageTimes) -> list[Result]:
        path = self._path
        queries = [[frame] for frame in frames] if self._one_by_one else [frames]
        results: list[Result] = []
        on_host = self._driver is None
        for query in queries:
            with nullcontext() if on_host else times.timed("inference"):
                results += path.run([path.checked(frame, "bgr") for frame in query])
        for result in results:
            steps = result.timings_ms
            if on_host:
                times.add("preprocess", round(steps["preprocess"] * 1e6))
                times.add("inference", round(steps["inference"] * 1e6))
            else:
                times.add_device("host-to-device", steps["upload"])
                times.add_device("preprocess", steps["preprocess"])
                times.add_device("inference", steps["inference"])
        return results

    def _draw(self, result: Result, out: Frame, times: StageTimes) -> None:
        target = self._target(result)
        with times.timed("cam"):
            result.map(target)
        if "overlay" in self._work:
            with times.timed("overlay"):
                result.overlay(target, out=out)
        if "boxes" in self._work:
            with times.timed("boxes"):
                result.boxes(target)

    def _draw_on_device(self, result: Result, out: Frame, times: StageTimes) -> None:
        from gapcam.cuda.overlay import CannotDrawError

        target = self._target(result)
        on_device: DeviceResult = result  # type: ignore[assignment]  # a path on a device gives no other
        self._drawing.map(on_device, target, times)
        self._drawing.download_map(on_device, target, times)
        if "overlay" in self._work:
            try:
                self._drawing.overlay(on_device, target, times, out)
            except CannotDrawError:  # by NumPy then, as the result itself does
                with times.timed("overlay"):
                    result.overlay(target, out=out)
        if "boxes" in self._work:
            with times.timed("boxes"):
                result.boxes(target)

    def _target(self, result: Result) -> int:
        """The class with the highest logit, as the path numbers it: the first of those that have maps, of "topk"."""
        return 0 if self._emit == "topk" else int(result.logits.argmax())

    def _make_room(self, frames: Sequence[Frame]) -> None:
        """An array for each picture, which the next query uses again, as a video loop does."""
        fits = len(self._drawn) >= len(frames) and all(
            drawn.shape == frame.shape for drawn, frame in zip(self._drawn, frames, strict=False)
        )
        if not fits:
            self._drawn = [np.empty_like(frame) for frame in frames]
