"""What a comparison of two models found: every figure, image by image, and what it was measured on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

import gapcam
from gapcam.atomic_file import write_atomically
from gapcam.boxes import THRESHOLD, check_threshold
from gapcam.cli.output import display_name, encodable
from gapcam.contract import Precision
from gapcam.environment import Environment, environment
from gapcam.errors import DataError
from gapcam_export.comparison.answers import Answer, answer
from gapcam_export.comparison.comparison import Comparison, ImageFidelity, check_classes, compare_answers
from gapcam_export.comparison.latency import LatencyComparison, compare_latency
from gapcam_export.comparison.notes import notes_on

WORST = 8
"""Images that a page shows."""


@dataclass(frozen=True)
class ComparedModel:
    """One of the two models.

    Attributes:
        name: as it was given.
        precision: of its weights and activations.
        head_precision: of its head.
        engine: what ran it.
        size_bytes: of its file; None where it has none.
    """

    name: str
    precision: Precision
    head_precision: Precision
    engine: str
    size_bytes: int | None


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read, and why."""

    image: str
    error: str


@dataclass(frozen=True)
class WorstCase:
    """An image on which the maps differ most.

    Attributes:
        path: of the image.
        row: what was measured on it.
        reference: the reference's answer.
        other: the other model's, about the same class.
    """

    path: Path
    row: ImageFidelity
    reference: Answer
    other: Answer


@dataclass(frozen=True)
class FidelityReport:
    """How alike two models answer on the same images.

    Attributes:
        reference: the model that the other one is held to.
        other: the other one.
        comparison: the figures, and the images' rows that they are computed from.
        worst: the images on which the maps differ most, the worst first.
        latency: of both; None where it was not measured.
        skipped: images that could not be read.
        notes: what the user should know.
        environment: what all this was measured on.
    """

    reference: ComparedModel
    other: ComparedModel
    comparison: Comparison
    worst: tuple[WorstCase, ...]
    latency: LatencyComparison | None
    skipped: tuple[SkippedImage, ...]
    notes: tuple[str, ...]
    environment: Environment

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON. docs/fidelity.md lists the fields."""
        return {
            "reference": asdict(self.reference),
            "other": asdict(self.other),
            "fidelity": self.comparison.figures(),
            "images_without_map": self.comparison.images_without_map,
            "latency": None if self.latency is None else self.latency.to_dict(),
            "environment": msgspec.to_builtins(self.environment),
            "notes": list(self.notes),
            "skipped": [asdict(skipped) for skipped in self.skipped],
            "rows": [asdict(row) for row in self.comparison.rows],
        }

    def to_html(self) -> str:
        """The report as one page that needs nothing else: its pictures are in it. The worst images are read again.

        Raises:
            DataError: one of them cannot be read any more.
            MissingExtraError: Jinja is not installed.
        """
        from gapcam_export.comparison.page import fidelity_page  # here, because Jinja belongs to an extra

        return fidelity_page(self)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write that page, whole or not at all.

        Raises:
            DataError: an image cannot be read any more, or the place cannot be written.
            MissingExtraError: Jinja is not installed.
        """
        write_atomically(Path(path), self.to_html().encode())


def report_fidelity(
    reference: gapcam.Session,
    other: gapcam.Session,
    paths: Sequence[str | os.PathLike[str]],
    *,
    names: tuple[str, str] | None = None,
    threshold: float = THRESHOLD,
    threads: int | None = None,
    latency: bool = True,
    worst: int = WORST,
    on_image: Callable[[int], None] = lambda _: None,
    after_round: Callable[[int], None] = lambda _: None,
) -> FidelityReport:
    """Compare two loaded models on images.

    Each image is read once and both models answer it; all maps are of the class that the reference finds best there.

    Args:
        reference: the model that the other one is held to.
        other: the other one.
        paths: of the images. One that cannot be read is left out and named in the report.
        names: how the report calls the two; by default as they were loaded.
        threshold: of the boxes, see `gapcam.boxes.boxes_from_map`.
        threads: that both models were loaded with, for the report.
        latency: whether to measure how long both take, `ROUNDS` rounds or `SECONDS` seconds long (see `latency`).
        worst: how many of the worst images to keep.
        on_image: called with the number of images that are done.
        after_round: called with the number of measured rounds of `latency`.

    Raises:
        DataError: no image can be read.
        ModelError: the models do not have the same number of classes.
        VerificationError: a model's logits are not finite.
        UsageError: `threshold` is out of its range.
    """
    check_threshold(threshold, None)
    check_classes(len(reference.labels), len(other.labels), other.name)
    rows: list[ImageFidelity] = []
    read: list[Path] = []
    skipped: list[SkippedImage] = []
    for count, path in enumerate(map(Path, paths), 1):
        try:
            frame = gapcam.read_image(path)
        except DataError as error:
            skipped.append(SkippedImage(display_name(path), encodable(" ".join(str(error).split()))))
        else:
            given = answer(reference, frame, display_name(path), threshold=threshold)
            found = answer(other, frame, given.name, target=given.explained.index, threshold=threshold)
            rows.append(compare_answers(given, found))
            read.append(path)
        on_image(count)
    if skipped and not rows:
        raise DataError(f"none of {len(skipped)} images can be read. The first: {skipped[0].error}")
    comparison = Comparison(rows, threshold)
    shown = tuple(map(encodable, names or (reference.name, other.name)))
    return FidelityReport(
        reference=_model(reference, shown[0]),
        other=_model(other, shown[1]),
        comparison=comparison,
        worst=tuple(_case(reference, other, read[index], rows[index], threshold) for index in comparison.worst(worst)),
        latency=compare_latency(reference, other, gapcam.read_image(read[0]), threads=threads, after_round=after_round)
        if latency
        else None,
        skipped=tuple(skipped),
        notes=notes_on(reference, other, shown, comparison),
        environment=environment(),
    )


def _model(session: gapcam.Session, name: str) -> ComparedModel:
    file = Path(session.name)
    return ComparedModel(
        name=name,
        precision=session.contract.precision,
        head_precision=session.contract.head_precision,
        engine=session.engine,
        size_bytes=file.stat().st_size if file.is_file() else None,
    )


def _case(
    reference: gapcam.Session, other: gapcam.Session, path: Path, row: ImageFidelity, threshold: float
) -> WorstCase:
    """The answers once more, which are not kept for all images: a thousand classes' logits take their room."""
    frame = gapcam.read_image(path)
    given, found = (
        answer(session, frame, row.name, target=row.target, threshold=threshold) for session in (reference, other)
    )
    return WorstCase(path, row, given, found)
