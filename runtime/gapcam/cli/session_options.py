"""The options --threads, --provider-option and --session-option: how ONNX Runtime is set up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def session_options(command: Command) -> Command:
    """Add all three to a command, as `threads`, `provider_options` and `session_options`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _settings(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options as a mapping."""
    split = [value.partition("=") for value in values]
    for name, equals, text in split:
        if not (name and equals):
            raise click.BadParameter(f"{name}{equals}{text} is not NAME=VALUE")
    return {name: text for name, _, text in split}


_OPTIONS = (
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads of one inference.  [default: every physical core]"
    ),
    click.option(
        "--provider-option",
        "provider_options",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Of ONNX Runtime's provider. May be repeated.",
    ),
    click.option(
        "--session-option",
        "session_options",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Of ONNX Runtime's session, such as session.intra_op.allow_spinning=0. May be repeated.",
    ),
)
