"""A result as Markdown (GitHub's), to paste into an issue or a README: tables, machine and command."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gapcam.cli.printable import printable
from gapcam_bench.reports.columns import figure_columns, identity_of, stages_of, status_columns
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.words import machine_lines, remarks, run_line
from gapcam_bench.result import BenchResult

_MARKS = re.compile(r"[\\`*_{}\[\]<>|~&#@$]")
_LINKS = re.compile(r"[@#]|://|www\.", re.IGNORECASE)
"""What GitHub makes a mention, a reference or a link of, even where it is written as an entity."""


def markdown_of(result: BenchResult) -> str:
    """The text: rows, their stages, what to know of them, the command, the machine."""
    rows = result.rows
    identity = identity_of(rows)
    columns = [*status_columns(rows), *identity.varying, *figure_columns(rows)]
    parts = []
    if identity.common:
        parts.append("All rows: " + escaped(", ".join(f"{name} {value}" for name, value in identity.common)) + ".")
    if rows:
        cells = [[str(n), *(column.text(row) or "-" for column in columns)] for n, row in enumerate(rows, 1)]
        parts.append(markdown_table([("#", True), *((column.title, column.number) for column in columns)], cells))
    else:
        parts.append("No row was measured.")
    stages = stages_of(rows)
    if stages:
        parts.append("Stages, p50 in ms by the host's clock (each its own median, so that they need not add up):")
        times = [
            [str(n), *(milliseconds(row.wall[it].p50_ms) if it in row.wall else "-" for it in stages)]
            for n, row in enumerate(rows, 1)
            if row.wall
        ]
        parts.append(markdown_table([("#", True), *((stage, True) for stage in stages)], times))
    said = [f"#{number}: {text}" for number, text in remarks(rows)]
    said += [f"not measured: {name}: {why}" for name, why in result.lacking.items()]
    if said:
        parts.append(markdown_list(said))
    parts.append(f"<code>{_entities(result.command)}</code>")
    parts.append(markdown_list([*machine_lines(result.machine), run_line(result)]))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text of which Markdown, HTML and GitHub make nothing but that text, on one line."""
    made = _entities(text)
    return f"<code>{made}</code>" if _LINKS.search(text) else made


def _entities(text: str) -> str:
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", printable(text))


def markdown_table(columns: Iterable[tuple[str, bool]], cells: Iterable[Iterable[str]]) -> str:
    """A table; a column is its title, and whether it is set flush right."""
    titles, numbers = zip(*columns, strict=True)
    lines = [
        [escaped(title) if title != "#" else title for title in titles],
        ["---:" if number else "---" for number in numbers],
        *([escaped(cell) for cell in line] for line in cells),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_list(lines: Iterable[str]) -> str:
    """A list, a line each."""
    return "\n".join(f"- {escaped(line)}" for line in lines)
