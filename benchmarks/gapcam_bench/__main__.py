"""`python -m gapcam_bench [MODEL]`: what a map and an overlay cost on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gapcam.errors import ExitCode, GapcamError
from gapcam_bench.map_cost import MapCost, map_cost

DEFAULT_MODEL = Path("out/demo/model.onnx")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path), default=DEFAULT_MODEL)
@click.option("--rounds", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="When to stop before all rounds are done.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def bench(model: Path, rounds: int, seconds: float, as_json: bool) -> None:
    """Measure what a class activation map costs, on one thread.

    MODEL is a file made by `gapcam export`; the default is the one that `make demo` writes. The steps run in turn,
    round after round, in one run; a ratio is the median over the samples. A missed target does not fail the command.
    """
    if not model.exists():
        again = "run make demo first" if model == DEFAULT_MODEL else "make it with gapcam export"
        click.echo(f"There is no {model}: {again}.", err=True)
        sys.exit(ExitCode.MODEL)
    columns = (TextColumn("measuring, round"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("rounds", total=rounds)
            found = map_cost(
                model, rounds=rounds, seconds=seconds, after_round=lambda done: progress.update(task, completed=done)
            )
    except GapcamError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        show(found, Console())


def show(found: MapCost, console: Console) -> None:
    """Print the outcome as two tables under what it was measured on."""
    ground = found.environment
    versions = ", ".join(f"{name} {version}" for name, version in ground.versions.items())
    height, width = found.frame
    for line in (
        f"{ground.cpu}, {ground.cores} cores, of which 1 is used; {ground.system}",
        f"Python {ground.python}, {versions}",
        f"{found.model}, frame {width} x {height}, {found.samples} samples of each step",
    ):
        console.print(line, highlight=False, soft_wrap=True)

    steps = Table("step", "median, ms", "p99, ms")
    for name, figures in found.latency.items():
        steps.add_row(name, f"{figures.median_ms:.2f}", f"{figures.p99_ms:.2f}")
    compared = Table("ratio", "measured", "target", "")
    for ratio in found.ratios:
        target = "" if ratio.target is None else f"at most {ratio.target:g}"
        compared.add_row(f"{ratio.step} / {ratio.unit}", f"{ratio.ratio:.3f}", target, ratio.verdict or "")
    for table in (steps, compared):
        for column in table.columns[1:3]:
            column.justify = "right"
        console.print(table)


if __name__ == "__main__":
    bench(prog_name="python -m gapcam_bench")
