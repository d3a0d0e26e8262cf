"""What all plots of a page have in common: two sizes, numbered rows, and a sentence for those who do not see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.reports.plots.palette import QUIET, TEXT
from gapcam_bench.reports.plots.svg import StyleSheet, plot_style, svg_of
from gapcam_bench.result import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Size:
    """One of the two widths that a plot is drawn for; the page shows the one that fits.

    Attributes:
        name: of it, and the style sheet's class.
        width: in inches of 72 points.
        font: in points.
        narrow: whether it is for a phone: names of rows stand above, not left.
        longest: characters of a name.
        left: inches that the names take.
    """

    name: str
    width: float
    font: float
    narrow: bool
    longest: int
    left: float = 0.25

    def fit(self, shown: Sequence[Shown]) -> Size:
        """The same with as much room at the left as these rows' names take."""
        if self.narrow:
            return self
        longest = max((len(it.named(self.longest)) for it in shown), default=0)
        return replace(self, left=0.3 + 0.54 * self.font / 72 * longest)


SIZES = (Size("wide", 11.0, 9.0, narrow=False, longest=62), Size("narrow", 5.0, 11.0, narrow=True, longest=44))


@dataclass(frozen=True)
class Shown:
    """A row as plots name it.

    Attributes:
        number: of the row in the tables, from 1.
        row: itself.
        label: in few words.
        short: likewise, with long names cut.
    """

    number: int
    row: Row
    label: str
    short: str

    def named(self, longest: int) -> str:
        """Number and short label, in the middle of which is left out what is too long."""
        label = self.short
        if len(label) > longest:
            label = f"{label[: longest // 2]}…{label[len(label) - longest + longest // 2 + 1 :]}"
        return f"{self.number}  {label}{self.mark}"

    @property
    def mark(self) -> str:
        """What its figures cannot be relied on for, in capitals; "" for a row that is valid, with the right answers."""
        mark = "" if self.row.status == "valid" else f" {self.row.status.upper()}"
        return mark if self.row.parity is None or self.row.parity.holds else f"{mark} DIFFERS"

    @property
    def counts(self) -> bool:
        """Whether it is a valid row whose answers do not differ: others may be shown, and be the best of nothing."""
        return not self.mark


@dataclass(frozen=True)
class Plot:
    """A section of the page.

    Attributes:
        name: unique in the page.
        heading: of it.
        caption: how to read it.
        drawings: <svg> elements, one for each size; none where there is nothing to draw.
        why_not: the reason, then.
    """

    name: str
    heading: str
    caption: str
    drawings: tuple[str, ...] = ()
    why_not: str = ""


Tips: TypeAlias = dict[str, str]
"""What a shape says when it is pointed at, by the shape's gid."""

Draw: TypeAlias = Callable[[Size], "tuple[Figure, Tips]"]


def drawn(
    name: str,
    heading: str,
    caption: str,
    alternative: str,
    shown: Sequence[Shown],
    sheet: StyleSheet,
    draw: Draw,
) -> Plot:
    """Draw a plot in both sizes.

    Args:
        name: unique in the page.
        heading: of it.
        caption: how to read it.
        alternative: what it shows, for those who do not see it.
        shown: rows that are in it.
        sheet: takes its styles.
        draw: makes the figure, and says what its shapes say when they are pointed at.
    """
    drawings = []
    for size in SIZES:
        with plot_style(size.font):
            figure, tips = draw(size.fit(shown))
            drawings.append(svg_of(figure, f"{name}-{size.name}", alternative, sheet, tips, f"plot {size.name}"))
    return Plot(name, heading, caption, tuple(drawings))


def blank(width: float, height: float) -> Figure:
    """A figure in inches, without pyplot, whose state is others'."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=72)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, **settings: Any) -> Axes:
    """Axes in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h), **settings)


def write_names(axes: Axes, shown: Sequence[Shown], size: Size, heights: Sequence[float], tips: Tips) -> None:
    """Write the rows' names, left of the axes at their heights; on a narrow plot above them, from the left edge."""
    width = size.width * axes.get_position().width
    for it, height in zip(shown, heights, strict=True):
        text = axes.text(
            0.0 if size.narrow else -0.1 / width,
            height,
            it.named(size.longest),
            transform=axes.get_yaxis_transform(),
            ha="left" if size.narrow else "right",
            va="bottom" if size.narrow else "center",
            color=TEXT if it.row.status == "valid" else QUIET,
            clip_on=False,
        )
        gid = f"name{it.number}"
        text.set_gid(gid)
        tips[gid] = f"{it.number}: {it.label}"


def array_of(arrays: Mapping[str, NDArray[Any]], row: Row, name: str) -> NDArray[Any] | None:
    """One of a row's arrays; None where it is not there, or empty."""
    found = arrays.get(f"{row.id}/{name}")
    return None if found is None or len(found) == 0 else np.asarray(found)
