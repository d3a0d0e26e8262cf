"""What a frame graph found in one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.box import Box
from gapcam.boxes import THRESHOLD
from gapcam.cam import FloatArray
from gapcam.cuda.device_frame import DeviceFrame
from gapcam.cuda.device_model import DeviceModel
from gapcam.cuda.frame_copy import copy_frame, empty_frame
from gapcam.cuda.memory_pool import give_away
from gapcam.errors import UsageError
from gapcam.frame import Frame
from gapcam.frame_boxes import boxes_on_frame
from gapcam.geometry import Placement
from gapcam.result import Prediction
from gapcam.whole_number import whole_number


class FrameGraphResult:
    """Valid until the graph's next call; what is asked for later raises UsageError. `copy` stays.

    Arrays that were taken before are overwritten by the next call, too. What reads an overlay on the device must be
    done by then, or queued on the graph's stream, or on the stream that the call is given as `after`.

    Attributes:
        top: the k classes that have maps: the best ones, best first, or the targets in their order.
        placement: of the frame in the network's input.
        device_ms: the device's time for all of the frame's work, with its copies.
    """

    def __init__(
        self,
        shared: DeviceModel,
        views: Mapping[str, NDArray[Any]],
        overlay: Frame | DeviceFrame | None,
        *,
        placement: Placement,
        device_ms: float,
        is_current: Callable[[], bool],
    ) -> None:
        labels = shared.model.classes.labels
        self.top: tuple[Prediction, ...] = tuple(
            Prediction(index, labels[index], score)
            for index, score in zip(views["classes"].tolist(), views["scores"].tolist(), strict=True)
        )
        self.placement = placement
        self.device_ms = device_ms
        self._shared = shared
        self._views = views
        self._overlay = overlay
        self._is_current = is_current

    def __repr__(self) -> str:
        return f"<FrameGraphResult {self.top[0].label!r} {self.top[0].score:.3f}>"

    @property
    def logits(self) -> FloatArray:
        """[k] float32, of the classes in `top`."""
        return self._checked("logits")

    @property
    def maps(self) -> FloatArray:
        """[k,h,w] float32, their class activation maps: see `gapcam.Result.map`."""
        return self._checked("maps")

    @property
    def overlay(self) -> Frame | DeviceFrame | None:
        """The frame with the first map in colour over it, in the frame's format; None if the graph draws none."""
        self._check()
        return self._overlay

    def boxes(
        self,
        place: int = 0,
        *,
        threshold: float = THRESHOLD,
        percentile: float | None = None,
        all_components: bool = False,
    ) -> tuple[Box, ...]:
        """Boxes around what made the network choose a class, computed on the host: see `gapcam.Result.boxes`.

        Args:
            place: of the class in `top`.
            threshold: as there.
            percentile: as there.
            all_components: as there.

        Raises:
            UsageError: `place` is none of `top`, or `threshold` or `percentile` is out of its range.
        """
        place = whole_number(place, "place")
        if not 0 <= place < len(self.top):
            raise UsageError(f"asked for the boxes of place {place}; there are {len(self.top)}, from 0")
        return boxes_on_frame(
            self.maps[place],
            self._shared.model.contract.preprocessing.size,
            self.placement,
            threshold=threshold,
            percentile=percentile,
            all_components=all_components,
        )

    def copy(self) -> FrameGraphResult:
        """The same in memory of its own."""
        self._check()
        overlay = self._overlay
        if isinstance(overlay, np.ndarray):
            overlay = overlay.copy()
        elif overlay is not None:
            overlay = self._copied(overlay)
        views = {name: view.copy() for name, view in self._views.items()}
        return FrameGraphResult(
            self._shared,
            views,
            overlay,
            placement=self.placement,
            device_ms=self.device_ms,
            is_current=lambda: True,
        )

    def _copied(self, frame: DeviceFrame) -> DeviceFrame:
        with self._shared.driver.active(), self._shared.benches.lent(None) as bench, bench.finished():
            copied = empty_frame(frame.layout, self._shared.memory.take)
            copy_frame(frame, copied, self._shared.driver, bench.stream)
        give_away(copied)
        return copied

    def _checked(self, name: str) -> NDArray[Any]:
        self._check()
        return self._views[name]

    def _check(self) -> None:
        if not self._is_current():
            raise UsageError("the graph has taken another frame since, or is closed; keep a result with result.copy()")
