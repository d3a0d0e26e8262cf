"""What the machine did meanwhile: power, temperature, clocks and the rest, with the rows' times shaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.reports.plots.palette import DASHES, OTHER_SHADE, QUIET, SERIES, SHADE
from gapcam_bench.reports.plots.plot import Plot, Shown, Size, Tips, array_of, axes_at, blank, drawn
from gapcam_bench.reports.plots.svg import StyleSheet, plottable
from gapcam_bench.telemetry.reading import UNITS, Channel, Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, HEADING = "telemetry", "The machine meanwhile"
_MOST_POINTS = 400
_MOST_LINES = len(SERIES)
"""In one panel; of more channels it shows the least, the median and the greatest."""
_PANELS: tuple[tuple[str, Quantity], ...] = (
    ("power", "power"),
    ("temperature", "temperature"),
    ("clocks", "clock"),
    ("utilisation", "utilisation"),
    ("throttling", "throttle"),
    ("memory", "memory"),
)

Line = tuple[str, NDArray[np.float64]]
Span = tuple[float, float, int]
"""From and to, in seconds of the plot, and the number of the row that was measured then."""


def telemetry_plot(
    shown: Sequence[Shown],
    channels: Sequence[Channel],
    arrays: Mapping[str, NDArray[Any]],
    lacking: Mapping[str, str],
    sheet: StyleSheet,
) -> Plot:
    """A panel for each quantity that was read."""
    time = arrays.get("telemetry/time")
    if not channels:
        why = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        return Plot(
            NAME, HEADING, "", why_not="needs telemetry, and nothing could be read" + (f" ({why})" if why else "")
        )
    if time is None or len(time) < 2 or not time[-1] > time[0]:
        return Plot(NAME, HEADING, "", why_not="needs the raw samples")
    x = np.asarray(time, dtype=np.float64) - float(time[0])
    panels = []
    for title, quantity in _PANELS:
        lines = [line for channel in channels if (line := _line(channel, quantity, x, arrays)) is not None]
        if lines:
            panels.append((f"{title}, {'GiB' if quantity == 'memory' else UNITS[quantity]}", lines))
    if not panels:
        return Plot(NAME, HEADING, "", why_not="needs telemetry, and every reading failed")
    spans = _spans(shown, arrays, float(time[0]))
    caption = (
        "Shaded are the times at which rows were measured, in turn; where there is room, with the row's number. Energy "
        "counters are shown as power. What could not be read is not here: it is not zero."
    )
    told = "; ".join(f"{title}: {_told(lines)}" for title, lines in panels)
    return drawn(
        NAME,
        HEADING,
        caption,
        f"Telemetry over time. {told}.",
        shown,
        sheet,
        lambda size: _draw(panels, spans, x, size),
    )


def _line(channel: Channel, panel: Quantity, x: NDArray[np.float64], arrays: Mapping[str, NDArray[Any]]) -> Line | None:
    values = arrays.get(f"telemetry/value/{channel.name}")
    shown_as = "power" if channel.quantity == "energy" else channel.quantity
    if values is None or shown_as != panel or not np.isfinite(values).any():
        return None
    y = np.asarray(values, dtype=np.float64)
    if channel.quantity == "energy":
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.concatenate([[np.nan], np.diff(y) / np.diff(x)])
        y[~np.isfinite(y) | (y < 0)] = np.nan  # the counter began anew
    elif channel.counts:
        y = y - y[np.isfinite(y)][0]
    return plottable(channel.name), y / 2**30 if channel.quantity == "memory" else y


def _spans(shown: Sequence[Shown], arrays: Mapping[str, NDArray[Any]], start: float) -> list[Span]:
    return sorted(
        (float(began) - start, float(ended) - start, it.number)
        for it in shown
        if (spans := array_of(arrays, it.row, "span")) is not None
        for began, ended in spans
    )


def _told(lines: Sequence[Line]) -> str:
    return ", ".join(f"{name} from {np.nanmin(y):.4g} to {np.nanmax(y):.4g}" for name, y in lines[:_MOST_LINES])


def _draw(
    panels: Sequence[tuple[str, list[Line]]], spans: Sequence[Span], x: NDArray[np.float64], size: Size
) -> tuple[Figure, Tips]:
    across = 2 if size.narrow else 4
    keys = [0.22 * -(-len(_in_panel(lines)) // across) for _, lines in panels]
    each = 1.25
    above = [0.17 if place == 0 else 0.0 for place in range(len(panels))]
    heights = [0.35 + key + more + each for key, more in zip(keys, above, strict=True)]
    figure = blank(size.width, sum(heights) + 0.7)
    top, tips = 0.0, Tips()
    for place, ((title, lines), key, more, height) in enumerate(zip(panels, keys, above, heights, strict=True)):
        axes = axes_at(figure, 0.6, top + 0.35 + key + more, size.width - 0.8, each)
        top += height
        _shade(axes, spans, x, size, numbers=place == 0, tips=tips)
        _lines(axes, _in_panel(lines), x, tips, place)
        axes.set_title(title, pad=6 + 72 * (key + more))
        axes.set_xlim(0, float(x[-1]))
        axes.tick_params(length=0)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0 + more / each), ncols=across, borderaxespad=0.2, borderpad=0.1,
            columnspacing=1.2, handlelength=2.2, labelspacing=0.2,
        )  # fmt: skip
        if place < len(panels) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("seconds from the beginning")
    return figure, tips


def _in_panel(lines: Sequence[Line]) -> list[Line]:
    """The lines themselves, or of too many their least, median and greatest."""
    if len(lines) <= _MOST_LINES:
        return list(lines)
    stacked = np.stack([y for _, y in lines])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a moment at which none of them could be read
        return [
            (f"greatest of {len(lines)}", np.nanmax(stacked, axis=0)),
            (f"median of {len(lines)}", np.nanmedian(stacked, axis=0)),
            (f"least of {len(lines)}", np.nanmin(stacked, axis=0)),
        ]


def _lines(axes: Axes, lines: Sequence[Line], x: NDArray[np.float64], tips: Tips, panel: int) -> None:
    parts = np.array_split(np.arange(len(x)), min(_MOST_POINTS, len(x)))
    times = np.array([float(x[part].mean()) for part in parts])
    greatest = 0.0
    for place, (name, y) in enumerate(lines):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a stretch without any reading is a gap
            values = np.array([np.nanmean(y[part]) for part in parts])
        gid = f"line{panel}-{place}"
        axes.plot(times, values, color=SERIES[place], linestyle=DASHES[place], linewidth=1.2, label=name, gid=gid)
        tips[gid] = name
        greatest = max(greatest, float(np.nanmax(values)))
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]), top=1.08 * greatest or 1)


def _shade(axes: Axes, spans: Sequence[Span], x: NDArray[np.float64], size: Size, *, numbers: bool, tips: Tips) -> None:
    points = 72 * size.width / max(float(x[-1]), 1e-9)
    for place, (began, ended, number) in enumerate(spans):
        gid = f"span{place}" if numbers else None
        axes.axvspan(began, ended, color=(SHADE, OTHER_SHADE)[number % 2], linewidth=0, zorder=0, gid=gid)
        if gid is not None:
            tips[gid] = f"row {number}, {began:.1f} s to {ended:.1f} s"
            if (ended - began) * points > size.font * 0.7 * len(str(number)):
                axes.annotate(
                    str(number), ((began + ended) / 2, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
                    textcoords="offset points", ha="center", va="bottom", color=QUIET, fontsize=size.font - 1.5,
                )  # fmt: skip
