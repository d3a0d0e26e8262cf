"""What a model said of one frame. Nothing is computed before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.box import Box
from gapcam.boxes import THRESHOLD
from gapcam.cam import FloatArray, Normalization
from gapcam.classes import ClassRef
from gapcam.errors import MapNotComputedError, UsageError
from gapcam.frame import Frame
from gapcam.frame_boxes import boxes_on_frame
from gapcam.geometry import Placement
from gapcam.loaded_model import LoadedModel
from gapcam.overlay import draw_boxes, draw_caption
from gapcam.post_process import PostProcess
from gapcam.scores import scores_from_logits
from gapcam.step_times import StepTimes
from gapcam.whole_number import whole_number


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class that the model gave a score.

    Attributes:
        index: of the class in the logits.
        label: its name, or "class 17" where the model has no labels.
        score: of its logit, in [0, 1]: softmax over the classes, or the logistic function where the model's classes do
            not exclude each other or there is only one.
    """

    index: int
    label: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"index": self.index, "label": self.label, "score": self.score}


class Result:
    """One frame's logits and feature maps, and what follows from them. A session makes it.

    Wherever a class is asked for, give its index in the logits or its label; left out, it is the class with the
    highest score. An unknown one raises ClassNotFoundError; one whose map a nonlinear head's graph did not compute,
    MapNotComputedError, wherever a map is needed.

    Args:
        model: what gave the logits.
        logits: [K] float32, finite.
        post: what computes maps and pictures.
        placement: of the frame in the network's input.
        times: of the steps so far; `post` adds its own.

    Attributes:
        logits: [K] float32, before softmax or the logistic function.
        exact: whether a map is all that its logit is made of, up to the bias; False for a nonlinear head, whose
            gradient at this image stands for it.
        placement: where the frame lies in the network's input.
        timings_ms: milliseconds of each step that was computed, the latest time each: "preprocess", "inference" (of a
            batch: its share), "map", "heatmap", "boxes", "overlay".
    """

    def __init__(
        self, model: LoadedModel, logits: FloatArray, post: PostProcess, *, placement: Placement, times: StepTimes
    ) -> None:
        self.logits = logits
        self.exact = model.contract.head.exact
        self.placement = placement
        self.timings_ms: dict[str, float] = times
        self._times = times
        self._post = post
        self._scoring = model.contract.head.scores
        self._classes = model.classes
        self._input_size = model.contract.preprocessing.size

    def __repr__(self) -> str:
        best = self.top[0]
        height, width = self._post.frame_size
        return f"<{type(self).__name__} {best.label!r} {best.score:.3f} on {width} x {height}>"

    @property
    def frame(self) -> Frame:
        """The frame that was handed in, not a copy."""
        return self._post.frame

    @property
    def features(self) -> NDArray[np.floating[Any]]:
        """[C,h,w], the tensor f that the network pools."""
        return self._post.features

    @cached_property
    def scores(self) -> FloatArray:
        """[K] float32 in [0, 1]: softmax of the logits, or the logistic function of each, as the contract says."""
        return np.asarray(scores_from_logits(self.logits, self._scoring), np.float32)

    @cached_property
    def top(self) -> tuple[Prediction, ...]:
        """The five classes with the highest scores (or all, if there are fewer), best first."""
        return self.best(5)

    def best(self, count: int) -> tuple[Prediction, ...]:
        """The `count` classes with the highest scores, best first; among equals the lower index first.

        Raises:
            UsageError: `count` is not a whole number, or less than 1.
        """
        count = whole_number(count, "count")
        if count < 1:
            raise UsageError(f"asked for the best {count} classes; give a number from 1")
        order = np.argsort(-self.logits, kind="stable")[:count]
        return tuple(self.prediction(int(index)) for index in order)

    def prediction(self, target: ClassRef) -> Prediction:
        """The score of one class."""
        index = self._classes.resolve(target)
        return Prediction(index, self._classes.labels[index], float(self.scores[index]))

    def map(self, target: ClassRef | None = None, *, clamp_negative: bool = False) -> FloatArray:
        """A class's activation map as the paper defines it, M_c = sum_k W[c,k] f_k.

        In a model with a layer normalisation after the pooling, times this image's scale; in one with a nonlinear head,
        with the gradient of the class's logit at this image in the place of W[c].

        Args:
            target: the class.
            clamp_negative: without the negative weights, see `gapcam.cam.class_maps`.

        Returns:
            [h,w] float32 at the features' resolution, in the logits' unit: its mean plus the class's bias is the
            logit. Not to be written to.

        Raises:
            MapNotComputedError: the head is nonlinear and the class not among the best ones, whose rows the graph
                computes; nor does the model give every class's map, or `clamp_negative` asks for the row.
        """
        index = self._mapped(target, clamp_negative)
        return self._post.map(index, clamp_negative=clamp_negative)

    def maps(self, targets: Sequence[ClassRef], *, clamp_negative: bool = False) -> FloatArray:
        """The maps of several classes at once, [n,h,w] float32, in the order asked for. See `map`."""
        indices = self._classes.resolve_each(targets)
        self._check_computed(indices, clamp_negative)
        return self._post.maps(indices, clamp_negative=clamp_negative)

    def heatmap(
        self,
        target: ClassRef | None = None,
        *,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        clamp_negative: bool = False,
    ) -> FloatArray:
        """A class's map over the frame, for drawing or for measuring.

        The map is upsampled (bilinear, half-pixel centres) to the network's input, freed of the letterbox's bars,
        normalised, and resized to the frame.

        Args:
            target: the class.
            normalization: "minmax", "max" or "fixed", see `gapcam.cam.normalize`.
            limits: (low, high) in the logits' unit, with "fixed".
            clamp_negative: without the negative weights.

        Returns:
            [H,W] float32 in [0, 1], of the frame's size; 0 where a crop left the network blind.

        Raises:
            UsageError: a wrong normalization or limits.
        """
        index = self._mapped(target, clamp_negative)
        return self._post.heatmap(index, normalization=normalization, limits=limits, clamp_negative=clamp_negative)

    def boxes(
        self,
        target: ClassRef | None = None,
        *,
        threshold: float = THRESHOLD,
        percentile: float | None = None,
        all_components: bool = False,
        clamp_negative: bool = False,
    ) -> tuple[Box, ...]:
        """Boxes around what made the network choose a class, by the rule of Zhou et al. 2016.

        The map is upsampled to the network's input, as in Choe et al. 2020, "Evaluating Weakly Supervised Object
        Localization Methods Right", and thresholded there; the boxes are then mapped to the frame.

        Args:
            target: the class.
            threshold: keep values above this part of the map's maximum, in [0, 1).
            percentile: relative to this percentile instead of the maximum, see `gapcam.boxes.boxes_from_map`.
            all_components: every connected component's box, the largest component's first, instead of that one only.
            clamp_negative: without the negative weights.

        Returns:
            Boxes in frame pixels, half-open, inside the frame. Empty where the map is flat or nowhere positive.

        Raises:
            UsageError: `threshold` or `percentile` is out of its range.
        """
        raw = self.map(target, clamp_negative=clamp_negative)
        with self._times.timed("boxes"):
            return boxes_on_frame(
                raw,
                self._input_size,
                self.placement,
                threshold=threshold,
                percentile=percentile,
                all_components=all_components,
            )

    def overlay(
        self,
        target: ClassRef | None = None,
        *,
        colormap: str = "jet",
        alpha: float = 0.5,
        alpha_by_heat: bool = False,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        clamp_negative: bool = False,
        boxes: Sequence[Box] = (),
        caption: str = "",
        out: Frame | None = None,
    ) -> Frame:
        """The frame with a class's map in colour over it.

        Args:
            target: the class.
            colormap: one of OpenCV's, such as "jet", "turbo", "viridis" (`gapcam.overlay.COLORMAPS`).
            alpha: of the map, from 0 (only the frame) to 1 (only the map).
            alpha_by_heat: at each pixel alpha times the normalised map, so that only what is warm is covered.
            normalization: as in `heatmap`.
            limits: as in `heatmap`.
            clamp_negative: without the negative weights.
            boxes: to draw, in frame pixels: `result.boxes()`.
            caption: a line of text to write at the top left.
            out: an array like the frame to write into; a video loop that reuses one saves the allocation.

        Returns:
            H x W x 3 uint8 BGR: `out`, or a new array. The frame is left as it is. Pixels outside a crop are the
            frame's.

        Raises:
            UsageError: a wrong colour map, alpha, normalization or limits.
            FrameError: `out` is not an array like the frame, or overlaps it.
        """
        self._check_drawn(boxes, caption)
        image = self._post.overlay(
            self._mapped(target, clamp_negative),
            colormap=colormap,
            alpha=alpha,
            alpha_by_heat=alpha_by_heat,
            normalization=normalization,
            limits=limits,
            clamp_negative=clamp_negative,
            out=out,
        )
        if boxes or caption:
            with self._times.timed("overlay", more=True):
                self._draw(image, boxes, caption)
        return image

    def to_dict(
        self,
        targets: Sequence[ClassRef] = (),
        *,
        count: int = 5,
        threshold: float = THRESHOLD,
        percentile: float | None = None,
        all_components: bool = False,
        clamp_negative: bool = False,
    ) -> dict[str, Any]:
        """What was found, ready for JSON. docs/cli.md lists the fields.

        Args:
            targets: the classes that get boxes; by default the one with the highest score.
            count: how many of the best classes to list.
            threshold: as in `boxes`.
            percentile: as in `boxes`.
            all_components: as in `boxes`.
            clamp_negative: as in `boxes`.
        """
        height, width = self._post.frame_size
        explained = []
        for target in targets or [self.best(1)[0].index]:
            found = self.boxes(
                target,
                threshold=threshold,
                percentile=percentile,
                all_components=all_components,
                clamp_negative=clamp_negative,
            )
            prediction = self.prediction(target)
            explained.append(
                {
                    **prediction.to_dict(),
                    "logit": float(self.logits[prediction.index]),
                    "boxes": [box.to_list() for box in found],
                }
            )
        return {
            "width": width,
            "height": height,
            "exact": self.exact,
            "top": [prediction.to_dict() for prediction in self.best(count)],
            "classes": explained,
            "timings_ms": {step: round(value, 3) for step, value in self.timings_ms.items()},
        }

    def _check_drawn(self, boxes: Sequence[Box], caption: str) -> None:
        """Refuse what cannot be drawn on a frame of this format."""

    def _draw(self, image: Frame, boxes: Sequence[Box], caption: str) -> None:
        if boxes:
            draw_boxes(image, boxes)
        if caption:
            draw_caption(image, caption)

    def _index(self, target: ClassRef | None) -> int:
        return int(self.logits.argmax()) if target is None else self._classes.resolve(target)

    def _mapped(self, target: ClassRef | None, clamp_negative: bool) -> int:
        """The index of a class whose map can be computed."""
        index = self._index(target)
        self._check_computed([index], clamp_negative)
        return index

    def _check_computed(self, indices: list[int], clamp_negative: bool) -> None:
        lacking = self._post.lacking(indices, clamp_negative=clamp_negative)
        if lacking:
            raise MapNotComputedError(self._why_no_map(lacking, clamp_negative))

    def _why_no_map(self, lacking: list[int], clamp_negative: bool) -> str:
        """About the one of these classes that ranks last, so that the advice is enough for all."""
        ranks = np.argsort(-self.logits, kind="stable").tolist()
        worst = max(lacking, key=ranks.index)
        rank = ranks.index(worst) + 1
        what = "map without negative weights" if clamp_negative else "map"
        way_out = "" if clamp_negative else ", or with --emit maps"
        return (
            f"the {what} of {self._classes.labels[worst]!r} is not in this result: the model's head is nonlinear, its "
            f"graph computes the rows of the best classes only, and this one has rank {rank}. Export it again with "
            f"--topk {rank} or more{way_out}"
        )
