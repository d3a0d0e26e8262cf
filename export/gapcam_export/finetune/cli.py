"""The command `gapcam finetune`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.table import Table
from rich.text import Text

from gapcam.cli.console import report as say
from gapcam.cli.console import stdout
from gapcam.cli.finite_number import FiniteNumber
from gapcam.errors import ExitCode, UsageError
from gapcam_export.finetune.settings import Accelerator, Augment, Hardware, Monitor, Precision, Settings
from gapcam_export.termination import termination_as_interrupt

if TYPE_CHECKING:
    from gapcam_export.finetune.report import Report

_DEFAULT = Settings()


@click.command("finetune")
@click.argument("network", type=click.Path())
@click.option("--data", required=True, type=click.Path(), metavar="DIR", help="train/CLASS and val/CLASS, or CLASS.")
@click.option("-o", "--output", required=True, type=click.Path(), metavar="DIR", help="The folder to write to.")
@click.option("--original", metavar="SOURCE", help="The network before its surgery, to compare with.")
@click.option("--original-checkpoint", type=click.Path(), metavar="FILE", help="Its weights.")
@click.option("--original-pretrained", is_flag=True, help="Let torchvision or timm fetch its weights (network).")
@click.option("--epochs", type=int, default=_DEFAULT.epochs, show_default=True, help="At most, in both phases.")
@click.option("--frozen-epochs", type=int, default=_DEFAULT.frozen_epochs, show_default=True, help="Of the head alone.")
@click.option("--batch", type=int, default=_DEFAULT.batch, show_default=True, help="Images a step, on all devices.")
@click.option("--lr", type=FiniteNumber(), default=_DEFAULT.lr, show_default=True, help="Learning rate of the head.")
@click.option("--backbone-lr", type=FiniteNumber(), default=_DEFAULT.backbone_lr, show_default=True, help="Times --lr.")
@click.option("--weight-decay", type=FiniteNumber(), default=_DEFAULT.weight_decay, show_default=True, help="AdamW's.")
@click.option(
    "--label-smoothing", type=FiniteNumber(), default=_DEFAULT.label_smoothing, show_default=True, help="In [0, 1)."
)
@click.option("--patience", type=int, default=_DEFAULT.patience, show_default=True, help="Epochs without a better one.")
@click.option("--monitor", type=click.Choice(get_args(Monitor)), default=_DEFAULT.monitor, show_default=True,
              help="What is better: less validation loss, or more top-1.")  # fmt: skip
@click.option("--augment", type=click.Choice(get_args(Augment)), default=_DEFAULT.augment, show_default=True,
              help="Random crops and colours.")  # fmt: skip
@click.option("--no-flip", is_flag=True, help="Mirror no images: for digits and text.")
@click.option("--train-batch-norm", is_flag=True, help="Let BatchNorm learn statistics with the backbone.")
@click.option(
    "--val-fraction", type=FiniteNumber(), default=_DEFAULT.val_fraction, show_default=True, help="Without a val/."
)
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Of split, order, augmentation.")
@click.option("--accelerator", type=click.Choice(get_args(Accelerator)), default="auto", help="Where to train.")
@click.option("--devices", default="auto", metavar="N|I,J", help="How many, or which GPUs; several by DDP.")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="auto", help="Mixed on a GPU.")
@click.option("--workers", type=int, help="Processes a device that read images.")
@click.option("--fresh", is_flag=True, help="Start anew, and forget the run in the folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def finetune_command(
    network: str,
    data: str,
    output: str,
    no_flip: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train a network on folders of images, and say what it gained.

    NETWORK is what `gapcam gap` wrote, a .pt2 file. Its new head is trained first, then all of it. Stopped or killed,
    the same command goes on from the last epoch.

    \b
    Examples:
      gapcam finetune gapnet.pt2 --data photos/ -o tuned/
      gapcam finetune gapnet.pt2 --data photos/ -o tuned/ --original torchvision:vgg16 --original-checkpoint vgg.pt
      gapcam export tuned/gapnet.pt2 -o model.onnx
    """  # noqa: D301  # click reads the backspace character
    settings = Settings(flip=not no_flip, **_chosen(Settings, options))
    hardware = Hardware(**_chosen(Hardware, options))
    original, checkpoint = options["original"], options["original_checkpoint"]
    pretrained = options["original_pretrained"]
    if original is None and (checkpoint or pretrained):
        raise UsageError("--original-checkpoint and --original-pretrained are of the network --original SOURCE.")
    with termination_as_interrupt():
        if "LOCAL_RANK" not in os.environ:  # Lightning sets it for the helper processes of a training
            say("starting ...")  # PyTorch and Lightning take seconds to load
        # DDP advises against what lets a part of the network be frozen; set before torch is imported.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        # Here and not above, so that --help answers at once.
        from gapcam_export.finetune.original import Original
        from gapcam_export.finetune.steps import finetune

        made = finetune(
            network,
            data,
            output,
            settings=settings,
            hardware=hardware,
            original=original and Original(original, checkpoint and Path(checkpoint), pretrained),
            fresh=fresh,
            progress=_say_above_the_bar,
        )
    if made is None:  # a helper process of a training on several devices
        return ExitCode.DONE
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        _print(made)
    return ExitCode.PARTIAL if made.skipped else ExitCode.DONE


def _say_above_the_bar(line: str) -> None:
    """Through what Lightning's bar has put in the place of stderr; rich and click would go around it."""
    if sys.stderr is not None:  # None: it was closed before the start
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _chosen(kind: type[Settings] | type[Hardware], options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in kind.__struct_fields__ if name in options}


def _print(made: Report) -> None:
    table = Table(
        title=Text(f"{made.val_images} validation images of {made.data} (95 % interval)"), title_justify="left"
    )
    five = made.after.top5 is not None
    table.add_column("network")
    for heading in ("top-1", "top-5", "images") if five else ("top-1", "images"):
        table.add_column(heading, justify="right")
    for name, accuracy in (
        ("original", made.original),
        ("before fine-tuning", made.before),
        ("after fine-tuning", made.after),
    ):
        if accuracy is None:
            table.add_row(name, "not given")
        else:
            ranks = (accuracy.top1, accuracy.top5) if five else (accuracy.top1,)
            table.add_row(name, *(_cell(right, accuracy.images) for right in ranks), str(accuracy.images))
    stdout.print(table)
    say(f"original: {made.original_spec or 'not given; --original SOURCE measures it, too'}")
    for note in made.notes:
        say(f"note: {note}")
    if made.skipped:
        say(f"{len(made.skipped)} images could not be read and were skipped; report.json lists them")
    if made.already_finished:
        say(f"{made.output} has a finished run: nothing was done. --fresh starts anew.")
    else:
        say(f"epoch {made.best_epoch} of {len(made.epochs)} was the best. {made.output} has gapnet.pt2, "
            "learning-curve.png, metrics.csv, report.json.")  # fmt: skip
    say(f"Next: gapcam export {Path(made.output) / 'gapnet.pt2'} -o model.onnx")


def _cell(right: int | None, images: int) -> str:
    from gapcam_export.finetune.accuracy import wilson_interval

    if right is None:
        return ""
    low, high = wilson_interval(right, images)
    return f"{right / images:.1%} ({100 * low:.1f} to {100 * high:.1f})"
