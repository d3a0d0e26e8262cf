"""The command `gapcam bench compare`: which differences of two results are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gapcam.cli.console import stdout, write_line
from gapcam.cli.finite_number import FiniteRange
from gapcam.cli.printable import printable
from gapcam.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from gapcam_bench.result_file import LoadedResult
    from gapcam_bench.statistics.comparison import ComparedRow, Comparison
    from gapcam_bench.statistics.ratio import Ratio

_EXIT = {"passed": ExitCode.DONE, "failed": ExitCode.VERIFICATION, "cannot tell": ExitCode.PARTIAL}
_FILE = click.Path(path_type=Path)
_WIDE = 104
"""Columns of a terminal from which on the table has all its columns."""


@click.command(name="compare")
@click.argument("old", type=_FILE, metavar="OLD.json")
@click.argument("new", type=_FILE, metavar="NEW.json")
@click.option(
    "--limit",
    type=FiniteRange(min=1),
    default=1.05,
    show_default=True,
    metavar="RATIO",
    help="Fail where a row is really slower, by more than so many times.",
)
@click.option(
    "--alpha",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability with which two runs of the same thing may show any difference.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--allow-different-devices", is_flag=True, help="Compare results of two devices, too.")
def compare_command(
    old: Path, new: Path, limit: float, alpha: float, as_json: bool, allow_different_devices: bool
) -> int:
    """Say which differences of two results are real, and which are noise or the machine's.

    Both are what `gapcam bench --json` wrote, with their .npz beside them. Rows of the same combination are compared by
    the raw samples, process by process: at least three rounds on both sides are needed. A difference is real where it
    shows by the clock, and also in units of a fixed piece of work that says how fast the machine was just then.

    The exit code is 4 where something is really slower by more than the limit, where a row that OLD measured failed in
    NEW, or where one no longer answers as the reference backend does. It is 1 where nothing can be told, such as of two
    rounds, or where a server in NEW kept its bound at no rate in more blocks than in OLD, and too few to be sure.
    Otherwise it is 0.

    \b
    Examples:
      gapcam bench compare before.json after.json
      gapcam bench compare before.json after.json --limit 1.1 --json
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    from gapcam_bench.result_file import read_result
    from gapcam_bench.statistics.comparison import compare

    before, after = read_result(old), read_result(new)
    found = compare(before, after, limit=limit, alpha=alpha, allow_different_devices=allow_different_devices)
    if as_json:
        import msgspec

        write_line(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show(found, before, after)
    return _EXIT[found.outcome]


def show(found: Comparison, old: LoadedResult, new: LoadedResult) -> None:
    """Print a comparison on stdout: a table, what to know of its rows, and the verdict."""
    from gapcam_bench.reports.columns import identity_of

    rows = {row.id: row for row in (*old.result.rows, *new.result.rows)}
    labels = identity_of(list(rows.values()))
    for phrase in found.devices:
        _say(f"Different devices! {phrase}")
    for phrase in found.software:
        _say(f"Changed: {phrase}")
    if found.yardstick is not None:
        _say(f"The machine: a fixed piece of work took {_ratio(found.yardstick)} times as long in NEW as in OLD")
    if labels.common:
        _say("All rows: " + ", ".join(f"{name} {value}" for name, value in labels.common))
    for number, row in enumerate(found.rows, 1):
        _say(f"{number}: {labels.label(rows[row.new])}")
    stdout.print(_table(found.rows))
    for phrase, numbers in _remarks(found.rows).items():
        _say(f"{', '.join(numbers)}: {phrase}")
    for name, ids, other_name, other in (
        ("OLD", found.only_old, "NEW", new.result),
        ("NEW", found.only_new, "OLD", old.result),
    ):
        there = {row.id: f" ({row.status} in {other_name}: {'; '.join(row.reasons)})" for row in other.rows}
        for row_id in ids:
            _say(f"Only in {name}: {labels.label(rows[row_id])}{there.get(row_id, '')}")
    _say(found.verdict)


def _table(rows: Sequence[ComparedRow]) -> Table:
    """On a terminal of 80 columns without p."""
    from rich import box
    from rich.table import Table

    wide = stdout.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1 if wide else 0, 0, 1))
    for title in ("", "time", "OLD ms", "NEW ms", "NEW / OLD", "in yardsticks" if wide else "yardst.", *["p"] * wide):
        table.add_column(title, justify="left" if title == "time" else "right", no_wrap=title != "time")
    table.add_column("")
    for number, row in enumerate(rows, 1):
        for place, each in enumerate(row.differences):
            scaled = each.in_yardsticks
            table.add_row(
                "" if place else str(number),
                each.time.removesuffix(" of the total"),
                "none" if math.isinf(each.old_ms) else f"{each.old_ms:.4g}",
                "none" if math.isinf(each.new_ms) else f"{each.new_ms:.4g}",
                _ratio(each.ratio),
                "" if scaled is None else _ratio(scaled) if wide else f"{scaled.ratio:.3f}",
                *(["" if each.p is None else f"{each.p:.2g}"] if wide else []),
                "TOO SLOW" if each.past_limit else each.verdict.removesuffix(" found"),
            )
    return table


def _remarks(rows: Sequence[ComparedRow]) -> dict[str, list[str]]:
    """What to know, and of which rows."""
    said: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        whys: dict[str, list[str]] = {}
        for each in row.differences:
            if each.why:
                whys.setdefault(each.why, []).append(each.time)
        phrases = [f"{' and '.join(times)}: {why}" for why, times in whys.items()]
        phrases += row.notes
        if not row.differences:
            phrases.append("one of the results has no samples of it")
        for phrase in phrases:
            said.setdefault(phrase, []).append(str(number))
    return said


def _say(line: str) -> None:
    stdout.print(printable(line), markup=False)


def _ratio(ratio: Ratio) -> str:
    if ratio.ratio in (0, math.inf):
        return "-"
    if math.isinf(ratio.ci_high):
        return f"{ratio.ratio:.3f} (any)"
    return f"{ratio.ratio:.3f} ({ratio.ci_low:.3f}-{ratio.ci_high:.3f})"
