"""Where the time goes: the stages' means one after the other, and what none of them explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gapcam_bench.reports.columns import UNEXPLAINED, stages_of
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.plots.palette import GROUND, QUIET, STAGES
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, axes_at, blank, drawn, write_names
from gapcam_bench.reports.plots.svg import StyleSheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, HEADING = "stages", "Where the time goes"
_OF_OTHERS = ("#aa4499", "#ddcc77", "#999933", "#332288")
"""For stages that only a peer has."""
_MOST_APART = 4.0
"""Longest over shortest total up to which bars are as long as their times; beyond, the short ones show nothing."""


def stage_plot(shown: Sequence[Shown], sheet: StyleSheet) -> Plot:
    """A bar for each row that has stages, as long as its mean total."""
    rows = [it for it in shown if "total" in it.row.wall and stages_of([it.row])]
    if not rows:
        return Plot(NAME, HEADING, "", why_not="needs rows with stages, of which this result has none")
    totals = [it.row.wall["total"].mean_ms for it in rows]
    shares = max(totals) > _MOST_APART * max(min(totals), 1e-9)
    caption = (
        (
            "Shares of the mean total, which stands at the bar's end"
            if shares
            else "Means, which add up to the mean total"
        )
        + ", in ms of a query (all pictures of a batch). By the host's clock, with every wait for the device. "
        "Unexplained is what no stage accounts for."
    )
    told = "; ".join(
        f"row {it.number}, {it.label}: "
        + ", ".join(f"{stage} {milliseconds(it.row.wall[stage].mean_ms)} ms" for stage in stages_of([it.row]))
        for it in rows
    )
    return drawn(
        NAME,
        HEADING,
        caption,
        f"Mean time of each stage. {told}.",
        rows,
        sheet,
        lambda size: _draw(rows, size, shares=shares),
    )


def _draw(rows: Sequence[Shown], size: Size, *, shares: bool) -> tuple[Figure, Tips]:
    from matplotlib.patches import Patch

    step = 0.6 if size.narrow else 0.34
    stages = stages_of([it.row for it in rows])
    in_a_line = 3 if size.narrow else 9
    top, bottom = 0.2 + 0.24 * -(-len(stages) // in_a_line), 0.6
    figure = blank(size.width, top + step * len(rows) + bottom)
    left = size.left
    axes = axes_at(figure, left, top, size.width - left - 0.75, step * len(rows))
    tips: Tips = {}
    width = 0.42 if size.narrow else 0.7
    heights = [len(rows) - 1 - place - (0.14 if size.narrow else 0.0) for place in range(len(rows))]
    others = [stage for stage in stages if stage not in STAGES]
    colours = {**STAGES, **{stage: _OF_OTHERS[place % len(_OF_OTHERS)] for place, stage in enumerate(others)}}
    for it, height in zip(rows, heights, strict=True):
        start = 0.0
        unit = 100 / max(it.row.wall["total"].mean_ms, 1e-9) if shares else 1.0
        for stage in stages_of([it.row]):
            mean = max(it.row.wall[stage].mean_ms, 0.0)
            gid = f"bar{it.number}-{stage}"
            axes.barh(
                height, unit * mean, width, left=start, gid=gid,
                color="none" if stage == UNEXPLAINED else colours[stage],
                edgecolor=colours[stage] if stage == UNEXPLAINED else GROUND, linewidth=0.6,
                hatch="/////" if stage == UNEXPLAINED else None,
            )  # fmt: skip
            tips[gid] = f"{it.number}: {it.label}: {stage} {milliseconds(mean)} ms"
            start += unit * mean
        axes.annotate(
            milliseconds(it.row.wall["total"].mean_ms), (start, height), (4, 0), textcoords="offset points",
            va="center", color=QUIET,
        )  # fmt: skip
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0, right=100 if shares else None)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(length=0)
    axes.set_xlabel("share of the total, %" if shares else "ms, mean")
    write_names(axes, rows, size, [height + (0.26 if size.narrow else 0) for height in heights], tips)
    key = [
        Patch(facecolor="none", edgecolor=colours[stage], hatch="/////", label=stage)
        if stage == UNEXPLAINED
        else Patch(facecolor=colours[stage], edgecolor=GROUND, label=stage)
        for stage in stages
    ]
    figure.legend(
        handles=key, loc="upper left", bbox_to_anchor=(0.1 / size.width, 1.0), ncols=in_a_line, handlelength=1.2,
        columnspacing=1.2, handletextpad=0.5, borderpad=0.2,
    )  # fmt: skip
    return figure, tips
