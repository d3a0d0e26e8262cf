"""What `gapcam bench MODEL...` does: from options to a plan, and from what was measured to files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gapcam.atomic_file import check_spares, check_writable
from gapcam.cli.console import report as say
from gapcam.cli.console import stdout, write_line
from gapcam.cli.interrupt import is_interrupt
from gapcam.errors import DataError, ExitCode, MissingExtraError, UsageError
from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cli.places import OUTPUTS, places
from gapcam_bench.demo_model import DEMO_MODEL
from gapcam_bench.limits import Limits
from gapcam_bench.sweep.axes import AUTO, Axes, axes_from_texts
from gapcam_bench.sweep.devices_here import resolve_devices
from gapcam_bench.sweep.display import SweepDisplay, cell_text
from gapcam_bench.sweep.inputs import LEAST_READ, images_sha256, path_text
from gapcam_bench.sweep.journal import SUFFIX, Journal, check_journal, check_resumes, open_journal
from gapcam_bench.sweep.model_outline import model_label, outlines
from gapcam_bench.sweep.plan import Plan, planned_cells
from gapcam_bench.sweep.schedule import TimeLeft, duration_text, turns
from gapcam_export.termination import termination_as_interrupt

QUICK = Limits(
    least_seconds=0.5,
    least_samples=5,
    most_seconds=5.0,
    warm_up_least_seconds=0.2,
    warm_up_most_seconds=2.0,
    least_row_samples=20,
)
"""What --quick measures."""

_ROUNDS, _QUICK_ROUNDS = 5, 2


def run_command(models: Sequence[str], options: Mapping[str, Any]) -> int:
    """Measure, print, write; returns the exit code."""
    plan = _plan(models, options)
    check_outputs(plan, options)
    check_installed(plan, options)
    if options["dry_run"]:
        _check_resumes(plan, options)
        _show_plan(plan)
        return ExitCode.DONE
    return measure_plan(plan, options, _command(tuple(plan.models), options))


def measure_plan(
    plan: Plan,
    options: Mapping[str, Any],
    command: str,
    *,
    also: Callable[[Any, Mapping[str, Any]], int] | None = None,
) -> int:
    """Measure a plan, print and write its report; returns the exit code.

    Args:
        plan: what to measure.
        options: `fresh`, and the report's files by `json`, `html`, `csv` and `markdown`; None for none.
        command: what the result says was run.
        also: is called with the result and its arrays after the report, and says the exit code where all went well.
    """
    from gapcam_bench.machine import machine
    from gapcam_bench.sweep.run import IDLE_S, QUICK_IDLE_S, begun, run_sweep

    folder = _journal_folder(options)
    with termination_as_interrupt():
        say("looking at the machine")
        here = machine()
        with open_journal(folder, begun(plan, here), fresh=options["fresh"]) as journal:
            if journal.resumed:
                unfinished = f"an unfinished run of {journal.begun.created}"
                say(f"going on with {unfinished}: {_blocks_of(journal)} are there; --fresh begins anew")
            try:
                with SweepDisplay(plan.measured) as display:
                    idle_s = QUICK_IDLE_S if options.get("quick") else IDLE_S
                    outcome = run_sweep(plan, journal, here, display, command=command, idle_s=idle_s)
                then: int = ExitCode.DONE
                if outcome.measured:
                    _report(outcome.result, outcome.arrays, options)
                    if also is not None:
                        then = also(outcome.result, outcome.arrays)
                elif not outcome.interrupted:
                    _report(outcome.result, outcome.arrays, dict.fromkeys(OUTPUTS))
                    say("nothing was measured; no file was written")
            except BaseException as error:
                if not is_interrupt(error):
                    raise
                _say_interrupted(journal, folder)  # while the report was made
                return ExitCode.INTERRUPTED
            if not outcome.to_go_on:
                journal.remove()
            elif outcome.interrupted:
                _say_interrupted(journal, folder)
            elif folder is not None:
                say(f"{_blocks_of(journal)} are kept in {folder}; the same command tries again what failed")
    return outcome.exit_code or then


def _say_interrupted(journal: Journal, folder: Path | None) -> None:
    more = "" if folder is None else "; the same command goes on from there"
    say(f"interrupted after {_blocks_of(journal)}{more}")


def _blocks_of(journal: Journal) -> str:
    plan = journal.begun.plan
    return f"{len(journal.finished)} of {plan.rounds * len(plan.measured)} blocks"


def _report(result: Any, arrays: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Write the files, that with the samples first, and print the table last: who reads it may not want all of it."""
    from gapcam_bench.cli.forms import write_forms
    from gapcam_bench.reports.table import show
    from gapcam_bench.result_file import samples_path, write_result

    asked = places(options, complete=True)
    put = places(options, complete=result.complete)
    if put != asked:
        kept = [str(path) for path in asked.values() if path is not None and path.exists()]
        say(f"this run is not complete, so what is there stays: {', '.join(kept)}")
    json, html, csv, markdown = (put[name] for name in OUTPUTS)
    written: list[Path] = []
    if json is not None:
        result = write_result(result, arrays, json)
        written += [json, *([samples_path(json)] if arrays else [])]
    write_forms(result, arrays, csv=csv, markdown=markdown, html=html)
    written += [path for path in (csv, markdown, html) if path is not None]
    for path in written:
        say(f"wrote {path}")
    show(result, stdout)


