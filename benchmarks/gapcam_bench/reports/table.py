"""A result on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gapcam.cli.printable import printable
from gapcam_bench.reports.columns import Column, Identity, figure_columns, identity_of, stages_of, status_columns
from gapcam_bench.reports.formats import milliseconds
from gapcam_bench.reports.words import cold_words, machine_lines, remarks, run_line, scenario_words
from gapcam_bench.result import BenchResult, Row

_BETWEEN = 2
"""Characters between two columns."""


def show(result: BenchResult, console: Console) -> None:
    """Print a result: the machine, the rows, their stages, and what to know of them.

    Args:
        result: to show.
        console: that it is printed to; at 80 columns it reads as well as at 120 and more.
    """
    for line in (*machine_lines(result.machine), run_line(result)):
        console.print(_text(line), soft_wrap=False)
    rows = result.rows
    if not rows:
        console.print("No row was measured.")
        return
    identity = identity_of(rows)
    if identity.common:
        console.print(_text("All rows: " + ", ".join(f"{name} {value}" for name, value in identity.common)))
    console.print()
    _show_rows(rows, identity, console)
    _show_stages(rows, console)
    _show_list("Scenarios", [(str(n), scenario_words(row)) for n, row in enumerate(rows, 1) if row.scenario], console)
    _show_list(
        "Before the first answer (medians of the processes)",
        [(str(n), cold_words(row.cold)) for n, row in enumerate(rows, 1) if row.cold is not None],
        console,
    )
    _show_list("To know", remarks(rows), console)
    _show_list("Not measured", tuple(result.lacking.items()), console)


def _show_rows(rows: Sequence[Row], identity: Identity, console: Console) -> None:
    """As one table if it fits; else with what tells a row from the others in one column, or in a list before it."""
    status, figures = status_columns(rows), figure_columns(rows)
    together = (Column("row", identity.label, number=False),) if identity.varying else ()
    for naming in (identity.varying, together):
        columns = [*status, *naming, *figures]
        if _width(columns, rows) <= console.width:
            break
    else:
        _show_list("Rows", [(str(number), identity.label(row)) for number, row in enumerate(rows, 1)], console)
        columns = [*status, *figures]
    table = _table()
    table.add_column("#", justify="right")
    for column in columns:
        table.add_column(column.title, justify="right" if column.number else "left", overflow="fold")
    for number, row in enumerate(rows, 1):
        table.add_row(str(number), *(_text(column.text(row) or "-") for column in columns))
    console.print(table)
    console.print()


def _width(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """That a table of these takes."""
    texts = [[column.title, *(printable(column.text(row)) for row in rows)] for column in columns]
    return len(str(len(rows))) + sum(_BETWEEN + max(map(cell_len, column)) for column in texts)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def _show_stages(rows: Sequence[Row], console: Console) -> None:
    """As a table where there is room for one, else as a line a row."""
    stages = stages_of(rows)
    if not stages:
        return
    console.print("Stages, p50 in ms by the host's clock (each its own median, so that they need not add up)")
    if len(str(len(rows))) + sum(max(7, len(stage)) + _BETWEEN for stage in stages) <= console.width:
        table = _table()
        for title in ("#", *stages):
            table.add_column(title, justify="right", no_wrap=True)
        for number, row in enumerate(rows, 1):
            if row.wall:
                times = (milliseconds(row.wall[stage].p50_ms) if stage in row.wall else "-" for stage in stages)
                table.add_row(str(number), *times)
        console.print(table)
        console.print()
    else:
        _show_list("", [(str(n), _in_a_line(row, stages)) for n, row in enumerate(rows, 1) if row.wall], console)
    on_device = stages_of(rows, "device")
    _show_list(
        "Of these by the device's events",
        [
            (str(n), ", ".join(f"{it} {milliseconds(row.device[it].p50_ms)}" for it in on_device if it in row.device))
            for n, row in enumerate(rows, 1)
            if row.device
        ],
        console,
    )


def _in_a_line(row: Row, stages: Sequence[str]) -> str:
    return ", ".join(f"{stage} {milliseconds(row.wall[stage].p50_ms)}" for stage in stages if stage in row.wall)


def _show_list(title: str, entries: Sequence[tuple[str, str]], console: Console) -> None:
    if not entries:
        return
    if title:
        console.print(title)
    width = min(max(len(printable(name)) for name, _ in entries), 24)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=width, justify="left", overflow="fold")
    grid.add_column(overflow="fold")
    for name, text in entries:
        grid.add_row(_text(name), _text(text))
    console.print(Padding(grid, (0, 0, 1, 2), expand=False))


def _text(text: str) -> Text:
    """As it is: brackets in a str would be markup, and control characters commands."""
    return Text(printable(text))
