"""How long frames took: the distribution of every row's samples, on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.reports.columns import judged, judged_stage
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.plots.palette import GROUND, QUIET, TEXT
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, array_of, axes_at, blank, drawn, write_names
from gapcam_bench.reports.plots.svg import StyleSheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, HEADING = "latency", "Latency of every sample"
_FILL, _P99 = "#44aa99", "#cc6677"
_LOGARITHMIC_FROM = 5.0
"""Greatest over least sample from which on the axis is logarithmic."""


def latency_plot(shown: Sequence[Shown], arrays: Mapping[str, NDArray[Any]], sheet: StyleSheet) -> Plot:
    """A ridge for each row that has samples."""
    with_samples = [(it, ms) for it in shown if (ms := _samples_ms(it, arrays)) is not None]
    if not with_samples:
        return Plot(NAME, HEADING, "", why_not="needs the raw samples")
    low = min(float(ms.min()) for _, ms in with_samples)
    high = max(float(ms.max()) for _, ms in with_samples)
    log = high / low > _LOGARITHMIC_FROM
    caption = (
        "Each row is the histogram of its samples, as high as its fullest bin. The line is the median, the triangle "
        "the p99, the dot the longest. "
        + ("The axis is logarithmic. " if log else "")
        + "Samples are of a query's time; of the server scenario from its arrival to the answer, of the camera "
        "scenario a frame's age."
    )
    told = "; ".join(
        f"row {it.number}, {it.label}: median {milliseconds(figures.p50_ms)} ms, p99 {milliseconds(figures.p99_ms)} ms"
        for it, _ in with_samples
        if (figures := judged(it.row)) is not None
    )
    return drawn(
        NAME, HEADING, caption, f"Distributions of latency. {told}.", [it for it, _ in with_samples], sheet,
        lambda size: _draw(with_samples, (low, high), log, size),
    )  # fmt: skip


def _samples_ms(it: Shown, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
    samples = array_of(arrays, it.row, f"wall/{judged_stage(it.row)}")
    if samples is None or judged(it.row) is None:
        return None
    ms: NDArray[np.float64] = np.maximum(samples, 1) / 1e6
    return ms


def _draw(
    rows: Sequence[tuple[Shown, NDArray[np.float64]]], extent: tuple[float, float], log: bool, size: Size
) -> tuple[Figure, Tips]:
    step = 0.72 if size.narrow else 0.42
    top, bottom, right = 0.35, 0.6, 0.25
    figure = blank(size.width, top + step * len(rows) + bottom)
    left = size.left
    axes = axes_at(figure, left, top, size.width - left - right, step * len(rows))
    tips: Tips = {}
    scale = np.log10 if log else np.asarray
    low, high = (float(scale(value)) for value in extent)
    margin = 0.02 * (high - low) or 0.05 * abs(high) or 0.1
    edges = np.linspace(low - margin, high + margin, 110 if size.narrow else 220)
    for place, (it, ms) in enumerate(rows):
        _ridge(axes, it, ms, len(rows) - 1 - place, edges, log, size, tips)
    if log:
        axes.set_xscale("log")
    bounds = 10**edges if log else edges
    axes.set_xlim(bounds[0], bounds[-1])
    axes.set_ylim(-0.08, len(rows))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x", which="both" if log and high - low < 1.2 else "major")
    axes.set_xlabel("ms")
    axes.tick_params(which="both", length=0)
    _tidy_ticks(axes, log, high - low, narrow=size.narrow)
    write_names(
        axes, [it for it, _ in rows], size,
        [len(rows) - 1 - place + (0.68 if size.narrow else 0.3) for place in range(len(rows))], tips,
    )  # fmt: skip
    return figure, tips


def _ridge(
    axes: Axes,
    it: Shown,
    ms: NDArray[np.float64],
    base: float,
    edges: NDArray[np.float64],
    log: bool,
    size: Size,
    tips: Tips,
) -> None:
    counts, _ = np.histogram(np.log10(ms) if log else ms, bins=edges)
    bounds = 10**edges if log else edges
    filled = np.flatnonzero(counts)
    first, last = int(filled[0]), int(filled[-1]) + 1
    height = 0.55 if size.narrow else 0.8
    heights = base + height * counts[first:last] / counts.max()
    gid = f"ridge{it.number}"
    valid = it.row.status == "valid"
    axes.stairs(
        heights, bounds[first : last + 1], baseline=base, fill=True, gid=gid,
        facecolor=_FILL if valid else "none", edgecolor=_FILL if valid else QUIET, linewidth=0.8,
        hatch=None if valid else "////",
    )  # fmt: skip
    figures = judged(it.row)
    if figures is None:
        return
    tips[gid] = (
        f"{it.number}: {it.label}: {figures.count} samples, p50 {milliseconds(figures.p50_ms)} ms, "
        f"p99 {milliseconds(figures.p99_ms)} ms, longest {milliseconds(figures.max_ms)} ms"
    )
    axes.vlines(figures.p50_ms, base, base + height + 0.04, color=TEXT, linewidth=1.4)
    axes.plot(
        figures.p99_ms, base + 0.1, marker="^", markersize=6, color=_P99, markeredgecolor=GROUND, markeredgewidth=0.5
    )
    axes.plot(figures.max_ms, base + 0.04, marker="o", markersize=3, color=QUIET)


def _tidy_ticks(axes: Axes, log: bool, span: float, *, narrow: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if not log:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    elif span < (2.2 if narrow else 3.2):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
