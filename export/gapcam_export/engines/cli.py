"""The command `gapcam build`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gapcam.cli.console import report as say
from gapcam.cli.console import stdout
from gapcam.cli.printable import all_printable, printable
from gapcam.engine_file import BuildOptions, EngineHeader, EngineRuntime, HardwareCompatibility
from gapcam_export.engines.options import LEVELS, batch_from_text, sizes_from_text, targets_from_text
from gapcam_export.termination import termination_as_interrupt

if TYPE_CHECKING:
    from gapcam_export.engines.report import BuildReport

_SECONDS_BETWEEN_LINES = 15
"""Where a build's progress is no bar but lines, in a log."""

_COMPATIBLE = tuple(choice for choice in get_args(HardwareCompatibility) if choice != "none")


@click.command("build")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--runtime", type=click.Choice(get_args(EngineRuntime)), help="What will run it. The first installed by default."
)
@click.option("--targets", metavar="86,89", help="Compute capabilities to build for (TensorRT-RTX).")
@click.option("--batch", default="1", show_default=True, metavar="N|MIN:OPT:MAX", help="Images at a time: up to N.")
@click.option("--size", metavar="HxW|MIN:OPT:MAX", help="Height and width, of models that leave them open.")
@click.option("--level", type=click.IntRange(LEVELS[0], LEVELS[-1]), help="How hard TensorRT tries.")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Most scratch memory of a layer.")
@click.option("--no-tf32", is_flag=True, help="Compute float32 in full, not with TF32's 10 bits of mantissa.")
@click.option("--keep-maps", is_flag=True, help="Keep the output maps of every class, if the model has it.")
@click.option("--version-compatible", is_flag=True, help="For later TensorRT versions of the same major version, too.")
@click.option(
    "--hardware-compatible", type=click.Choice(_COMPATIBLE), default=None, help="For other GPUs than this one, too."
)
@click.option("--dla", type=click.IntRange(min=0), metavar="CORE", help="Jetson: what a Deep Learning Accelerator can.")
@click.option("--no-timing-cache", is_flag=True, help="Neither use nor keep what TensorRT measures.")
@click.option("--rebuild", is_flag=True, help="Replace the file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build_command(
    model: Path, output: Path, runtime: EngineRuntime | None, rebuild: bool, as_json: bool, **options: Any
) -> None:
    """Build a TensorRT engine of MODEL, an ONNX file of gapcam export or gapcam quantize.

    An engine is for one TensorRT version and the GPU that it is built on, or, with TensorRT-RTX, for the GPUs of
    --targets, which need not be here. It computes in MODEL's precision. Where the file is there and is what would be
    built, nothing is done.

    \b
    Examples:
      gapcam build model.onnx -o model.engine
      gapcam build model.int8.onnx -o model.engine --batch 1:1:4 --workspace 2048
      gapcam build model.onnx -o model.engine --runtime tensorrt-rtx --targets 86,89
      gapcam build model.onnx -o model.engine --rebuild --json
    """  # noqa: D301  # click reads the backspace character
    chosen = _options(options)
    with termination_as_interrupt(), _display() as display:
        # Here and not above, so that --help answers at once.
        import gapcam_export

        made = gapcam_export.build(
            model,
            output,
            chosen,
            runtime=runtime,
            rebuild=rebuild,
            timing_cache=not options["no_timing_cache"],
            progress=display,
        )
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        _print(made)


def _options(given: dict[str, Any]) -> BuildOptions:
    return BuildOptions(
        batch=batch_from_text(given["batch"]),
        sizes=None if given["size"] is None else sizes_from_text(given["size"]),
        level=given["level"],
        workspace_mib=given["workspace"],
        tf32=not given["no_tf32"],
        maps=given["keep_maps"],
        version_compatible=given["version_compatible"],
        hardware_compatibility=given["hardware_compatible"] or "none",
        targets=() if given["targets"] is None else targets_from_text(given["targets"]),
        dla_core=given["dla"],
    )


class _Display:
    """A bar with percents on a terminal; elsewhere a line for each step, and for a long build now and then."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("starting", total=None)
        self._step, self._time = "", 0.0

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """See `gapcam_export.progress.Progress`."""
        step = printable(step)  # TensorRT's phases name layers, which the model's author has named
        self._bar.update(self._task, description=step, completed=done, total=total or None)
        if not self._bar.disable:
            return
        name, now = step.partition(":")[0], time.monotonic()
        if name != self._step:
            say(f"{step} ...")
        elif total and now - self._time > _SECONDS_BETWEEN_LINES:
            say(f"{step}, {100 * done // total} % ...")
        else:
            return
        self._step, self._time = name, now


@contextmanager
def _display() -> Iterator[_Display]:
    screen = Console(file=sys.stderr, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        yield _Display(bar)


def _print(made: BuildReport) -> None:
    header = msgspec.convert(all_printable(msgspec.to_builtins(made.header)), EngineHeader)
    table = Table(show_header=False, title=Text(printable(str(made.path))), title_justify="left")
    for name, value in _rows(header).items():
        table.add_row(name, Text(value))
    table.add_row("size", f"{made.size_bytes / 1e6:.1f} MB")
    stdout.print(table)
    for note in made.notes:
        say(f"note: {note}")
    if made.built:
        say(f"{made.path} was built in {made.seconds:.1f} s.")


def _rows(header: EngineHeader) -> dict[str, str]:
    from gapcam.tensorrt_module import TITLES

    on = f", on {header.device}" if header.device else ""
    shapes = [
        f"{name} {' to '.join(dict.fromkeys((_shape(shape.min), _shape(shape.max))))}, tuned for {_shape(shape.opt)}"
        for profile in header.profiles
        for name, shape in profile.items()
    ]
    targets = ", ".join(target.replace("+", " and later") for target in header.targets)
    precision = header.precision
    return {
        "model": f"{header.model}, sha256 {header.model_sha256[:16]}...",
        "runtime": f"{TITLES[header.runtime]} {header.runtime_version}, {header.platform}{on}",
        "runs on": targets,
        "input": "\n".join(shapes or [f"{tensor.name} {_shape(tensor.shape)}" for tensor in header.inputs]),
        "outputs": "\n".join(f"{tensor.name} {_shape(tensor.shape)} {tensor.dtype}" for tensor in header.outputs),
        "layers parsed": _counts(precision.network),
        "layers built": _counts(precision.engine) if precision.engine else f"not read back: {precision.not_read}",
    }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} in {precision}" for precision, count in counts.items()) or "none"


def _shape(sides: tuple[int | None, ...]) -> str:
    return "[" + ",".join("N" if side is None else str(side) for side in sides) + "]"
