"""The options of `gapcam bench MODEL...`, under headings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from gapcam.cli.finite_number import FiniteRange
from gapcam.cli.option_groups import GroupedCommand, GroupedOption
from gapcam_bench.cell import EMITS, SCENARIOS, WORK

Command = TypeVar("Command", bound=Callable[..., Any])


_AXES, _EXTENT, _SCENARIO = "Axes (values with commas between; all combinations that make sense)", "Extent", "Scenarios"
_MODELS, _OUTPUT = "Models and images", "Output"
_FILE, _FOLDER = click.Path(path_type=Path), click.Path(path_type=Path)

_OPTIONS = (
    ("--device", _AXES, {"default": "auto", "metavar": "LIST", "help": "cpu, cuda, cuda:1, tensorrt, tensorrt-rtx; "
        "auto for the fastest that works here, all for each that does."}),
    ("--precision", _AXES, {"default": "as-is", "metavar": "LIST",
        "help": "as-is, and what is made of a float32 model first: fp16, bf16, int8."}),
    ("--emit", _AXES, {"default": "plain,features", "metavar": "LIST",
        "help": f"What the graph gives: {', '.join(EMITS)}. Plain beside another says what the map costs."}),
    ("--scenario", _AXES, {"default": "single-stream", "metavar": "LIST", "help": f"{', '.join(SCENARIOS)}."}),
    ("--batch", _AXES, {"default": "1", "metavar": "LIST", "help": "Images of one inference."}),
    ("--frame", _AXES, {"default": "720p", "metavar": "LIST", "help": "720p, 1080p, 4k, or WIDTHxHEIGHT."}),
    ("--threads", _AXES, {"default": "all", "metavar": "LIST",
        "help": "Of one inference on the CPU; all for every physical core."}),
    ("--rounds", _EXTENT, {"type": click.IntRange(1, 1000), "default": None, "metavar": "N",
        "help": "Fresh processes of each combination.  [default: 5; with --quick: 2]"}),
    ("--seconds", _EXTENT, {"type": FiniteRange(0, 3600), "default": None, "metavar": "S",
        "help": "Least that each of them measures.  [default: 2; with --quick: 0.5]"}),
    ("--samples", _EXTENT, {"type": click.IntRange(1, 10**7), "default": None, "metavar": "N",
        "help": "Likewise, in samples.  [default: 20; with --quick: 5]"}),
    ("--quick", _EXTENT, {"is_flag": True, "help": "A first look: little of everything."}),
    ("--streams", _SCENARIO, {"type": click.IntRange(1, 1024), "default": None, "metavar": "N",
        "help": "multi-stream: pictures of one query.  [default: 8]"}),
    ("--bound-ms", _SCENARIO, {"type": FiniteRange(min=0, min_open=True), "default": None, "metavar": "MS",
        "help": "server: what the p99 may be.  [default: four times the median of single queries]"}),
    ("--fps", _SCENARIO, {"type": FiniteRange(min=0, min_open=True, max=10000), "default": None, "metavar": "N",
        "help": "camera: frames that arrive in a second.  [default: 15]"}),
    ("--generator", _SCENARIO, {"type": click.Choice(["auto", "own", "mlcommons"]), "default": "auto",
        "help": "Of the load: MLPerf's where it is installed, or gapcam's.  [default: auto]"}),
    ("--without", _SCENARIO, {"default": "", "metavar": "LIST",
        "help": f"What a frame does not go through: {', '.join(WORK)}."}),
    ("--images", _MODELS, {"type": _FOLDER, "metavar": "DIR", "help": "Photographs to classify, in place of "
        "installed ones."}),
    ("--calibrate", _MODELS, {"type": _FOLDER, "metavar": "DIR", "help": "int8, fp16: images like the camera's."}),
    ("--reference", _MODELS, {"type": _FILE, "metavar": "MODEL",
        "help": "A float32 model whose answers each row's are compared with."}),
    ("--json", _OUTPUT, {"type": _FILE, "metavar": "FILE", "help": "The result; its raw samples beside it, as .npz."}),
    ("--html", _OUTPUT, {"type": _FILE, "metavar": "FILE", "help": "One self-contained page with plots."}),
    ("--csv", _OUTPUT, {"type": _FILE, "metavar": "FILE", "help": "A line for each row."}),
    ("--markdown", _OUTPUT, {"type": _FILE, "metavar": "FILE", "help": "The table."}),
    ("--fresh", _OUTPUT, {"is_flag": True, "help": "Begin anew, whatever an unfinished run has left."}),
    ("--dry-run", _OUTPUT, {"is_flag": True, "help": "List what would be measured, and about how long it takes."}),
)  # fmt: skip


class SweepCommand(GroupedCommand):
    """A command whose help also lists commands beside it.

    Args:
        subcommands: their names and summaries.
    """

    def __init__(self, *arguments: Any, subcommands: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._subcommands = subcommands

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, and the commands after them."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl(list(self._subcommands.items()))


def sweep_options(command: Command) -> Command:
    """Add the options to a command, in the order of the help text."""
    for name, group, settings in reversed(_OPTIONS):
        settings = {"show_default": "default" in settings and bool(settings["default"]), **settings}
        if "[default:" in str(settings["help"]):
            settings["show_default"] = False
        command = click.option(name, cls=GroupedOption, group=group, **settings)(command)
    return command
