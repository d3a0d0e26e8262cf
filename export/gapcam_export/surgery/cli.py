"""The command `gapcam gap`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gapcam.cli.console import report as say
from gapcam.cli.console import stdout
from gapcam.cli.finite_number import FiniteNumber
from gapcam.contract import Color, Resize
from gapcam_export.cli import StepDisplay
from gapcam_export.termination import termination_as_interrupt

if TYPE_CHECKING:
    from gapcam_export.surgery.report import SurgeryReport

_LAYERS_SHOWN = 8
_INITIAL = {
    "kept": "the old head's own weights and bias",
    "fitted": "least squares on the old network's logits",
    "random": "random: fine-tune it",
}


@click.command("gap")
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(), help="The file to write, such as gapnet.pt2.")
@click.option("--preset", metavar="NAME", help="A recipe of Zhou et al. 2016: alexnet, vgg16 or googlenet.")
@click.option("--conv", type=int, metavar="CHANNELS", help="Units of a 3x3 convolution before the pooling; 0: none.")
@click.option("--groups", type=int, default=1, show_default=True, help="Of that convolution.")
@click.option(
    "--dropout", type=FiniteNumber(), default=0.0, show_default=True, help="Before the linear layer, in training."
)
@click.option("--stride", type=int, help="Of the maps in pixels: later strides become dilation, weights stay.")
@click.option("--cut-stride", type=int, help="Cut after the last maps of this stride, not after the last of all.")
@click.option("--size", nargs=2, type=int, metavar="H W", help="Height and width of the network's input, in pixels.")
@click.option("--classes", type=int, metavar="K", help="New classes, for a random linear layer.")
@click.option("--labels", type=click.Path(), help="Class names, one a line.")
@click.option("--mean", nargs=3, type=FiniteNumber(), metavar="A B C", help="Per channel, on the scale 0..1.")
@click.option("--std", nargs=3, type=FiniteNumber(), metavar="A B C", help="Per channel, on the scale 0..1.")
@click.option("--resize", type=click.Choice(get_args(Resize)), help="How a frame becomes the network's input.")
@click.option("--color", type=click.Choice(get_args(Color)), help="Channel order that the network wants.")
@click.option("--checkpoint", type=click.Path(), help="Weights to load: .safetensors, or what torch.save wrote.")
@click.option("--pretrained", is_flag=True, help="Let torchvision or timm fetch their own weights (network).")
@click.option("--calibrate", type=click.Path(), metavar="DIR", help="Photographs to fit the new head on.")
@click.option("--views", type=int, default=8, show_default=True, help="Random crops of each photograph for the fit.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def gap_command(source: str, output: str, as_json: bool, **options: Any) -> None:
    """Make a GAP network of any classifier in PyTorch, which gapcam export takes.

    SOURCE is torchvision:NAME, timm:NAME, package.module:factory, path/to/file.py:factory, or an exported program
    network.pt2. It is cut after its last feature maps; global average pooling and one linear layer come in place of
    what followed.

    \b
    Examples:
      gapcam gap torchvision:alexnet --pretrained --preset alexnet --calibrate photos/ -o gapnet.pt2
      gapcam gap torchvision:mobilenet_v3_small --pretrained --calibrate photos/ -o gapnet.pt2
      gapcam gap torchvision:resnet18 --pretrained --stride 16 -o gapnet.pt2
      gapcam gap timm:vgg11 --checkpoint vgg11.safetensors --conv 512 --classes 10 -o gapnet.pt2
    """  # noqa: D301  # click reads the backspace character
    # Bound to what stderr is now, so that the display goes on while PyTorch's chatter is kept from it.
    screen = Console(file=sys.stderr, highlight=False)
    # What a factory prints is not the report.
    with termination_as_interrupt(), redirect_stdout(sys.stderr), screen.status("starting") as status:
        # Here and not above, so that --help answers at once.
        import gapcam_export

        made = gapcam_export.gap_surgery(source, output, progress=StepDisplay(screen, status), **options)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        _print(made)
    if made.path is not None:
        say(f"{made.path} was written in {made.seconds:.1f} s.")
        exported = made.path.with_suffix(".onnx")
        say(f"Next: gapcam finetune {made.path} --data DIR -o tuned/, or gapcam export {made.path} -o {exported}")


def _print(made: SurgeryReport) -> None:
    recipe = f", preset {made.preset}" if made.preset else ""
    changes = Table(show_header=False, title=Text(f"{made.source}{recipe}"), title_justify="left")
    changes.add_row("cut after", Text(made.cut_after))
    changes.add_row("went", Text("\n".join(_some(made.removed))))
    changes.add_row("came", Text("\n".join(made.added)))
    changes.add_row("linear layer", Text(_INITIAL[made.initial]))
    stdout.print(changes)

    before, after = made.before, made.after
    costs = Table(title="What it costs", title_justify="left")
    for heading in ("", "before", "after", "ratio"):
        costs.add_column(heading, justify="right" if heading else "left")
    costs.add_row("input, pixels", _by(before.size), _by(after.size), "")
    costs.add_row("last maps", _maps(before.features), _maps(after.features), "")
    for name, old, new, unit, scale in (
        ("parameters", before.parameters, after.parameters, "M", 1e6),
        ("FLOPs an image", before.flops, after.flops, "G", 1e9),
        ("weights in memory", before.weights_bytes, after.weights_bytes, "MB", 1e6),
    ):
        costs.add_row(name, f"{old / scale:.2f} {unit}", f"{new / scale:.2f} {unit}", f"{new / old:.2f}")
    if made.file_bytes:
        costs.add_row("the .pt2 file", "", f"{made.file_bytes / 1e6:.2f} MB", "")
    stdout.print(costs)

    if made.agreement is not None:
        agrees = Table(show_header=False, title="Agreement with the old network", title_justify="left")
        agrees.add_row("measured on", Text(made.agreement_on))
        agrees.add_row("same top-1", f"{made.agreement.top1:.0%}")
        agrees.add_row("correlation of the logits", f"{made.agreement.correlation:.4f}")
        agrees.add_row("relative error of the logits", f"{made.agreement.relative_error:.1e}")
        stdout.print(agrees)
    for note in made.notes:
        say(f"note: {note}")


def _some(layers: tuple[str, ...]) -> tuple[str, ...]:
    more = len(layers) - _LAYERS_SHOWN
    return layers if more <= 1 else (*layers[:_LAYERS_SHOWN], f"and {more} more")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _maps(features: tuple[int, int, int]) -> str:
    return f"{features[0]} of {features[1]}x{features[2]}"
