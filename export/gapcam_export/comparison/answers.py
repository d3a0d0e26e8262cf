"""What a model says of an image, kept for comparison: its logits, and where it sees one class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gapcam
from gapcam.box import Box
from gapcam.boxes import THRESHOLD
from gapcam.cam import FloatArray
from gapcam.cli.output import display_name
from gapcam.errors import DataError, MapNotComputedError, VerificationError
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.result import Prediction
from gapcam_export.comparison.measures import peak_cell


@dataclass(frozen=True, eq=False)
class Answer:
    """One model's answer to one image.

    Attributes:
        name: of the image.
        logits: [K] float32.
        best: the class with the highest logit.
        explained: the class that map, box and peak are of.
        map: [h,w] float32, that class's activation map; None where a nonlinear head's graph did not compute it.
        box: around the map's largest component above the threshold, in frame pixels; None where it marks nothing.
        peak: (x, y) of the centre of the map's greatest cell, in frame pixels; None for a flat map.
        input_size: (H, W) in pixels of the network's input.
        placement: of the frame in that input.
    """

    name: str
    logits: FloatArray
    best: Prediction
    explained: Prediction
    map: FloatArray | None
    box: Box | None
    peak: tuple[float, float] | None
    input_size: tuple[int, int]
    placement: Placement


def answer(
    session: gapcam.Session, frame: Frame, name: str, *, target: int | None = None, threshold: float = THRESHOLD
) -> Answer:
    """A model's answer to one frame.

    Args:
        session: the model.
        frame: H x W x 3 uint8 BGR.
        name: of the image.
        target: index of the class to explain; None for the one that the model finds best.
        threshold: of the box, see `gapcam.boxes.boxes_from_map`.

    Raises:
        VerificationError: the model's logits are not finite.
        UsageError: `threshold` is out of its range.
    """
    try:
        result = session(frame)
    except VerificationError as error:
        raise VerificationError(f"{name}: {error}") from error
    (best,) = result.best(1)
    explained = best if target is None else result.prediction(target)
    input_size, placement = session.contract.preprocessing.size, result.placement
    try:
        raw = result.map(explained.index)
    except MapNotComputedError:
        return Answer(name, result.logits, best, explained, None, None, None, input_size, placement)
    boxes = result.boxes(explained.index, threshold=threshold)
    peak = _peak(raw, input_size, placement)
    # A copy of the logits, which may be a part of a larger array; the map is the result's own.
    return Answer(
        name, result.logits.copy(), best, explained, raw, boxes[0] if boxes else None, peak, input_size, placement
    )


def answers(
    session: gapcam.Session,
    paths: Sequence[str | os.PathLike[str]],
    *,
    threshold: float = THRESHOLD,
    on_image: Callable[[int], None] = lambda _: None,
    on_unreadable: Callable[[Path, DataError], None] | None = None,
) -> list[Answer]:
    """A model's answers to images, each about the class that it finds best there.

    Args:
        session: the model.
        paths: of the images.
        threshold: of the boxes.
        on_image: called with the number of images that are done.
        on_unreadable: called with the path of an image that cannot be read, which is then left out, and the reason.

    Raises:
        DataError: an image cannot be read, and there is no `on_unreadable`.
        VerificationError: the model's logits are not finite.
        UsageError: `threshold` is out of its range.
    """
    given = []
    for count, path in enumerate(map(Path, paths), 1):
        try:
            frame = gapcam.read_image(path)
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(path, error)
        else:
            given.append(answer(session, frame, display_name(path), threshold=threshold))
        on_image(count)
    return given


def _peak(raw: FloatArray, input_size: tuple[int, int], placement: Placement) -> tuple[float, float] | None:
    cell = peak_cell(raw)
    if cell is None:
        return None
    height, width = input_size
    y, x = ((place + 0.5) * side / count for place, side, count in zip(cell, (height, width), raw.shape, strict=True))
    return placement.to_frame(x, y)