def _plan(models: Sequence[str], options: Mapping[str, Any]) -> Plan:
    if not models:
        made = f" Here is one: gapcam bench {DEMO_MODEL}" if DEMO_MODEL.is_file() else ""
        raise UsageError(f"no MODEL was given; make one with: gapcam export SOURCE -o model.onnx.{made}")
    names = ("device", "precision", "emit", "scenario", "batch", "frame", "threads", "without")
    axes = axes_from_texts(**{name: options[name] for name in names})
    limits, settings = _limits(options), _settings(options)
    known = outlines(models)
    hashes = _input_hashes(axes, options)
    runtimes = tuple(dict.fromkeys(model.runtime for model in known if model.runtime is not None))
    asked = axes.devices
    if asked == (AUTO,) and all(model.runtime is not None for model in known):
        asked = runtimes  # an engine says itself what runs it
    devices, refused = resolve_devices(asked, runtimes, say=say)
    cells = planned_cells(axes, known, devices=devices, refused=refused, streams=settings.streams)
    plan = Plan(
        cells=cells,
        models={model.label: model for model in known},
        rounds=options["rounds"] or (_QUICK_ROUNDS if options["quick"] else _ROUNDS),
        limits=limits,
        settings=settings,
        **{name: _absolute(options[name]) for name in ("images", "calibrate", "reference")},
        **hashes,
    )
    for model in known:
        if model.head is None:
            say(f"{model.label} has no contract of gapcam's, or none with maps: measured as a plain classifier")
    if not plan.measured:
        reasons = dict.fromkeys(planned.skipped for planned in cells if planned.skipped is not None)
        raise UsageError(f"nothing is left to measure: {'; '.join(reasons)}")
    return plan


def _limits(options: Mapping[str, Any]) -> Limits:
    limits = QUICK if options["quick"] else Limits()
    seconds, samples = options["seconds"], options["samples"]
    least = limits.least_seconds if seconds is None else seconds
    return Limits(
        least_seconds=least,
        least_samples=limits.least_samples if samples is None else samples,
        most_seconds=max(limits.most_seconds, 2 * least),
        warm_up_least_seconds=limits.warm_up_least_seconds,
        warm_up_most_seconds=limits.warm_up_most_seconds,
        least_row_samples=limits.least_row_samples,
    )


def _settings(options: Mapping[str, Any]) -> ScenarioSettings:
    given = {name: options[name] for name in ("streams", "fps") if options[name] is not None}
    if options["generator"] == "mlcommons" and find_spec("mlperf_loadgen") is None:
        raise MissingExtraError("mlperf_loadgen", "loadgen")
    return ScenarioSettings(**given, bound_ms=options["bound_ms"], generator=options["generator"])


