"""The command `gapcam bench`: `gapcam bench MODEL...` measures, and its subcommands do the rest.

Nothing is loaded before it is asked for: neither the subcommands nor what measures.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from gapcam_bench.cli.options import SweepCommand, sweep_options

SUBCOMMANDS = {
    "compare": ("gapcam_bench.cli.compare:compare_command", "Say which differences of two results are real."),
    "report": ("gapcam_bench.cli.report:report_command", "Show a result again, or make its page, CSV or Markdown."),
    "peers": ("gapcam_bench.cli.peers:peers_command", "Measure other ways to the same picture, in the same run."),
    "map-cost": ("gapcam_bench.cli.map_cost:map_cost_command", "Measure what a map costs, in a minute."),
}
"""Where each is, and what the help says of it. A model's file of such a name is given as ./compare."""


_HELP = {"help_option_names": ["-h", "--help"]}


class _BenchCommand(click.Group):
    """A group of commands that is itself the sweep: whatever does not begin with a subcommand's name is for that."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of a subcommand, or the sweep's own."""
        if args and args[0] in SUBCOMMANDS:
            return super().make_context(info_name, args, parent, **extra)
        return sweep_command.make_context(info_name, args, parent, **{**self.context_settings, **extra})

    def invoke(self, ctx: click.Context) -> Any:
        """Run what the context is of."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        del ctx
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one; None if there is no such."""
        del ctx
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, name = SUBCOMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{name} is {command!r}; expected a click.Command")
        return command


@click.command(
    "bench",
    cls=SweepCommand,
    subcommands={name: summary for name, (_, summary) in SUBCOMMANDS.items()},
    context_settings=_HELP,
)
@click.argument("models", metavar="MODEL...", nargs=-1)
@sweep_options
def sweep_command(models: tuple[str, ...], **options: Any) -> int:
    """Measure models on this machine: every stage with percentiles, cold costs, energy, and the price of the map.

    A MODEL is an ONNX file or an engine; one without gapcam's contract is measured as a plain classifier. Each
    combination of the axes is measured in fresh processes, in rounds, so that what the machine does meanwhile hits all
    alike. Ctrl-C reports what is measured so far, and the same command goes on from there.

    \b
    Examples:
      gapcam bench model.onnx
      gapcam bench model.onnx --json r.json --html r.html
      gapcam bench model.onnx --device cpu,cuda --precision as-is,fp16 --batch 1,8 --json r.json
      gapcam bench old.onnx new.onnx --scenario single-stream,camera --fps 30 --quick
      gapcam bench compare before.json after.json

    docs/benchmarks.md has all of it.
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    from gapcam_bench.cli.run import run_command  # here, so that --help answers at once

    return run_command(models, options)


bench_command = _BenchCommand("bench", help=sweep_command.help, context_settings=_HELP)
"""What `gapcam bench` is."""
