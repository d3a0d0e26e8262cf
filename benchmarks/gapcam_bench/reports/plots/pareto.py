"""What accuracy costs: each row's latency against how alike its answers are to the reference model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gapcam_bench.cell import Cell
from gapcam_bench.reports.columns import identity_of, judged
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.plots.palette import GROUND, QUIET, SERIES, TEXT
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, axes_at, blank, drawn
from gapcam_bench.reports.plots.svg import StyleSheet, plottable
from gapcam_bench.result import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, HEADING = "pareto", "Latency against fidelity"
_LOGARITHMIC_FROM = 5.0
"""Slowest over fastest row from which on the axis is logarithmic."""
_ALL_THE_SAME = 1e-6

_AROUND = ((True, 0), (False, 0), (True, 1), (False, 1), (True, -1), (False, -1))
"""Where a label may stand: right of its point or left, and in which line above or below."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""


@dataclass(frozen=True)
class Point:
    """A row in the plane.

    Attributes:
        shown: the row.
        ms: its median latency, better when smaller.
        fidelity: better when greater.
    """

    shown: Shown
    ms: float
    fidelity: float


def pareto_plot(shown: Sequence[Shown], sheet: StyleSheet) -> Plot:
    """A panel for each kind of work that two rows did; a point for each row that was compared with the reference."""
    measure, axis = "map_correlation", "least correlation of two maps"
    groups = _groups(shown, measure)
    if not groups:
        measure, axis = "top1", "share of pictures with the same best class"
        groups = _groups(shown, measure)
    if not groups:
        why = (
            "needs two rows of the same scenario, frame, batch, work and threads that were compared with a reference "
            "model: gapcam bench --reference MODEL"
        )
        return Plot(NAME, HEADING, "", why_not=why)
    caption = (
        f"Up and to the left is better. Fidelity is the {axis}, against {against(shown)}. Rows on the line are the "
        "front: no other row is both as fast and as faithful, and better in one of the two."
    )
    if not all(it.shown.counts for points in groups.values() for it in points):
        caption += " Hollow points are rows that are not valid, or whose answers differ: none of them is on a front."
    told = "; ".join(
        f"row {it.shown.number}, {it.shown.label}{it.shown.mark}: {milliseconds(it.ms)} ms, {it.fidelity:.4f}"
        + (", on the front" if it in front_of(points) else "")
        for points in groups.values()
        for it in points
    )
    return drawn(
        NAME, HEADING, caption, f"Median latency and {axis}. {told}.",
        [it.shown for points in groups.values() for it in points], sheet, lambda size: _draw(groups, size),
    )  # fmt: skip


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other one dominates, from the fastest on (Pareto's front).

    One point dominates another if it is no slower and no less faithful, and better in one of the two. Rows that are not
    valid, and those whose answers differ, neither are on the front nor dominate.
    """
    counted = [it for it in points if it.shown.counts]
    return sorted(
        (
            it
            for it in counted
            if not any(
                other.ms <= it.ms
                and other.fidelity >= it.fidelity
                and (other.ms < it.ms or other.fidelity > it.fidelity)
                for other in counted
            )
        ),
        key=lambda it: (it.ms, -it.fidelity, it.shown.number),
    )


def against(shown: Sequence[Shown]) -> str:
    """The reference models' names."""
    return ", ".join(sorted({it.row.fidelity.against for it in shown if it.row.fidelity is not None}))


def _groups(shown: Sequence[Shown], measure: str) -> dict[str, list[Point]]:
    """Points of rows that do the same work, by what it is; latencies of others say nothing about one another."""
    found: dict[tuple[str, str], list[Point]] = {}
    for it in shown:
        figures, value = judged(it.row), _fidelity(it.row, shown, measure)
        if figures is not None and value is not None:
            found.setdefault(_work(it.row.cell), []).append(Point(it, figures.p50_ms, value))
    groups = {work: points for work, points in found.items() if len(points) >= 2}
    besides = len({work for _, work in groups}) > 1  # said where it tells panels apart
    return {"\n".join(work) if besides else work[0]: points for work, points in groups.items()}


def _work(cell: Cell) -> tuple[str, str]:
    """What a row does: what comes in, and what is done with it by how many threads."""
    threads = "all threads" if cell.threads is None else f"{cell.threads} thread{'s' * (cell.threads != 1)}"
    return (
        f"{cell.scenario}, {cell.frame[1]}x{cell.frame[0]}, batch {cell.batch}",
        f"{'+'.join(cell.work) or 'map alone'}, {threads}",
    )


def _fidelity(row: Row, shown: Sequence[Shown], measure: str) -> float | None:
    found = row.fidelity
    references = {it.row.fidelity.against for it in shown if it.row.fidelity is not None}
    if found is None and row.model is not None and row.model.name in references:
        found = row.parity  # the reference itself: the check of the backend was against the same model
    return None if found is None else getattr(found, measure)


def _draw(groups: Mapping[str, Sequence[Point]], size: Size) -> tuple[Figure, Tips]:
    across = 1 if size.narrow or len(groups) == 1 else 2
    top = 0.4 + 0.2 * max(work.count("\n") for work in groups)
    width, height = size.width / across, top + 3.0
    figure = blank(size.width, height * -(-len(groups) // across))
    tips: Tips = {}
    for place, (work, points) in enumerate(groups.items()):
        axes = axes_at(
            figure, width * (place % across) + 0.85, height * (place // across) + top, width - 1.1, height - top - 0.65
        )
        axes.set_title(work, color=TEXT)
        _panel(axes, points, tips)
        _write_labels(axes, points, size)
    return figure, tips


def _panel(axes: Axes, points: Sequence[Point], tips: Tips) -> None:
    front = front_of(points)
    axes.plot([it.ms for it in front], [it.fidelity for it in front], color=SERIES[0], linewidth=1.5)
    for it in points:
        best = it in front
        gid = f"point{it.shown.number}"
        colour = SERIES[0] if best else QUIET
        axes.plot(
            it.ms, it.fidelity, marker="o", markersize=8 if best else 7, gid=gid,
            color=colour if it.shown.counts else GROUND, markeredgecolor=colour, markeredgewidth=1.2,
        )  # fmt: skip
        tips[gid] = f"{it.shown.number}: {it.shown.label}{it.shown.mark}: {milliseconds(it.ms)} ms, {it.fidelity:.4f}"
    times, values = [it.ms for it in points], [it.fidelity for it in points]
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # here, because an extra brings it

    axes.ticklabel_format(axis="y", useOffset=False)
    if max(times) / min(times) > _LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12, 0.15)
    if max(values) - min(values) < _ALL_THE_SAME:
        axes.set_ylim(max(values) - 0.01, max(values) + 0.002)
    axes.set_xlabel("median latency, ms")
    axes.set_ylabel("fidelity")
    axes.tick_params(which="both", length=0)


def _write_labels(axes: Axes, points: Sequence[Point], size: Size) -> None:
    """Numbers beside the points, with what tells a row from the others where there is room; none over another."""
    identity = identity_of([it.shown.row for it in points])
    short = identity.short_labels([it.shown.row for it in points])
    front = front_of(points)
    axes.get_xlim(), axes.get_ylim()  # which settles them: matplotlib leaves that to the last moment
    at = [axes.transData.transform((it.ms, it.fidelity)) for it in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    labelled = sorted(zip(points, at, short, strict=True), key=lambda it: (it[0] not in front, it[0].shown.number))
    for point, (x, y), label in labelled:
        number, mark = str(point.shown.number), point.shown.mark
        texts = (f"{number} {plottable(label)}{mark}", f"{number}{mark}")
        text, right, up, box = _place(axes, texts, (x, y), taken, size.font)
        taken.append(box)
        axes.annotate(
            text, (point.ms, point.fidelity), (8 if right else -8, 9 * up), textcoords="offset points",
            ha="left" if right else "right", va="center", color=TEXT if point in front else QUIET,
        )  # fmt: skip


def _place(
    axes: Axes, texts: Sequence[str], at: tuple[float, float], taken: Sequence[Box], font: float
) -> tuple[str, bool, int, Box]:
    """The first of the texts that has room at a point, whether it stands right of it, how far up, and its box."""
    frame = axes.get_window_extent()
    for text in texts:
        for right, up in _AROUND:
            left = at[0] + 8 if right else at[0] - 8 - 0.6 * font * len(text)
            bottom = at[1] - font / 2 + 9 * up
            box = (left, bottom, left + 0.6 * font * len(text), bottom + font)
            inside = frame.x0 - 20 <= box[0] and box[2] <= frame.x1 + 20
            if inside and not any(_overlap(box, other) for other in taken):
                return text, right, up, box
    return texts[-1], True, 0, (*at, *at)  # no room: one over another is better than none


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
