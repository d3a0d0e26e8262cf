"""Two models' answers to the same images, image by image, and every figure computed from these rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gapcam
from gapcam.boxes import THRESHOLD
from gapcam.contract import Fidelity
from gapcam.errors import DataError, ModelError
from gapcam_export.comparison.answers import Answer, answer
from gapcam_export.comparison.grids import on_one_grid
from gapcam_export.comparison.measures import (
    box_iou,
    logit_error,
    peak_shift,
    pearson,
    spearman,
    top_agreement,
)


@dataclass(frozen=True)
class MapFidelity:
    """How alike two maps of one class are on one image.

    Attributes:
        pearson: linear correlation of the maps, in [-1, 1].
        spearman: rank correlation of the maps, in [-1, 1].
        box_iou: intersection over union of their boxes in frame pixels, in [0, 1]: 1 where neither map has a box, 0
            where one has.
        peak_shift_px: distance between the centres of their greatest cells, in pixels of the reference's input; the
            input's diagonal where one of the maps is flat, 0 where both are.
    """

    pearson: float
    spearman: float
    box_iou: float
    peak_shift_px: float


@dataclass(frozen=True)
class ImageFidelity:
    """How alike two models answer on one image.

    Attributes:
        name: of the image.
        target: index of the class that the reference finds best; all maps are of this one.
        other_best: index of the class that the other model finds best.
        top1: whether these are the same.
        top5: part of the reference's five best classes that are among the other's five best.
        logit_error: max over the classes of |difference of logits|, over the reference's largest |logit|.
        maps: of the class `target`; None where one of the models has no map of it here, which happens with nonlinear
            heads, or where the models see different parts of the frame.
    """

    name: str
    target: int
    other_best: int
    top1: bool
    top5: float
    logit_error: float
    maps: MapFidelity | None


class Comparison:
    """How alike two models answer on the same images.

    Args:
        rows: one for each image.
        threshold: of the boxes, as a part of a map's maximum.

    Raises:
        DataError: there is no row.
    """

    def __init__(self, rows: Sequence[ImageFidelity], threshold: float = THRESHOLD) -> None:
        if not rows:
            raise DataError("there is no image to compare the models on; give at least one")
        self.rows = tuple(rows)
        self.threshold = threshold

    @property
    def map_rows(self) -> tuple[MapFidelity, ...]:
        """Of the images on which both models have a map of the reference's best class."""
        return tuple(row.maps for row in self.rows if row.maps is not None)

    @property
    def images_without_map(self) -> int:
        """How many images count for the classes alone."""
        return len(self.rows) - len(self.map_rows)

    def figures(self) -> dict[str, Any]:
        """The figures of `gapcam.contract.Fidelity` by name, each as it defines them.

        Those of maps are over the images that have maps of both models; None where no image has.
        """
        maps = self.map_rows
        return {
            "images": len(self.rows),
            "top1_agreement": _mean([row.top1 for row in self.rows]),
            "top5_agreement": _mean([row.top5 for row in self.rows]),
            "logit_error": _mean([row.logit_error for row in self.rows]),
            "logit_error_max": max(row.logit_error for row in self.rows),
            "map_pearson": _mean([row.pearson for row in maps]),
            "map_pearson_min": min((row.pearson for row in maps), default=None),
            "map_spearman": _mean([row.spearman for row in maps]),
            "box_iou": _mean([row.box_iou for row in maps]),
            "box_iou_min": min((row.box_iou for row in maps), default=None),
            "peak_shift_px": _mean([row.peak_shift_px for row in maps]),
            "threshold": self.threshold,
        }

    def summary(self) -> Fidelity:
        """The same for a model's contract.

        Raises:
            ModelError: no image has maps of both models.
        """
        if not self.map_rows:
            raise ModelError(
                "on no image do both models have a map of the class that the first finds best, so that maps cannot be "
                "compared. Where a head is nonlinear, export it again with a larger --topk, or with --emit maps."
            )
        return Fidelity(**self.figures())

    def worst(self, count: int) -> tuple[int, ...]:
        """The indices of the `count` rows on which the maps differ most, the worst first.

        Rows without maps come first, then those with the least IoU of the boxes, among equals those with the least
        correlation of the maps.
        """

        def badness(index: int) -> tuple[float, float]:
            maps = self.rows[index].maps
            return (-1.0, -1.0) if maps is None else (maps.box_iou, maps.pearson)

        return tuple(sorted(range(len(self.rows)), key=badness)[:count])


def compare(
    reference: Sequence[Answer],
    other: gapcam.Session,
    paths: Sequence[str | os.PathLike[str]],
    *,
    threshold: float = THRESHOLD,
    on_image: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Compare a model with answers that another one, the reference, gave before.

    Args:
        reference: its answers, by `answers` with the same threshold.
        other: the model.
        paths: of the images, in the order of the answers.
        threshold: of the boxes.
        on_image: called with the number of images that are done.

    Raises:
        DataError: an image cannot be read, or there is none.
        ModelError: the models do not have the same number of classes.
        VerificationError: the model's logits are not finite.
        UsageError: `threshold` is out of its range.
    """
    rows = []
    for count, (given, path) in enumerate(zip(reference, paths, strict=True), 1):
        if count == 1:
            check_classes(len(given.logits), len(other.labels), other.name)
        frame = gapcam.read_image(path)
        found = answer(other, frame, given.name, target=given.explained.index, threshold=threshold)
        rows.append(compare_answers(given, found))
        on_image(count)
    return Comparison(rows, threshold)


def check_classes(reference: int, other: int, name: str) -> None:
    """Refuse two models whose logits are not about the same classes.

    Raises:
        ModelError: they have different numbers of classes.
    """
    if reference != other:
        raise ModelError(
            f"{name} has {other} classes and the model that it is compared with has {reference}; expected two models "
            "of the same classes, such as one and what was made from it."
        )


def compare_answers(reference: Answer, other: Answer) -> ImageFidelity:
    """Two models' answers to the same image, about the class that the reference finds best."""
    return ImageFidelity(
        name=reference.name,
        target=reference.explained.index,
        other_best=other.best.index,
        top1=reference.best.index == other.best.index,
        top5=top_agreement(reference.logits, other.logits, 5),
        logit_error=logit_error(reference.logits, other.logits),
        maps=_map_fidelity(reference, other),
    )


def _map_fidelity(reference: Answer, other: Answer) -> MapFidelity | None:
    pair = on_one_grid(reference, other)
    if pair is None:
        return None
    peak, other_peak = (
        None if it.peak is None else reference.placement.to_input(*it.peak) for it in (reference, other)
    )
    return MapFidelity(
        pearson=pearson(*pair),
        spearman=spearman(*pair),
        box_iou=box_iou(reference.box, other.box),
        peak_shift_px=peak_shift(peak, other_peak, math.hypot(*reference.input_size)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
