"""The command `gapcam fidelity`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapcam.cli.finite_number import FiniteNumber, FiniteRange
from gapcam.errors import ExitCode, VerificationError
from gapcam_export.termination import termination_as_interrupt

if TYPE_CHECKING:
    from rich.progress import Progress


def name_of_page(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A path, which "" would be, too: the one of the working folder."""
    del ctx, param
    if value in ("", "-"):
        raise click.BadParameter(f"{value!r} names no file; give one, such as report.html")
    return None if value is None else Path(value)


@click.command("fidelity")
@click.argument("a")
@click.argument("b")
@click.option(
    "--images",
    required=True,
    multiple=True,
    metavar="DIR|IMAGE|GLOB",
    help="Compare on these; of a folder, its subfolders too. May be repeated.",
)
@click.option(
    "--threshold",
    type=FiniteRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Boxes: keep map values above this part of the maximum.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--html", type=click.Path(), callback=name_of_page, metavar="FILE", help="Write one self-contained page, too."
)
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Images that the page shows, those on which the maps differ most.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of one inference.  [default: every physical core]")
@click.option("--latency/--no-latency", default=True, show_default=True, help="Whether to measure how long both take.")
@click.option(
    "--min-top1", type=FiniteNumber(), metavar="PART", help="Fail where both agree on a smaller part of the images."
)
@click.option(
    "--min-box-iou", type=FiniteNumber(), metavar="IOU", help="Fail where the mean IoU of the boxes is smaller."
)
@click.option(
    "--min-correlation",
    type=FiniteNumber(),
    metavar="R",
    help="Fail where the maps' mean correlation (Pearson) is smaller.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Weights of the network in PyTorch.")
@click.option("--pretrained", is_flag=True, help="Let torchvision or timm fetch their own weights (network).")
def fidelity_command(
    a: str,
    b: str,
    images: tuple[str, ...],
    as_json: bool,
    html: Path | None,
    min_top1: float | None,
    min_box_iou: float | None,
    min_correlation: float | None,
    **options: Any,
) -> int:
    """Compare model B with model A, the reference, on the same images: classes, logits, maps, boxes, sizes, speed.

    A and B are models made by gapcam export, or networks in PyTorch as gapcam export takes them. All maps are of the
    class that A finds best. Images that cannot be read are named and left out; the exit code is then 1. It is 4 where
    a figure is below its limit.

    \b
    Examples:
      gapcam fidelity model.onnx model.int8.onnx --images photos/
      gapcam fidelity model.onnx model.int8.onnx --images photos/ --html report.html
      gapcam fidelity model.onnx model.int8.onnx --images photos/ --no-latency --min-top1 0.95 --min-box-iou 0.85
      gapcam fidelity torchvision:resnet18 model.onnx --pretrained --images photos/ --json
    """  # noqa: D301  # click reads the backspace character
    # Here and not above, so that --help answers at once.
    import gapcam_export
    from gapcam.cli.console import progress_bar
    from gapcam.cli.console import report as say
    from gapcam.cli.output import json_line
    from gapcam_export.comparison.limits import check_limits, limits_of
    from gapcam_export.comparison.tables import print_fidelity, say_about

    at_least = {"top1_agreement": min_top1, "box_iou": min_box_iou, "map_pearson": min_correlation}
    check_limits(at_least)
    if html is not None:
        from gapcam_export.comparison.page import check_page

        check_page(html, _compared_files((a, b), options["checkpoint"], images) if html.exists() else ())
    # What a network's factory prints is not the report.
    with termination_as_interrupt(), redirect_stdout(sys.stderr), progress_bar() as bar:
        made = gapcam_export.fidelity(a, b, images=images, progress=_Steps(bar), **options)
    limits = limits_of(made.comparison.figures(), at_least)
    try:
        if as_json:
            click.echo(json_line({**made.to_dict(), "limits": [limit.to_dict() for limit in limits]}, ascii_only=True))
        else:
            print_fidelity(made, limits)
        say_about(made)
    finally:  # the figures are not lost where the page cannot be written, nor the page where nobody reads the figures
        if html is not None:
            with termination_as_interrupt():
                made.write_html(html)
            say(f"{html} was written")
    missed = [str(limit) for limit in limits if not limit.met]
    if missed:
        raise VerificationError(f"{made.other.name} is not alike enough: {'; '.join(missed)}")
    return ExitCode.PARTIAL if made.skipped else ExitCode.DONE


def _compared_files(models: Sequence[str], checkpoint: Path | None, images: Sequence[str]) -> list[Path | None]:
    """What a page must not be written over."""
    from gapcam.cli.inputs import find_images

    networks = [Path(model.rpartition(":")[0]) for model in models if ":" in model]  # path/to/file.py:factory
    return [*map(Path, models), *networks, checkpoint, *(image.path for image in find_images(images, recursive=True))]


class _Steps:
    """What is being done, in place of what was done before, on a progress display."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._what, self._task = "", self._bar.add_task("", visible=False)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._bar.remove_task(self._task)
            self._what, self._task = what, self._bar.add_task(what, total=total)
        self._bar.update(self._task, completed=done)
