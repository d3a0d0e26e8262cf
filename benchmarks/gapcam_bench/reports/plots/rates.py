"""The server scenario's search: the p99 of the latency at each rate that was tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gapcam_bench.reports.formats import a_second, milliseconds
from gapcam_bench.reports.plots.palette import GROUND, QUIET, SERIES, TEXT
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, axes_at, blank, drawn
from gapcam_bench.reports.plots.svg import StyleSheet
from gapcam_bench.scenarios.measured import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, HEADING = "rates", "Server: latency against the rate of arrivals"
_MISSED = "#cc6677"


def rate_plot(shown: Sequence[Shown], sheet: StyleSheet) -> Plot | None:
    """A panel for each row of the server scenario; None where there is none."""
    rows = [it for it in shown if _trials(it)]
    if not rows:
        return None
    caption = (
        "Each mark is a rate that was tried: a point where the p99 kept the bound (the dashed line), a ring where it "
        "did in too few queries to be sure of it, a cross where it did not. The scenario's result is the highest rate "
        "that kept it."
    )
    told = "; ".join(f"row {it.number}, {it.label}: {_told(it)}" for it in rows)
    return drawn(NAME, HEADING, caption, f"p99 by rate. {told}.", rows, sheet, lambda size: _draw(rows, size))


def _trials(it: Shown) -> list[Trial]:
    """Those that have a place on the axes."""
    trials = (it.row.scenario.trials if it.row.scenario is not None else None) or ()
    return [trial for trial in trials if math.isfinite(trial.p99_ms) and trial.p99_ms > 0]


def _told(it: Shown) -> str:
    return ", ".join(
        f"{a_second(trial.rate)}/s {milliseconds(trial.p99_ms)} ms{'' if trial.kept else ', over the bound'}"
        for trial in _trials(it)
    )


def _draw(rows: Sequence[Shown], size: Size) -> tuple[Figure, Tips]:
    across = 1 if size.narrow else min(3, max(2, len(rows)))
    width, height = size.width / across, 2.8
    figure = blank(size.width, height * -(-len(rows) // across))
    tips: Tips = {}
    for place, it in enumerate(rows):
        axes = axes_at(
            figure, width * (place % across) + 0.75, height * (place // across) + 0.4, width - 1.0, height - 1.1
        )
        _panel(axes, it, tips, size)
    return figure, tips


def _panel(axes: Axes, it: Shown, tips: Tips, size: Size) -> None:
    bound = None if it.row.scenario is None else it.row.scenario.bound_ms
    for place, trial in enumerate(_trials(it)):
        gid = f"trial{it.number}-{place}"
        axes.plot(
            trial.rate, trial.p99_ms, marker="o" if trial.kept else "X",
            color=GROUND if trial.kept and not trial.certified else SERIES[0] if trial.kept else _MISSED,
            markeredgecolor=SERIES[0] if trial.kept else GROUND, markeredgewidth=1.2 if trial.kept else 0.6,
            markersize=7, gid=gid,
        )  # fmt: skip
        tips[gid] = (
            f"{a_second(trial.rate)} queries a second: p99 {milliseconds(trial.p99_ms)} ms, {trial.queries} queries"
        )
    if bound is not None and bound > 0:
        axes.axhline(bound, color=QUIET, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_yscale("log")
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.1, 0.15)
    axes.set_title(it.named(36), color=TEXT, fontsize=size.font)
    axes.set_xlabel("queries a second")
    axes.set_ylabel("p99, ms")
    axes.tick_params(which="both", length=0)
