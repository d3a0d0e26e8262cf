"""The command `gapcam export`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from gapcam.cli.console import report as say
from gapcam.cli.console import stdout
from gapcam.cli.finite_number import FiniteNumber
from gapcam.contract import Color, Head, HeadKind, Precision, Resize, Scores
from gapcam_export.precision.cli_options import precision_options, take_precision
from gapcam_export.termination import termination_as_interrupt

if TYPE_CHECKING:
    from gapcam_export.report import Report


def _split(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Names separated by commas."""
    del ctx, param
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command("export")
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write, such as model.onnx.")
@click.option("--checkpoint", type=click.Path(), help="Weights to load: .safetensors, or what torch.save wrote.")
@click.option("--pretrained", is_flag=True, help="Let torchvision or timm fetch their own weights (network).")
@click.option("--size", nargs=2, type=int, metavar="H W", help="Height and width of the network's input, in pixels.")
@click.option("--labels", type=click.Path(), help="Class names, one a line. ImageNet-1k's at 1000 classes.")
@click.option("--mean", nargs=3, type=FiniteNumber(), metavar="A B C", help="Per channel, on the scale 0..1.")
@click.option("--std", nargs=3, type=FiniteNumber(), metavar="A B C", help="Per channel, on the scale 0..1.")
@click.option("--resize", type=click.Choice(get_args(Resize)), help="How a frame becomes the network's input.")
@click.option("--color", type=click.Choice(get_args(Color)), help="Channel order that the network wants.")
@click.option("--scores", type=click.Choice(get_args(Scores)), help="What makes scores of the logits.")
@click.option("--embed-preprocessing", is_flag=True, help="Take uint8 [N,H,W,3]: mean and std go into the graph.")
@click.option(
    "--emit",
    callback=_split,
    default="features",
    show_default=True,
    help="Outputs, separated by commas: features (always), maps (all classes'), topk (the best classes').",
)
@click.option("--topk", type=click.IntRange(min=1), default=5, show_default=True, help="Classes that topk gives.")
@click.option("--opset", type=int, help="Version of ONNX's operator set. PyTorch's own choice by default.")
@click.option("--static-batch", is_flag=True, help="Fix the batch at 1 instead of leaving it symbolic.")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="What the network computes in. The options below are for those lower than fp32; docs/precision.md has more.",
)
@click.option("--verify", "verify_folder", type=click.Path(), metavar="DIR", help="Images to verify on.")
@precision_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export_command(
    source: str, output: str, embed_preprocessing: bool, precision: str, as_json: bool, **options: Any
) -> None:
    """Make a model with feature maps from a classifier, and prove that it is right.

    SOURCE is torchvision:NAME, timm:NAME, package.module:factory or path/to/file.py:factory (a callable that returns
    an nn.Module), or an ONNX file of any framework.

    \b
    Examples:
      gapcam export torchvision:resnet18 --pretrained -o model.onnx
      gapcam export timm:mobilenetv4_conv_small --checkpoint weights.safetensors -o model.onnx
      gapcam export train.py:network --checkpoint best.pt --labels names.txt --size 192 256 -o model.onnx
      gapcam export classifier.onnx --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 -o model.onnx
      gapcam export torchvision:resnet18 --pretrained --emit topk --topk 3 --verify photos/ -o model.onnx
      gapcam export torchvision:resnet18 --pretrained --precision int8 --calibrate photos/ -o model.int8.onnx
    """  # noqa: D301  # click reads the backspace character
    lowered = take_precision(precision, options)
    # Bound to what stderr is now, so that the display goes on while PyTorch's chatter is kept from it.
    screen = Console(file=sys.stderr, highlight=False)
    # What a factory prints is not the report.
    with termination_as_interrupt(), redirect_stdout(sys.stderr), screen.status("starting") as status:
        # Here and not above, so that --help answers at once.
        import gapcam_export

        made = gapcam_export.export(
            source,
            output,
            embed=embed_preprocessing,
            precision=lowered,
            progress=StepDisplay(screen, status),
            **options,
        )
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        print_report(made)


