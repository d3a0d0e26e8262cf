"""The command `gapcam bench peers`: gapcam beside other ways to the same picture, on the same frames and threads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapcam.cli.finite_number import FiniteRange
from gapcam.errors import UsageError
from gapcam_bench.demo_model import DEMO_MODEL, check_exists

if TYPE_CHECKING:
    from gapcam_bench.result import BenchResult
    from gapcam_bench.sweep.plan import Plan

ROUNDS, SECONDS = 3, 1.0
_FILE = click.Path(path_type=Path)


@click.command("peers", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=_FILE, default=DEMO_MODEL)
@click.option(
    "--frame", default="720p,1080p", show_default=True, metavar="LIST", help="720p, 1080p, 4k, or WIDTHxHEIGHT."
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N", help="Of every library."
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=ROUNDS,
    show_default=True,
    metavar="N",
    help="Fresh processes of each way.",
)
@click.option(
    "--seconds",
    type=FiniteRange(0, 3600),
    default=SECONDS,
    show_default=True,
    metavar="S",
    help="Least that each of them measures.",
)
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Only this one beside gapcam; may be repeated.")
@click.option("--json", type=_FILE, metavar="FILE", help="The result; its raw samples go beside it, as .npz.")
@click.option("--html", type=_FILE, metavar="FILE", help="One self-contained page with plots.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="The tables; between the marks of a page that has them.")
@click.option("--force", is_flag=True, help="Write into such a page, too, where gapcam's own rows are not valid.")
@click.option("--fresh", is_flag=True, help="Begin anew, whatever an unfinished run has left.")
@click.option("--list", "listed", is_flag=True, help="Say which peers there are, and why one cannot run here.")
def peers_command(model: Path, peers: tuple[str, ...], **options: Any) -> int:
    """Compare gapcam with torch-cam, grad-cam, OpenVINO, and what one writes by hand: frame in, overlay out.

    All explain the same network on the same photographs, with the same number of threads, on the CPU, one frame at a
    time, each in fresh processes that take turns. MODEL is a file made by `gapcam export`; the default is the one that
    `make demo` writes, and the peers in torch run for that network alone. Every map is checked against gapcam's.

    \b
    Examples:
      gapcam bench peers
      gapcam bench peers --peer torch-cam --peer "openvino, fp32" --frame 720p
      gapcam bench peers --json out/peers.json --markdown out/peers.md

    docs/performance.md has the figures and what they mean.
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    from gapcam_bench.cli.run import check_installed, check_outputs, measure_plan  # here, so that --help is quick
    from gapcam_bench.peers.comparison import groups_of, in_doubt
    from gapcam_bench.peers.names import chosen_peers
    from gapcam_bench.peers.page import is_part_of_a_page, page_with
    from gapcam_bench.peers.tables import markdown, show

    subjects = chosen_peers(peers)
    check_exists(model)
    plan = _plan(model, subjects, options)
    if options["listed"]:
        return _list(plan)
    page: Path | None = options["markdown"]
    report = {**options, "csv": None}
    check_outputs(plan, report)
    check_installed(plan, report)
    if page is not None:
        page_with(page, "")  # so that a page without its marks is noticed before, not after

    def compare(result: BenchResult, arrays: Mapping[str, Any]) -> int:
        from gapcam.atomic_file import write_atomically
        from gapcam.cli.console import report as say
        from gapcam.cli.console import stdout
        from gapcam.errors import ExitCode
        from gapcam_bench.cli.places import partial

        groups = groups_of(result, arrays)
        show(groups, stdout)
        if page is None:
            return ExitCode.DONE
        put = page if result.complete or not page.exists() else partial(page)
        doubt = in_doubt(groups)
        if put == page and doubt is not None and is_part_of_a_page(page) and not options["force"]:
            kept = options["json"]
            say(
                f"{page} stays as it was: {doubt}. Measure again when nothing else runs on this machine, or with "
                "--force; " + ("--json FILE would keep the result." if kept is None else f"the result is in {kept}.")
            )
            return ExitCode.PARTIAL
        if put != page:
            say(f"{page} stays as it was: this run is not complete")
        write_atomically(put, page_with(page, markdown(result, groups)).encode())
        say(f"wrote {put}")
        return ExitCode.DONE

    return measure_plan(plan, {**report, "markdown": None}, _command(model, peers, options), also=compare)


def _plan(model: Path, subjects: tuple[str, ...], options: Mapping[str, Any]) -> Plan:
    from gapcam.contract import HeadKind
    from gapcam_bench.limits import Limits
    from gapcam_bench.peers.names import contract_of
    from gapcam_bench.peers.planned import peer_cells
    from gapcam_bench.sweep.axes import axes_from_texts
    from gapcam_bench.sweep.model_outline import outlines
    from gapcam_bench.sweep.plan import Plan

    frames = axes_from_texts(frame=options["frame"]).frames
    (outline,) = outlines([str(model)])
    if outline.runtime is not None or outline.head is not HeadKind.AFFINE:
        what = "an engine" if outline.runtime else f"its head is {outline.head.value if outline.head else 'not known'}"
        raise UsageError(
            f"{model}: {what}; peers are compared on an ONNX file with gapcam's contract and an affine head"
        )
    cells = peer_cells(outline.label, contract_of(model), subjects, frames=frames, threads=options["threads"])
    seconds, usual = options["seconds"], Limits()
    limits = Limits(
        least_seconds=seconds,
        least_samples=-(-usual.least_row_samples // options["rounds"]),  # so that slow ways are valid rows, too
        most_seconds=max(usual.most_seconds, 2 * seconds),
    )
    return Plan(cells=cells, models={outline.label: outline}, rounds=options["rounds"], limits=limits)


def _list(plan: Plan) -> int:
    from gapcam.cli.console import write_line
    from gapcam_bench.cell import GAPCAM
    from gapcam_bench.peers.names import PEERS

    reasons = {planned.cell.subject: planned.skipped for planned in plan.cells}
    for name, reason in reasons.items():
        if name != GAPCAM:
            write_line(f"{name}: {PEERS[name].what}" + ("" if reason is None else f" - not here: {reason}"))
    return 0


def _command(model: Path, peers: tuple[str, ...], options: Mapping[str, Any]) -> str:
    """What was run, without paths outside the working folder."""
    from click.core import ParameterSource

    from gapcam_bench.sweep.model_outline import model_label

    context = click.get_current_context()
    words = ["gapcam", "bench", "peers", *([model_label(model)] if model != DEMO_MODEL else [])]
    words += [word for peer in peers for word in ("--peer", peer)]
    for name, value in options.items():
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not given or name in ("listed", "fresh", "force"):  # which do not change what is measured
            continue
        said = model_label(value) if isinstance(value, Path) else f"{value:g}" if name == "seconds" else str(value)
        words += [f"--{name}", said]
    return shlex.join(words)
