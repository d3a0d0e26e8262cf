"""The options --device and --allow-cpu-fallback, and what a command says of the device that was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gapcam.devices import DEVICES, parse_device

if TYPE_CHECKING:
    from gapcam.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])

_CPU = "CPUExecutionProvider"
_MOST_WORDS = 100
"""Characters of a reason."""


def device_options(command: Command) -> Command:
    """Add both options to a command."""
    command = click.option(
        "--allow-cpu-fallback",
        is_flag=True,
        help="Let layers that the GPU's provider does not know run on the CPU. Without it they are an error.",
    )(command)
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="DEVICE",
        help=f"Where to run: {', '.join(DEVICES)}; with the GPU's number where it is not the first, as in cuda:1. auto "
        "is the fastest that works.",
    )(command)


@contextmanager
def loading() -> Iterator[None]:
    """Say on a terminal that something goes on: TensorRT may build an engine for minutes."""
    from gapcam.cli.console import stderr

    if not stderr.is_terminal:
        yield
        return
    with stderr.status("loading the model"):
        yield


def report_device(session: Session, device: str) -> None:
    """Say once what "auto" took on a machine with a GPU, and in few words why nothing faster."""
    from gapcam.cli.console import report
    from gapcam.cuda.presence import presence

    if parse_device(device).kind == "auto" and presence().devices:
        report(device_line(session.engine, session.passed_over))


def device_line(engine: str, passed_over: Sequence[str]) -> str:
    """The line of `report_device`.

    Args:
        engine: what runs the model.
        passed_over: why each faster way does not work: its name, a colon, and the error's message.
    """
    names: dict[str, list[str]] = {}
    for reason in passed_over:
        name, _, why = " ".join(reason.split()).partition(": ")
        names.setdefault(_in_few_words(why), []).append(name)
    idle = "; the GPU is not used" if _CPU in engine else ""
    reasons = "; ".join(f"{' and '.join(ways)} ({why})" for why, ways in names.items())
    return f"on {engine}{idle}" + (f"; not taken: {reasons}; gapcam doctor tells more" if reasons else "")


def _in_few_words(why: str) -> str:
    """What comes before the first remedy, aside or clause."""
    first = re.split(r"\. |[;(]|, and ", why, maxsplit=1)[0].strip()
    return first if len(first) <= _MOST_WORDS else first[:_MOST_WORDS].rpartition(" ")[0] + " ..."
