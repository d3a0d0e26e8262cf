"""What a comparison of two models found, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gapcam.cli.console import report as say
from gapcam.cli.console import stdout
from gapcam_export.comparison.figures import FIGURES
from gapcam_export.comparison.limits import Limit
from gapcam_export.comparison.report import FidelityReport


def print_fidelity(made: FidelityReport, limits: Sequence[Limit] = ()) -> None:
    """Print both models and how alike they are, next to what was asked for."""
    models = Table(title="A, the reference, and B", title_justify="left")
    for heading in ("", "A", "B"):
        models.add_column(heading, overflow="fold")
    for row in _model_rows(made):
        models.add_row(*map(Text, row))  # Text, since brackets in a str are markup
    stdout.print(models)

    measured = made.comparison.figures()
    count = measured["images"]
    agreement = Table(title=f"Agreement on {count} image{'' if count == 1 else 's'}", title_justify="left")
    agreement.add_column("figure")
    headings = ("mean", "worst", *(("at least", "") if limits else ()))
    for heading in headings:
        agreement.add_column(heading, justify="right")
    by_figure = {limit.figure: limit for limit in limits}
    for figure in FIGURES:
        limit = by_figure.get(figure.mean)
        verdict = ("", "") if limit is None else (f"{limit.at_least:g}", "met" if limit.met else "MISSED")
        agreement.add_row(figure.title, *figure.shown(measured), *(verdict if limits else ()))
    stdout.print(agreement)


def say_about(made: FidelityReport) -> None:
    """Say on stderr, a line each, which images were left out, and what to know of the two models."""
    for skipped in made.skipped:
        say(f"skipped {skipped.image}: {skipped.error}")
    for note in made.notes:
        say(f"note: {note}")


def _model_rows(made: FidelityReport) -> list[tuple[str, str, str]]:
    one, two = made.reference, made.other
    sizes = [f"{it.size_bytes / 1e6:.2f} MB" if it.size_bytes is not None else "-" for it in (one, two)]
    rows = [
        ("model", one.name, two.name),
        ("precision", one.precision, two.precision),
        ("head's precision", one.head_precision, two.head_precision),
        ("engine", one.engine, two.engine),
        ("file", sizes[0], sizes[1]),
    ]
    if made.latency is not None:
        first, second = made.latency.reference, made.latency.other
        threads = made.latency.threads
        on = "every physical core" if threads is None else f"{threads} thread{'' if threads == 1 else 's'}"
        rows += [
            (f"inference on {on}, median", f"{first.median_ms:.2f} ms", f"{second.median_ms:.2f} ms"),
            ("inference, p99", f"{first.p99_ms:.2f} ms", f"{second.p99_ms:.2f} ms"),
            (f"speed, {first.count} samples", "1", f"{made.latency.speedup:.2f} times A's"),
        ]
    return rows