def _input_hashes(axes: Axes, options: Mapping[str, Any]) -> dict[str, str | None]:
    """What a plan notes of its inputs; folders without images, and a reference that is none, are noticed here."""
    from gapcam_export.photographs import photograph_paths
    from gapcam_export.precision.calibration import calibration_paths

    images, calibrate, reference = (options[name] for name in ("images", "calibrate", "reference"))
    for path in (images, calibrate):
        if path is not None:
            path_text(path)
    found: dict[str, str | None] = {}
    if images is not None:
        paths = photograph_paths(images, "--images")
        found["images_sha256"] = images_sha256(images, paths, read=max(LEAST_READ, *axes.batches))
    if calibrate is not None:
        if not {"int8", "fp16"}.intersection(axes.precisions):
            raise UsageError("--calibrate is for --precision int8 or fp16, and neither was asked for. Leave it out.")
        paths = calibration_paths(calibrate)
        say(f"looking at the {len(paths)} images of {calibrate}")
        found["calibrate_sha256"] = images_sha256(calibrate, paths, read=len(paths))
    if reference is not None:
        found["reference_sha256"] = outlines([reference])[0].sha256
    return found


def _journal_folder(options: Mapping[str, Any]) -> Path | None:
    """Where blocks are kept; None where no result is written that they could become."""
    json: Path | None = options["json"]
    return None if json is None else json.with_name(json.name + SUFFIX)


def _check_resumes(plan: Plan, options: Mapping[str, Any]) -> None:
    """Notice an interrupted run that this one could not go on with.

    Raises:
        UsageError: there is one.
    """
    from gapcam_bench.machine import machine
    from gapcam_bench.sweep.run import begun

    folder = _journal_folder(options)
    if folder is not None and folder.exists() and not options["fresh"]:
        check_resumes(folder, begun(plan, machine()))


def check_outputs(plan: Plan, options: Mapping[str, Any]) -> None:
    """Notice outputs that cannot be written, or that would be written over something; nothing is written.

    Raises:
        DataError: there is one.
        UsageError: a name is not UTF-8.
    """
    from gapcam_bench.result_file import check_result_writable, samples_path

    inputs = [model.shown for model in plan.models.values()]
    inputs += [path for path in (options.get("reference"),) if path is not None]
    before: list[Path] = []
    for name in OUTPUTS:
        path = options[name]
        if path is None:
            continue
        path_text(path)
        files = [path]
        if name == "json":
            check_result_writable(path)
            journal = path.with_name(path.name + SUFFIX)
            check_journal(journal)
            files += [samples_path(path), journal]
        for file in files:
            check_spares(file, [*inputs, *before])
            if name != "json":
                check_writable(file)
            before.append(file)
    folder = _journal_folder(options)
    for file in before:
        if folder is not None and folder.resolve() in file.resolve().parents:
            raise DataError(f"{file} is in {folder}, which goes when the result is complete; choose another place.")


def check_installed(plan: Plan, options: Mapping[str, Any]) -> None:
    """Notice what the end would need and is not installed.

    Raises:
        MissingExtraError: there is such a package.
    """
    needed = ["scipy", "onnx"]
    if plan.images is None:
        needed.append("skimage")
    if options["html"] is not None:
        needed += ["jinja2", "matplotlib"]
    for package in needed:
        if find_spec(package) is None:
            raise MissingExtraError(package, "bench")


def _show_plan(plan: Plan) -> None:
    for planned in plan.cells:
        write_line(cell_text(planned.cell) + ("" if planned.skipped is None else f" - skipped: {planned.skipped}"))
    order = list(turns(plan.measured, plan.rounds, seed=plan.settings.seed))
    seconds = TimeLeft(plan.limits).of(order)
    cells = len(plan.measured)
    write_line(
        f"{cells} combination{'s' * (cells != 1)}, {plan.rounds} round{'s' * (plan.rounds != 1)}, {len(order)} blocks: "
        f"about {duration_text(seconds)}, and what making files of other precisions and engines takes"
    )


def _command(models: Sequence[str], options: Mapping[str, Any]) -> str:
    """What was run, as the result has it: models by their labels, no paths outside the working folder."""
    context = click.get_current_context()
    words = ["gapcam", "bench", *models]
    for name, value in options.items():
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(model_label(value) if isinstance(value, Path) else str(value))
    return shlex.join(words)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else path_text(path)
