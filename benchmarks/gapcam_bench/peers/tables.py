"""The comparison as tables: on a terminal, and as Markdown for a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapcam.cli.printable import printable
from gapcam_bench.cell import GAPCAM
from gapcam_bench.peers.comparison import Group, Line, in_doubt, legend
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.markdown import escaped, markdown_list, markdown_table
from gapcam_bench.reports.words import machine_lines, run_line, status_word
from gapcam_bench.result import BenchResult

STAGES = {"preprocess": "input", "inference": "network", "cam": "map", "overlay": "draw"}
"""Columns by the stages that peers have."""

TITLES = ("way", "ms", "x gapcam", "95 %", *STAGES.values(), "agrees")
"""p50 of the total; in units of gapcam's, with its interval; p50 of the stages; least correlation with gapcam's map."""

_TOO_NARROW = "Fewer than three rounds: the intervals do not know how processes differ, and are too narrow."
_FIGURE = re.compile(r"\d+(\.\d+)?")


def cells_of(line: Line) -> tuple[str, ...]:
    """A line's cells, as `TITLES` has them; "-" where there is nothing."""
    row = line.row
    marks = [status_word(row)] if row.status != "valid" else []
    marks += ["DIFFERS"] if line.differs else []
    name = f"{line.name} ({', '.join(marks)})" if marks else line.name
    total = milliseconds(row.wall["total"].p50_ms) if "total" in row.wall else "-"
    stages = (milliseconds(row.wall[stage].p50_ms) if stage in row.wall else "-" for stage in STAGES)
    return name, total, *_ratio_texts(line), *stages, _agreement(line)


def to_know(groups: Sequence[Group]) -> tuple[str, ...]:
    """What a reader must know of rows, each kind of thing once, after the ways that it is said of.

    Why a row is not valid is said without its figures: those are in the report of all rows, and in the JSON.
    """
    said: dict[str, dict[str, list[tuple[str, str]]]] = {}  # by the sentence without its figures, and by the sentence
    for group in groups:
        for line in group.lines:
            for sentence in _said_of(line):
                kind = said.setdefault(_FIGURE.sub("", sentence), {})
                kind.setdefault(sentence, []).append((line.name, group.title))
    lines = []
    for kind in said.values():
        first, *others = kind
        of = [each for sentences in kind.values() for each in sentences]
        lines.append(f"{_whom(of, groups)}: {first}{'; likewise with other figures' if others else ''}")
    return (*lines, _TOO_NARROW) if _too_few_rounds(groups) else tuple(lines)


def _said_of(line: Line) -> Iterator[str]:
    """Sentences about one row."""
    row = line.row
    if row.status in ("invalid", "interrupted"):
        kinds = dict.fromkeys(reason.partition(": ")[0] for reason in row.reasons)
        yield from (f"{status_word(row)}: {kind}" for kind in kinds)
    elif row.status != "valid":
        yield f"{status_word(row)}: {'; '.join(row.reasons) or 'no reason is given'}"
    if line.differs:
        yield "its answers DIFFER from the reference's, and its time is compared with nobody's"
    yield from row.notes


def _whom(of: Sequence[tuple[str, str]], groups: Sequence[Group]) -> str:
    """Ways, each with the groups in which something is said of it, where that is not in all of its groups."""
    rows = [(line.name, group.title) for group in groups for line in group.lines]
    if len(of) == len(rows):
        return "all rows"
    words = []
    for name in dict.fromkeys(name for name, _ in of):
        titles = [title for each, title in of if each == name]
        everywhere = len(titles) == sum(each == name for each, _ in rows)
        words.append(name if everywhere else f"{name} ({'; '.join(titles)})")
    return "; ".join(words)


def show(groups: Sequence[Group], console: Console) -> None:
    """Print the tables, after the report that says all about the rows."""
    for group in groups:
        console.print()
        console.print(Text(printable(group.title)))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for title in TITLES:
            table.add_column(title, justify="left" if title == "way" else "right", overflow="fold")
        for line in group.lines:
            table.add_row(*(Text(printable(cell)) for cell in cells_of(line)))
        console.print(table)
    console.print()
    if _too_few_rounds(groups):
        console.print(_TOO_NARROW)


def markdown(result: BenchResult, groups: Sequence[Group]) -> str:
    """The tables, what the names stand for, the command and the machine; first, what puts all of it in doubt."""
    doubt = in_doubt(groups)
    parts = [] if doubt is None else [f"> Not to be relied on: {escaped(doubt)}."]
    for group in groups:
        parts.append(f"**{escaped(group.title.capitalize())}**")
        columns = [(title, title != TITLES[0]) for title in TITLES]
        parts.append(markdown_table(columns, map(cells_of, group.lines)))
    said = [f"{name}: {what}" for name, what in legend(groups)]
    said += to_know(groups)
    parts.append(markdown_list(said))
    parts.append("Measured by")
    parts.append(f"```sh not-run\n{printable(result.command)}\n```")
    parts.append(markdown_list([*machine_lines(result.machine), run_line(result)]))
    return "\n\n".join(parts) + "\n"


def _too_few_rounds(groups: Sequence[Group]) -> bool:
    return any(line.ratio is not None and not line.ratio.between_processes for group in groups for line in group.lines)


def _ratio_texts(line: Line) -> tuple[str, str]:
    """The ratio, and its interval."""
    ratio = line.ratio
    if ratio is None:
        return ("1" if line.name == GAPCAM and line.row.wall and not line.differs else "-"), "-"
    if not math.isfinite(ratio.ci_high):  # of one or two samples
        return f"{ratio.ratio:.2f}", "-"
    return f"{ratio.ratio:.2f}", f"{ratio.ci_low:.2f}-{ratio.ci_high:.2f}"


def _agreement(line: Line) -> str:
    parity = line.row.parity
    if parity is None or parity.map_correlation is None:
        return "-"
    # Rounded down: 1.0000 is said of nothing that is less.
    return f"{math.floor(parity.map_correlation * 1e4) / 1e4:.4f}"
