"""The options --device and --allow-cpu-fallback, and what a command says of the device that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gapcam.devices import DEVICES

if TYPE_CHECKING:
    from gapcam.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])


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


def report_idle_gpu(session: Session) -> None:
    """Say once where a GPU is there and nothing that uses it works."""
    from gapcam.cli.console import report

    if session.passed_over and "CPUExecutionProvider" in session.engine:
        reasons = "; ".join(" ".join(reason.split()) for reason in session.passed_over)
        report(f"the GPU is not used: {reasons}")
