"""What a report's tables have in their columns: what tells the rows apart, and the figures that they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from gapcam_bench.cell import GAPCAM
from gapcam_bench.reports.formats import FAR, a_second, half_width, is_far, milliseconds, plus_minus
from gapcam_bench.reports.words import status_word
from gapcam_bench.result import BESIDES, Row
from gapcam_bench.statistics.figures import Figures
from gapcam_bench.subjects.protocol import STAGES

UNEXPLAINED = "unexplained"
_LONGEST_NAME = 18
_JUDGED_BY = {"server": "latency", "camera": "age"}
"""What p50 and p99 are of, where a frame's own time is not what the scenario asks for."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: with the unit.
        text: what stands in it for a row; "" where the row has no such figure.
        number: whether it is set flush right.
    """

    title: str
    text: Callable[[Row], str]
    number: bool = True


@dataclass(frozen=True)
class Identity:
    """What the rows are of.

    Attributes:
        varying: the columns in which rows differ.
        common: names and values of all the others.
    """

    varying: tuple[Column, ...]
    common: tuple[tuple[str, str], ...]

    def label(self, row: Row) -> str:
        """A row in few words: what tells it from the others, or its model where there are no others."""
        return " · ".join(named(column, row) for column in self.varying) or PurePath(row.cell.model).name

    def short_labels(self, rows: Sequence[Row]) -> list[str]:
        """The same with long names cut in the middle, where they still tell all that they told before."""
        short = [" · ".join(_cut(named(column, row)) for column in self.varying) or self.label(row) for row in rows]
        labels = [self.label(row) for row in rows]
        return short if len(set(short)) == len(set(labels)) else labels


def identity_of(rows: Sequence[Row]) -> Identity:
    """Divide what a cell is made of into what tells these rows apart and what is the same for all of them."""
    models = {row.cell.model for row in rows}
    whole = len({PurePath(model).name for model in models}) < len(models)  # the same name in two folders
    columns = (
        Column("model", lambda row: row.cell.model if whole else PurePath(row.cell.model).name, number=False),
        Column("by", lambda row: row.cell.subject, number=False),
        Column("device", lambda row: row.cell.device, number=False),
        Column("precision", _precision, number=False),
        Column("emit", lambda row: row.cell.emit, number=False),
        Column("batch", lambda row: str(row.cell.batch)),
        Column("frame", lambda row: f"{row.cell.frame[1]}x{row.cell.frame[0]}"),
        Column("threads", lambda row: "all" if row.cell.threads is None else str(row.cell.threads)),
        Column("scenario", lambda row: row.cell.scenario, number=False),
        Column("with", lambda row: "+".join(row.cell.work) or "-", number=False),
    )
    varying = tuple(column for column in columns if len({column.text(row) for row in rows}) > 1)
    with_map = [row for row in rows if row.cell.emit != "plain"]
    if _only_for_want_of_a_map(rows, with_map):
        varying = varying[:-1]
    common = tuple(
        (column.title, column.text((with_map or rows)[0]))
        for column in columns
        if rows and column not in varying and not (column.title == "by" and rows[0].cell.subject == GAPCAM)
    )
    return Identity(varying, common)


def _only_for_want_of_a_map(rows: Sequence[Row], with_map: Sequence[Row]) -> bool:
    """Whether rows differ in their work only because a plain row has no map to draw, which its `emit` says already."""
    different = len({row.cell.work for row in rows}) > 1
    return different and len({row.cell.work for row in with_map}) == 1 and len({_decodes(row) for row in rows}) == 1


def _decodes(row: Row) -> bool:
    return "decode" in row.cell.work


def named(column: Column, row: Row) -> str:
    """A value that says what it is, where the value alone would not."""
    return f"{column.title} {column.text(row)}" if column.title in ("batch", "threads") else column.text(row)


def judged(row: Row) -> Figures | None:
    """The times that the row's scenario is judged by: of a frame, or from its arrival on; None where there are none."""
    return row.wall.get(judged_stage(row))


def judged_stage(row: Row) -> str:
    """Their name: "total", for a server "latency", for a camera "age"."""
    stage = _JUDGED_BY.get(row.cell.scenario, "total")
    return stage if stage in row.wall else "total"


def stages_of(rows: Sequence[Row], clock: str = "wall") -> tuple[str, ...]:
    """The stages that any of these rows has, in the order of the data, and the remainder that no stage explains."""
    found = dict.fromkeys(stage for row in rows for stage in (row.wall if clock == "wall" else row.device))
    of_others = (stage for stage in found if stage not in STAGES and stage not in BESIDES)  # a peer's own
    remainder = (UNEXPLAINED,) if UNEXPLAINED in found else ()
    return (*(stage for stage in STAGES if stage in found), *of_others, *remainder)


def status_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The rows' states, where not all of them are valid."""
    return (Column("status", status_word, number=False),) if any(row.status != "valid" for row in rows) else ()


def figure_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The figures; one that no row has is left out."""
    columns = (
        Column("p50 ms", _of_judged(lambda it: milliseconds(it.p50_ms))),
        Column("± ms", _plus_minus),
        Column("p99 ms", _of_judged(lambda it: milliseconds(it.p99_ms))),
        Column("frames/s", lambda row: "" if row.scenario is None else a_second(row.scenario.frames_a_second)),
        Column("map's price", _price),
        Column("mJ/frame", lambda row: "" if row.energy is None else f"{row.energy.millijoules_a_frame:.1f}"),
        Column("parity", parity, number=False),
        Column("fidelity", fidelity, number=False),
    )
    return tuple(column for column in columns if any(column.text(row) for row in rows))


def parity(row: Row) -> str:
    """Whether a row's answers are the reference backend's; a row that was measured unchecked is marked."""
    if row.parity is None:
        return "UNCHECKED" if row.wall else ""
    return "holds" if row.parity.holds else "DIFFERS"


def fidelity(row: Row) -> str:
    """How alike answers are with the reference model's: the share of the same best classes, the least map correlation.

    Parity says that a file is computed rightly; a file that was made in another precision may still answer otherwise
    than the model that it was made of.
    """
    found = row.fidelity
    if found is None:
        return ""
    return f"{found.top1:.0%}" + ("" if found.map_correlation is None else f" {found.map_correlation:.3f}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 8]}…{text[-7:]}"


def _of_judged(text: Callable[[Figures], str]) -> Callable[[Row], str]:
    def of(row: Row) -> str:
        figures = judged(row)
        return "" if figures is None else text(figures)

    return of


def _plus_minus(row: Row) -> str:
    """Of the median, with a question mark where only one process was measured."""
    figures = judged(row)
    said = "" if figures is None else plus_minus(figures.p50_ms, figures.p50_ci_ms)
    return f"{said} ?" if said and row.blocks == 1 else said


def _price(row: Row) -> str:
    """With the wider side of its interval, and a question mark where it should not be relied on."""
    price = row.price
    if price is None:
        return ""
    ratio, interval = price.inference, price.inference_ci
    width = f"> {FAR:g}x" if is_far(ratio, interval) else f"{half_width(ratio, interval):.3f}"
    return f"{ratio:.3f}x ± {width}{' ?' if price.doubts else ''}"


def _precision(row: Row) -> str:
    read = None if row.model is None else row.model.precision
    asked = row.cell.precision
    if asked == "as-is":
        return read or asked
    return asked if read in (None, asked) else f"{asked}, reads as {read}"
