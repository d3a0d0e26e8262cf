"""`python -m gapcam_bench.camera [MODEL]`: whether frames get through in time on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from gapcam.cli.finite_number import FiniteRange
from gapcam.errors import ExitCode, GapcamError, ModelError
from gapcam_bench.camera_goals import CASES, CameraGoals, Wanted, camera_goals, missed_in_words
from gapcam_bench.demo_model import DEMO_MODEL, check_exists


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  python -m gapcam_bench.camera
  python -m gapcam_bench.camera --threads 1 --seconds 60 --json
  python -m gapcam_bench.camera --case behind --size 1920x1080""",
)
@click.argument("model", type=click.Path(path_type=Path), default=DEMO_MODEL)
@click.option("--rate", type=FiniteRange(min=0.1), default=15.0, show_default=True, help="Frames a second.")
@click.option("--size", default="1280x720", show_default=True, help="Of the frames, WIDTHxHEIGHT in pixels.")
@click.option(
    "--seconds", type=FiniteRange(min=2), default=20.0, show_default=True, help="How long each case is measured."
)
@click.option("--threads", type=click.IntRange(min=1), help="Of the engine; every physical core by default.")
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, help="Only this one; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def bench_camera(
    model: Path, rate: float, size: str, seconds: float, threads: int | None, cases: tuple[str, ...], as_json: bool
) -> None:
    """Measure how old frames get between a camera and its sinks.

    MODEL is a file made by `gapcam export`; the default is the one that `make demo` writes. The camera is one of exact
    pace, its frames come from memory. A missed goal is said in a line, and the exit code is then 1.
    """
    try:
        check_exists(model)
    except ModelError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    width, x, height = size.partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.BadParameter(f"got {size!r}; give WIDTHxHEIGHT in pixels, say 1280x720", param_hint="--size")
    wanted = Wanted(model, rate, seconds, int(height), int(width), threads, cases or CASES)
    try:
        found = camera_goals(wanted, begins=lambda name: click.echo(f"measuring {name}, {seconds:g} s", err=True))
    except GapcamError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        show(found, Console())
    if missed := missed_in_words(found.cases):
        click.echo(missed, err=True)
        sys.exit(ExitCode.PARTIAL)


def show(found: CameraGoals, console: Console) -> None:
    """Print the outcome: what it was measured on, and of each case its ages, stages and goals."""
    ground = found.environment
    height, width = found.frame
    threads = "every physical core" if found.threads is None else f"{found.threads} threads"
    for line in (
        f"{ground.cpu}, {ground.cores} cores; {ground.system}",
        f"{found.model} on {threads}, frames of {width} x {height}",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    for case in found.cases:
        console.print(
            f"\n{case.name}: {case.fps:.1f} frames a second for {case.seconds:.0f} s: {case.captured} captured, "
            f"{case.explained} explained, {case.dropped} dropped, {case.missed} missed; {case.cpu:.2f} processors busy"
            + ("" if case.others is None else f", {case.others:.2f} by others"),
            highlight=False,
            soft_wrap=True,
        )
        table = Table("", "p50, ms", "p99, ms", "greatest, ms")
        rows = {f"age at {where}": age for where, age in case.ages.items()} | dict(case.stages)
        for name, figures in rows.items():
            table.add_row(name, *(f"{ms:.1f}" for ms in (figures.p50_ms, figures.p99_ms, figures.greatest_ms)))
        goals = Table("goal", "measured", "limit", "")
        for each in case.goals:
            goals.add_row(each.what, f"{each.measured:.1f}", f"{each.limit:.1f}", each.verdict)
        for column in (*table.columns[1:], *goals.columns[1:3]):
            column.justify = "right"
        console.print(table)
        console.print(goals)


if __name__ == "__main__":
    bench_camera(prog_name="python -m gapcam_bench.camera")
