"""The command that makes docs/models.md."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from gapcam.atomic_file import check_writable, write_atomically
from gapcam.cli.console import progress_bar, write_line
from gapcam.cli.console import report as say
from gapcam.cli.finite_number import FiniteRange
from gapcam.errors import ExitCode, GapcamError
from gapcam_export.model_table.chosen import Chosen, chosen_models, models_named
from gapcam_export.model_table.page import write_page
from gapcam_export.model_table.processes import Results, make_rows
from gapcam_export.model_table.row import Row, library_versions


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write; stdout by default.")
@click.option("--only", multiple=True, metavar="NAME", help="A model's name or SOURCE; may be repeated.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Models at a time.")
@click.option("--timeout", type=FiniteRange(min=1), default=600, show_default=True, help="Seconds for a model.")
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default="out/models",
    show_default=True,
    help="Rows and logs; a run that was interrupted goes on from there.",
)
@click.option("--fresh", is_flag=True, help="Make all rows anew.")
def main(output: Path | None, only: tuple[str, ...], jobs: int, timeout: float, folder: Path, fresh: bool) -> None:
    """Export every family of torchvision's classifiers and many of timm's, and write a page of what came of it.

    Rows are kept, and made anew only where the code or a library has changed. More than one job at a time makes the
    whole faster, and the seconds in the page larger. With --only, the page has only those models.

    \b
    Examples:
      python -m gapcam_export.model_table --output docs/models.md
      python -m gapcam_export.model_table --only resnet18 --only convnext_tiny
      python -m gapcam_export.model_table --only timm:resnet34 --only train.py:network
      python -m gapcam_export.model_table --output docs/models.md --jobs 2 --fresh

    Exit codes: 0 done, 1 a model took too long, 70 a model ended in a traceback or a crash, which is a bug, 130
    interrupted.
    """  # noqa: D301  # click reads the backspace character
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes are to end with it
    try:
        if output is not None:
            check_writable(output)
        models = models_named(only) if only else chosen_models()
        rows = _rows(models, Results(folder), jobs=jobs, timeout=timeout, fresh=fresh)
        page = write_page(rows, library_versions(), os.cpu_count() or 1)
        if output is None:
            write_line(page)
        else:
            write_atomically(output.resolve(), page.encode())
    except GapcamError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        say(f"error: interrupted; the rows so far are in {folder}, and the same command goes on from there")
        raise SystemExit(ExitCode.INTERRUPTED) from None
    outcomes = {row.outcome for row in rows.values()}
    if outcomes & {"traceback", "crash"}:
        say(f"error: a model ended in a traceback or a crash, which is a bug; the logs are in {folder}")
        raise SystemExit(ExitCode.BUG)
    if "timeout" in outcomes:
        say("error: a model took too long; give it more with --timeout SECONDS")
        raise SystemExit(ExitCode.PARTIAL)


def _rows(models: list[Chosen], results: Results, *, jobs: int, timeout: float, fresh: bool) -> dict[Chosen, Row]:
    """Each model's row, in the models' order; those that are kept are not made again."""
    kept = {} if fresh else {model: row for model in models if (row := results.read(model)) is not None}
    if kept:
        say(f"{len(kept)} of {len(models)} rows are there already (--fresh makes them anew)")
    made: dict[Chosen, Row] = {}
    with progress_bar() as progress:
        task = progress.add_task("models", total=len(models), completed=len(kept))
        for model, row in make_rows([m for m in models if m not in kept], results, jobs=jobs, timeout=timeout):
            if row is None:
                progress.update(task, description=model.name)
                continue
            made[model] = row
            progress.advance(task)
            say(f"  {len(kept) + len(made):3}/{len(models)} {model.source}: {_told(row)}")
    return {model: (kept | made)[model] for model in models}


def _told(row: Row) -> str:
    if row.outcome != "exported":
        return f"{row.outcome}, {row.reason}"
    head = "" if row.head is None else row.head.value
    return f"{head}, {row.seconds:.1f} s"


if __name__ == "__main__":
    main()
