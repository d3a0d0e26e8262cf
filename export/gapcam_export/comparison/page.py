"""The fidelity report as one HTML page that needs nothing else: no script, no request, its pictures are in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gapcam
from gapcam.atomic_file import check_spares, check_writable
from gapcam_export.comparison.figures import FIGURES
from gapcam_export.comparison.pictures import data_uri, shrunk, with_map
from gapcam_export.report_page import report_page

if TYPE_CHECKING:
    from gapcam_export.comparison.report import FidelityReport, WorstCase

COLORMAP = "turbo"
_AXIS_STARTS = (0.9, 0.8, 0.6, 0, -1)
"""Such that the four parts of the axis are round numbers; a correlation may be negative."""
_MOST_POINTS = 300
"""Of a curve: more do not show at the width of a page."""


def check_page(page: Path, others: Iterable[Path | None]) -> None:
    """Notice before long work that a page cannot be written; importing this has noticed whether Jinja is installed.

    Args:
        page: the file.
        others: files that it must not be: inputs, and other outputs.

    Raises:
        DataError: the place cannot be written, or is one of the others.
    """
    check_writable(page)
    check_spares(page, others)


@dataclass(frozen=True)
class Curve:
    """A figure of all images, sorted from the least.

    Attributes:
        name: of the figure.
        kind: how the page calls its line.
        points: "x,y x,y ..." with x in [0, 100] along the images, and y in [0, 100] from the greatest value down.
    """

    name: str
    kind: str
    points: str


def fidelity_page(report: FidelityReport) -> str:
    """The page.

    All text that comes from elsewhere (names of files and classes, messages) is escaped, and the page forbids itself
    everything but its own style sheet and pictures.

    Raises:
        DataError: an image that it shows cannot be read any more.
    """
    here = resources.files(__package__)
    style = here.joinpath("page.css").read_text(encoding="utf-8")
    comparison = report.comparison
    low = _axis_start([value for row in comparison.map_rows for value in (row.box_iou, row.pearson)])
    return report_page(
        here.joinpath("page.html").read_text(encoding="utf-8"),
        style,
        report=report,
        figures=FIGURES,
        measured=comparison.figures(),
        cases=[_case(case) for case in report.worst],
        curves=(
            _curve("IoU of the boxes", "iou", [row.box_iou for row in comparison.map_rows], low),
            _curve("correlation of the maps", "pearson", [row.pearson for row in comparison.map_rows], low),
        ),
        ticks=[(100 * (1 - share), f"{low + share * (1 - low):.3g}") for share in (0, 0.25, 0.5, 0.75, 1)],
    )


def _case(case: WorstCase) -> dict[str, Any]:
    frame = gapcam.read_image(case.path)
    return {
        "row": case.row,
        "frame": data_uri(shrunk(frame)),
        "sides": [
            {"name": name, "answer": it, "picture": data_uri(with_map(frame, it, COLORMAP))}
            for name, it in (("A", case.reference), ("B", case.other))
        ],
    }


def _axis_start(values: Sequence[float]) -> float:
    """Where the axis of values up to 1 begins."""
    return next(start for start in _AXIS_STARTS if start <= min(values, default=1))


def _curve(name: str, kind: str, values: Sequence[float], low: float) -> Curve:
    ordered = sorted(values)
    last = len(ordered) - 1
    if last > _MOST_POINTS:
        ordered = [ordered[round(place * last / _MOST_POINTS)] for place in range(_MOST_POINTS + 1)]
        last = _MOST_POINTS
    if last == 0:  # one image: a level line
        ordered, last = 2 * ordered, 1
    points = (f"{100 * place / last:.2f},{100 * (1 - value) / (1 - low):.2f}" for place, value in enumerate(ordered))
    return Curve(name, kind, " ".join(points))
