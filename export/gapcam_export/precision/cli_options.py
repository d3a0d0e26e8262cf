"""The options of a model's precision, which two commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from gapcam.cli.finite_number import FiniteNumber
from gapcam.contract import CalibrationMethod, Target
from gapcam.errors import UsageError
from gapcam_export.comparison.cli import name_of_page
from gapcam_export.precision.options import PrecisionOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_FOLDER = click.Path(path_type=Path)
_NAMES = tuple(name for name in PrecisionOptions.__dataclass_fields__ if name != "precision")
_OPTIONS = (
    click.option("--calibrate", type=_FOLDER, metavar="DIR", help="int8, fp16: images like the camera's."),
    click.option(
        "--method",
        type=click.Choice(get_args(CalibrationMethod)),
        default="minmax",
        show_default=True,
        help="int8: how the activations' ranges follow from those images.",
    ),
    click.option(
        "--target",
        type=click.Choice(get_args(Target)),
        help="int8: what it is to be fast on. This machine's CPU by default.",
    ),
    click.option("--reduce-range", is_flag=True, help="int8: weights of 7 bits, for x86 CPUs without VNNI."),
    click.option("--keep", multiple=True, metavar="LAYER", help="int8: a layer to leave in float32. May be repeated."),
    click.option(
        "--min-map-iou",
        type=FiniteNumber(),
        metavar="IOU",
        help="int8: leave the layers that hurt the maps most in float32 until their boxes agree so well, on average.",
    ),
    click.option("--lower-head", is_flag=True, help="Lower the head, too: the pooling and what follows it."),
    click.option(
        "--check", type=_FOLDER, metavar="DIR", help="Images on which the model is compared with the float32 model."
    ),
    click.option(
        "--html",
        type=click.Path(),
        callback=name_of_page,
        metavar="FILE",
        help="Write that comparison as a page, with the worst cases.",
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Of one inference, while both are timed."),
)


def precision_options(command: Command) -> Command:
    """Add the options to a command, in the order of the help text."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_precision(precision: str, options: dict[str, Any]) -> PrecisionOptions | None:
    """What a command line chose, or None for float32; its options are taken out of `options`, all but `html`.

    Raises:
        UsageError: they contradict each other.
    """
    chosen = {name: options.pop(name) for name in _NAMES}
    if precision != "fp32":
        return PrecisionOptions(precision=precision, **chosen)  # type: ignore[arg-type]  # click.Choice has checked it
    fields = PrecisionOptions.__dataclass_fields__
    given = [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value != fields[name].default]
    if given:
        raise UsageError(f"{', '.join(given)}: only with --precision fp16, bf16 or int8. Leave it out, or give one.")
    return None
