"""What is known of one camera frame once the network has seen it: what every sink gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

from gapcam.box import Box
from gapcam.boxes import THRESHOLD
from gapcam.cam import FloatArray, normalize
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.event import Event
from gapcam.classes import ClassNames, ClassRef
from gapcam.errors import MapNotComputedError
from gapcam.frame import Frame
from gapcam.frame_boxes import boxes_on_frame
from gapcam.geometry import Placement
from gapcam.look import Look
from gapcam.overlay import blend, draw_boxes, draw_caption
from gapcam.result import Prediction
from gapcam.step_times import StepTimes
from gapcam.upsample import seen_part

GREATEST_PICTURES = 8
"""Kept of one frame, 2.6 MiB each at 720p: for a few sinks and a few views of the page."""
GREATEST_BOXES = 64
"""Of classes and thresholds, likewise."""


@dataclass(frozen=True, eq=False)
class ExplainedFrame:
    """A frame with its classes, maps, boxes and events. Many threads read it; none writes to it or its arrays.

    Attributes:
        captured: the frame.
        classes: the model's K classes.
        scores: [K] float32 in [0, 1], smoothed over time where that was asked for.
        top: the best classes by those scores, best first.
        shown: the class that pictures show unless another is asked for; None where the scene is quiet.
        maps: [h,w] float32 in the logits' unit, smoothed likewise, of the classes that maps were wanted of. Between two
            frames whose maps are computed, those of the earlier one.
        limits: (low, high) of each of these maps in a steady picture: they change slowly over time.
        lacking: classes that maps were wanted of, and whose rows a nonlinear head's graph did not compute.
        threshold: of the boxes, see `gapcam.boxes.boxes_from_map`.
        percentile: likewise.
        look: of pictures unless another is asked for.
        steady: whether `limits` stand for the look's normalisation, so that colours do not flicker from frame to frame.
        events: what was noticed on this frame, and before it on frames of its source that this sink was too slow for.
        again: it was handed over before, and is once more for the sake of its events: no frame of its source has come
            since that could tell them.
        exact: whether a map is all that its logit is made of, see `gapcam.Result`.
        placement: of the frame in the network's input.
        input_size: (H, W) of that input.
        timings_ms: "wait" (from capture until its turn came), then as in `gapcam.Result`, and "explain": all that
            followed the network, "map" included. See `drawing_ms` for the rest.
        explained_at: `time.monotonic()` seconds when it was handed to the sinks.
    """

    captured: CapturedFrame
    classes: ClassNames
    scores: FloatArray
    top: tuple[Prediction, ...]
    shown: int | None
    maps: Mapping[int, FloatArray]
    limits: Mapping[int, tuple[float, float]]
    events: tuple[Event, ...]
    exact: bool
    placement: Placement
    input_size: tuple[int, int]
    timings_ms: Mapping[str, float]
    explained_at: float
    lacking: tuple[int, ...] = ()
    threshold: float = THRESHOLD
    percentile: float | None = None
    look: Look = field(default_factory=Look)
    steady: bool = True
    again: bool = False
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)
    _times: StepTimes = field(default_factory=StepTimes, init=False, repr=False)
    _boxes: dict[tuple[int, float], tuple[Box, ...]] = field(default_factory=dict, init=False, repr=False)
    _pictures: dict[object, Frame] = field(default_factory=dict, init=False, repr=False)

    @property
    def drawing_ms(self) -> dict[str, float]:
        """Milliseconds of "boxes" and "overlay", computed when somebody first asks for them: of the latest each."""
        with self._lock:
            return dict(self._times)

    def map(self, target: ClassRef | None = None) -> FloatArray:
        """[h,w] float32, the map of a class, or of the class shown.

        Raises:
            MapNotComputedError: it was not wanted when the frame was explained, or the scene is quiet.
        """
        index = self._index(target)
        if index is None or index not in self.maps:
            what = "any class" if index is None else repr(self.classes.labels[index])
            raise MapNotComputedError(f"frame {self.captured.number} of {self.captured.source} has no map of {what}")
        return self.maps[index]

    def boxes(self, target: ClassRef | None = None, *, threshold: float | None = None) -> tuple[Box, ...]:
        """Boxes around what made the network choose a class, in frame pixels; none where it has no map.

        Raises:
            UsageError: `threshold` is out of its range.
        """
        index = self._index(target)
        if index is None or index not in self.maps:
            return ()
        key = (index, self.threshold if threshold is None else threshold)
        with self._lock:
            if key not in self._boxes:
                _make_room(self._boxes, GREATEST_BOXES)
                with self._times.timed("boxes"):
                    self._boxes[key] = boxes_on_frame(
                        self.maps[index],
                        self.input_size,
                        self.placement,
                        threshold=key[1],
                        percentile=self.percentile,
                    )
            return self._boxes[key]

    def picture(
        self,
        target: ClassRef | None = None,
        *,
        look: Look | None = None,
        steady: bool | None = None,
        boxes: bool = True,
        caption: bool = True,
        threshold: float | None = None,
    ) -> Frame:
        """The frame with a class's map over it, its boxes and a caption; the bare frame where it has no map.

        Drawn on the host, also where the session computes on a GPU: what is drawn is an average over time. Without one,
        and with the same normalisation, it is what `gapcam.Result.overlay` draws.

        Args:
            target: the class; by default the one shown.
            look: other than the frame's.
            steady: whether `limits` stand for the look's normalisation; by default as the frame says.
            boxes: whether to draw them.
            caption: whether to write the class and its score; of a bare frame that of the best class.
            threshold: of the boxes, other than the frame's.

        Returns:
            H x W x 3 uint8 BGR, not to be written to: who asks for the same picture gets the same array.

        Raises:
            ClassNotFoundError: there is no such class.
            UsageError: `threshold` is out of its range.
        """
        index, look = self._index(target), look or self.look
        threshold = self.threshold if threshold is None else threshold
        if index is None or index not in self.maps:
            key: tuple[object, ...] = (index, caption)
        else:
            if index in self.limits and (self.steady if steady is None else steady):
                look = replace(look, normalization="fixed", limits=self.limits[index])
            key = (index, look, caption, threshold if boxes else None)
        with self._lock:
            if key not in self._pictures:
                _make_room(self._pictures, GREATEST_PICTURES)
                with self._times.timed("overlay"):
                    picture = self._drawn(index, look, boxes, caption, threshold)
                picture.flags.writeable = False
                self._pictures[key] = picture
            return self._pictures[key]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON. docs/camera.md lists the fields."""
        captured = self.captured
        height, width = captured.image.shape[:2]
        row: dict[str, Any] = {
            "source": captured.source,
            "frame": captured.number,
            "time": round(captured.time, 6),
            "width": width,
            "height": height,
            "exact": self.exact,
            "top": [prediction.to_dict() for prediction in self.top],
            "shown": self.shown,
            "classes": [
                {
                    "index": index,
                    "label": self.classes.labels[index],
                    "score": float(self.scores[index]),
                    "boxes": [box.to_list() for box in self.boxes(index)],
                }
                for index in self.maps
            ],
            "events": [event.to_dict() for event in self.events],
            "age_ms": round((self.explained_at - captured.taken_at) * 1e3, 3),
        }
        timings = {**self.timings_ms, **self.drawing_ms}  # after the boxes
        row["timings_ms"] = {step: round(value, 3) for step, value in timings.items()}
        if self.again:
            row["again"] = True
        if self.lacking:
            row["lacking"] = list(self.lacking)
        if captured.position_s is not None:
            row["position_s"] = round(captured.position_s, 3)
        return row

    def _index(self, target: ClassRef | None) -> int | None:
        return self.shown if target is None else self.classes.resolve(target)

    def _drawn(self, index: int | None, look: Look, boxes: bool, caption: bool, threshold: float) -> Frame:
        image = self.captured.image
        if index is None or index not in self.maps:
            picture: Frame = image.copy() if caption else image.view()
        else:
            part = seen_part(self.maps[index], self.input_size, self.placement)
            picture = blend(
                image,
                normalize(part, look.normalization, look.limits),
                self.placement,
                colormap=look.colormap,
                alpha=look.alpha,
                alpha_by_heat=look.alpha_by_heat,
            )
            if boxes:
                draw_boxes(picture, self.boxes(index, threshold=threshold))
        if caption:
            best = self.top[0].index if index is None else index
            draw_caption(picture, f"{self.classes.labels[best]} {self.scores[best]:.2f}")
        return picture


def _make_room(kept: dict[Any, Any], greatest: int) -> None:
    """Let go of what was put in first, so that one more fits."""
    while len(kept) >= greatest:
        del kept[next(iter(kept))]
