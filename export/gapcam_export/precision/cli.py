"""The command `gapcam quantize`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from gapcam_export.cli import StepDisplay, print_report
from gapcam_export.precision.cli_options import precision_options, take_precision
from gapcam_export.precision.options import LOWER_PRECISIONS
from gapcam_export.termination import termination_as_interrupt


@click.command("quantize")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--precision", type=click.Choice(LOWER_PRECISIONS), default="int8", show_default=True, help="What to compute in."
)
@precision_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def quantize_command(model: Path, output: Path, precision: str, as_json: bool, **options: Any) -> None:
    """Make an int8 model, or one in half precision, of MODEL, and measure what that does to its maps.

    MODEL is a float32 model that gapcam export wrote. Both answer the images of --check (else those of --calibrate),
    and how alike their classes, logits, maps and boxes are is printed, and kept in the file.

    \b
    Examples:
      gapcam quantize model.onnx -o model.int8.onnx --calibrate photos/
      gapcam quantize model.onnx -o model.int8.onnx --calibrate photos/ --check others/ --html report.html
      gapcam quantize model.onnx -o model.int8.onnx --calibrate photos/ --target tensorrt --min-map-iou 0.9
      gapcam quantize model.onnx -o model.fp16.onnx --precision fp16
    """  # noqa: D301  # click reads the backspace character
    chosen = take_precision(precision, options)
    assert chosen is not None  # noqa: S101  # float32 is not among the choices
    # Bound to what stderr is now, so that the display goes on while other packages' chatter is kept from it.
    screen = Console(file=sys.stderr, highlight=False)
    with termination_as_interrupt(), redirect_stdout(sys.stderr), screen.status("starting") as status:
        # Here and not above, so that --help answers at once.
        import gapcam_export

        made = gapcam_export.quantize(model, output, chosen, progress=StepDisplay(screen, status), **options)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        print_report(made)
