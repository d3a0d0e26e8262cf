"""The command `gapcam bench map-cost`: what a map and an overlay cost on this machine, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gapcam.cli.finite_number import FiniteRange
from gapcam_bench.demo_model import DEMO_MODEL, check_exists

if TYPE_CHECKING:
    from rich.console import Console

    from gapcam_bench.map_cost import MapCost


@click.command("map-cost", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path), default=DEMO_MODEL)
@click.option("--rounds", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@click.option(
    "--seconds",
    type=FiniteRange(min=0),
    default=60.0,
    show_default=True,
    help="When to stop before all rounds are done.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def map_cost_command(model: Path, rounds: int, seconds: float, as_json: bool) -> None:
    """Measure what a class activation map costs, on one thread, in this process.

    MODEL is a file made by `gapcam export`; the default is the one that `make demo` writes. The steps run in turn,
    round after round; a ratio is the median over the samples. A missed target does not fail the command.
    """
    check_exists(model)
    # Here, so that --help answers at once.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from gapcam_bench.map_cost import map_cost

    columns = (TextColumn("measuring, round"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rounds", total=rounds)
        found = map_cost(
            model, rounds=rounds, seconds=seconds, after_round=lambda done: progress.update(task, completed=done)
        )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        show(found, Console())


def show(found: MapCost, console: Console) -> None:
    """Print the outcome as two tables under what it was measured on."""
    from rich.table import Table

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
    for note in found.notes:
        console.print(note, highlight=False, soft_wrap=True)
