"""Whether a row stood still while it was measured: its samples over time, process by process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.reports.columns import judged, judged_stage
from gapcam_bench.reports.plots.palette import LINE, QUIET
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, array_of, axes_at, blank, drawn, write_names
from gapcam_bench.reports.plots.svg import StyleSheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, HEADING = "drift", "Samples over time"
_COLOUR = "#332288"
_BAND = "#88ccee"
_MOST_POINTS = 40
"""Of one process, each the median of those samples that are between two of them."""

_REACHES = (1.1, 1.2, 1.5, 2.0)
"""How many times the median a strip may reach to: the first that half of the rows stay below."""

Course = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Times in [0, 1], p10, p50 and p90 of the samples about each, in units of the row's median."""


def drift_plot(shown: Sequence[Shown], arrays: Mapping[str, NDArray[Any]], sheet: StyleSheet) -> Plot:
    """A strip for each row that has samples."""
    rows = [(it, courses) for it in shown if (courses := _courses(it, arrays))]
    if not rows:
        return Plot(NAME, HEADING, "", why_not="needs the raw samples")
    highest = [max(float(values.max()) for _, _, _, values in courses) for _, courses in rows]
    reach = next((each for each in _REACHES if each >= float(np.median(highest))), _REACHES[-1])
    caption = (
        "Each row's samples in the order in which they were measured, in units of the row's median: the line is their "
        "running median, the band from the p10 to the p90. A new process begins at each vertical line; between two of "
        f"a row's processes the other rows had their turn. A strip reaches from {2 - reach:.2g} to {reach:.2g} times "
        "the median, and what is beyond is at its edge. A row that stood still is a level line."
    )
    told = "; ".join(f"row {it.number}, {it.label}: {_told(courses)}" for it, courses in rows)
    return drawn(
        NAME,
        HEADING,
        caption,
        f"Latency over the run. {told}.",
        [it for it, _ in rows],
        sheet,
        lambda size: _draw(rows, reach, size),
    )


def _courses(it: Shown, arrays: Mapping[str, NDArray[Any]]) -> list[Course]:
    samples = array_of(arrays, it.row, f"wall/{judged_stage(it.row)}")
    at, blocks = array_of(arrays, it.row, "at"), array_of(arrays, it.row, "block")
    figures = judged(it.row)
    if samples is None or at is None or blocks is None or figures is None or figures.p50_ms <= 0:
        return []
    return [
        _course(samples[blocks == block] / 1e6 / figures.p50_ms, at[blocks == block]) for block in np.unique(blocks)
    ]


def _course(values: NDArray[np.float64], at: NDArray[np.int64]) -> Course:
    order = np.argsort(at, kind="stable")
    times = at[order] / max(int(at.max()), 1)
    parts = np.array_split(np.arange(len(values)), min(_MOST_POINTS, len(values)))
    low, middle, high = (
        np.array([np.percentile(values[order][part], share, method="inverted_cdf") for part in parts])
        for share in (10, 50, 90)
    )
    return np.array([float(times[part].mean()) for part in parts]), low, middle, high


def _told(courses: Sequence[Course]) -> str:
    medians = [float(np.median(middle)) for _, _, middle, _ in courses]
    return f"medians of its {len(medians)} processes from {min(medians):.3f} to {max(medians):.3f} times the row's"


def _draw(rows: Sequence[tuple[Shown, list[Course]]], reach: float, size: Size) -> tuple[Figure, Tips]:
    step = 0.72 if size.narrow else 0.4
    height = 0.42 if size.narrow else 0.32
    top, bottom = 0.15, 0.5
    figure = blank(size.width, top + step * len(rows) + bottom)
    left = size.left
    axes = axes_at(figure, left, top, size.width - left - 0.6, step * len(rows))
    tips: Tips = {}
    part = height / step
    bases = [len(rows) - 1 - place + part / 2 for place in range(len(rows))]
    most = max(len(courses) for _, courses in rows)
    for (it, courses), base in zip(rows, bases, strict=True):
        gid = f"strip{it.number}"
        for place, (times, low, middle, high) in enumerate(courses):
            share = most / len(courses)
            x = share * (place + 0.04 + 0.92 * times)
            low, middle, high = (
                base + part / 2 * np.clip((values - 1) / (reach - 1), -1, 1) for values in (low, middle, high)
            )
            axes.fill_between(x, low, high, color=_BAND, linewidth=0, alpha=0.6)
            axes.plot(x, middle, color=_COLOUR, linewidth=1.1, gid=f"{gid}-{place}")
            tips[f"{gid}-{place}"] = f"{it.number}: {it.label}: process {place + 1}"
            axes.vlines(share * place, base - part / 2, base + part / 2, color=LINE, linewidth=1)
        axes.hlines(base, 0, most, color=QUIET, linewidth=0.5, linestyle=(0, (2, 3)))
    for sign in (1, -1):
        axes.annotate(
            f"{sign * (reach - 1):+.0%}", (most, bases[0] + sign * part / 2), (3, 0),
            textcoords="offset points", va="center", color=QUIET, fontsize=size.font - 1.5, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(0, most)
    axes.set_ylim(0, len(rows))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("processes, one after the other")
    write_names(
        axes, [it for it, _ in rows], size,
        [base + (part / 2 + 0.04 if size.narrow else 0) for base in bases], tips,
    )  # fmt: skip
    return figure, tips