class StepDisplay:
    """Says what a command is at: on a terminal in place of what it was at before, else on a line for each step."""

    def __init__(self, screen: Console, status: Status) -> None:
        self._screen, self._status, self._last = screen, status, ""

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """See `gapcam_export.progress.Progress`."""
        if self._screen.is_terminal:
            self._status.update(f"{step}: {done} of {total} ..." if total else f"{step} ...")
        elif step != self._last:
            say(f"{step} ...")
        self._last = step


def print_report(made: Report) -> None:
    """Print what an export did, and what it measured."""
    contract, measured = made.contract, made.contract.verification
    weights = f" ({contract.source.checkpoint})" if contract.source.checkpoint else ""
    about = {
        "source": f"{contract.source.spec}{weights}",
        "head": f"{_head(contract.head)}; features are {contract.head.tapped!r}, {contract.head.layout}",
        "input": "\n".join(map(str, made.inputs)),
        "outputs": "\n".join(map(str, made.outputs)),
        "preprocessing": ", ".join(f"{key} {value}" for key, value in _preprocessing(made).items()),
        "size": f"{made.size_bytes / 1e6:.1f} MB, opset {made.opset}, {contract.precision}",
    }
    table = Table(show_header=False, title=Text(str(made.path)), title_justify="left")
    for name, value in about.items():
        table.add_row(name, Text(value))  # Text, since brackets in a str are markup
    stdout.print(table)

    lowered = contract.precision != "fp32"
    where = ", in float32" if lowered else ""
    proof = Table(title=f"Verified on {measured.images} images{where}", title_justify="left")
    for heading in ("check", "measured", "at most"):
        proof.add_column(heading, justify="left" if heading == "check" else "right")
    against = f"outputs against {measured.reference}"
    which = "all classes" if contract.head.exact else "the best classes"
    now = f", in {contract.precision} on {measured.identity_images} images" if lowered else ""
    checks: list[tuple[str, float, float | None]] = [
        (f"logit = mean(map) + bias, {which} (relative){now}", measured.identity_error, measured.identity_tolerance)
    ]
    if measured.gradient_error is not None:
        checks.append(
            ("rows against the logits' changes (relative)", measured.gradient_error, measured.gradient_tolerance)
        )
    for check, error, limit in (
        *checks,
        (f"{against} (relative)", measured.source_error, measured.source_tolerance),
        (f"{against} (max abs)", measured.source_max_abs, None),
    ):
        proof.add_row(check, f"{error:.1e}", "" if limit is None else f"{limit:.0e}")
    proof.add_row(f"{against} (least cosine)", f"{measured.source_cosine:.7f}", "")
    proof.add_row("same top-1", f"{measured.source_top1:.0%}", "")
    stdout.print(proof)
    if made.search is not None:
        from gapcam_export.precision.tables import print_search

        print_search(made.search)
    if made.fidelity is not None:
        from gapcam_export.comparison.tables import print_fidelity, say_about

        print_fidelity(made.fidelity)
        say_about(made.fidelity)
    for note in made.notes:
        say(f"note: {note}")
    runs_here = contract.precision != "bf16"
    following = f" Next: gapcam run {made.path} photo.jpg -o out/" if runs_here else ""
    say(f"{made.path} was written in {made.seconds:.1f} s.{following}")


def _head(head: Head) -> str:
    exact = "exact per image" if head.kind is HeadKind.LAYERNORM else "exact" if head.exact else "not exact"
    return f"{head.kind.value}, {exact}, scores by {head.scores}"


def _preprocessing(made: Report) -> dict[str, object]:
    preprocessing = made.contract.preprocessing
    shown: dict[str, object] = {"size": "x".join(map(str, preprocessing.size)), "resize": preprocessing.resize}
    if preprocessing.resize == "crop":
        shown["crop_pct"] = round(preprocessing.crop_pct, 4)
    for name in ("interpolation", "color", "mean", "std"):
        value = getattr(preprocessing, name)
        shown[name] = tuple(round(part, 4) for part in value) if isinstance(value, tuple) else value
    return {**shown, **({"in": "the graph"} if preprocessing.embedded else {})}
