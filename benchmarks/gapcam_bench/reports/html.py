"""A result as one HTML page that needs nothing else: no script, no request, its plots are in it.

The same result gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

from numpy.typing import NDArray

from gapcam.cli.printable import printable
from gapcam.errors import MissingExtraError
from gapcam_bench.reports.columns import figure_columns, identity_of, stages_of, status_columns
from gapcam_bench.reports.formats import FAR, from_to, is_far, milliseconds, size
from gapcam_bench.reports.plots.drift import drift_plot
from gapcam_bench.reports.plots.latency import latency_plot
from gapcam_bench.reports.plots.palette import variables
from gapcam_bench.reports.plots.pareto import pareto_plot
from gapcam_bench.reports.plots.plot import Plot, Shown
from gapcam_bench.reports.plots.rates import rate_plot
from gapcam_bench.reports.plots.stage_stacks import stage_plot
from gapcam_bench.reports.plots.svg import StyleSheet, plottable
from gapcam_bench.reports.plots.telemetry import telemetry_plot
from gapcam_bench.reports.words import (
    cold_words,
    logits_words,
    machine_lines,
    remarks,
    run_line,
    scenario_words,
)
from gapcam_bench.result import BenchResult, ChannelFigures, Row
from gapcam_bench.statistics.figures import Figures
from gapcam_bench.telemetry.reading import UNITS, Quantity


def page_of(result: BenchResult, arrays: Mapping[str, NDArray[Any]], lacks_samples: str | None = None) -> str:
    """The page.

    All text that comes from elsewhere (names of files and devices, messages) is escaped, and the page forbids itself
    everything but its own style sheet.

    Args:
        result: to show.
        arrays: raw samples by the names of `gapcam_bench.result`; without them, the page says which plots need them.
        lacks_samples: why there are none, if there are none.

    Raises:
        MissingExtraError: Jinja or matplotlib is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "bench")
    from gapcam_export.report_page import report_page  # here, since it needs Jinja

    rows = result.rows
    units = {channel.name: channel.quantity for channel in result.channels}
    identity = identity_of(rows)
    labels = zip(identity.short_labels(rows), map(identity.label, rows), rows, strict=True)
    shown = [
        Shown(number, row, plottable(label), plottable(short)) for number, (short, label, row) in enumerate(labels, 1)
    ]
    sheet = StyleSheet()
    plots = _plots(result, arrays, shown, sheet)
    here = resources.files(__package__).joinpath("templates")
    style = "\n".join(
        (
            f":root {{ color-scheme: light dark; {variables(dark=False)} }}",
            f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}",
            here.joinpath("report.css").read_text(encoding="utf-8"),
            sheet.text(),
        )
    )
    return report_page(
        here.joinpath("report.html").read_text(encoding="utf-8"),
        style,
        finalize=lambda value: printable(value, lines=True) if type(value) is str else value,
        result=result,
        models=list(dict.fromkeys(PurePath(row.cell.model).name for row in rows)),
        run=run_line(result),
        machine=machine_lines(result.machine),
        common=identity.common,
        columns=[*status_columns(rows), *identity.varying, *figure_columns(rows)],
        shown=shown,
        remarks=remarks(rows),
        plots=[plot for plot in plots if plot.drawings],
        undrawn=[plot for plot in plots if not plot.drawings],
        lacks_samples="" if arrays else lacks_samples or "there are no raw samples beside this result",
        details=[_details(it, units) for it in shown],
        ms=milliseconds,
        from_to=from_to,
    )


def _plots(
    result: BenchResult, arrays: Mapping[str, NDArray[Any]], shown: Sequence[Shown], sheet: StyleSheet
) -> list[Plot]:
    plots = (
        latency_plot(shown, arrays, sheet),
        stage_plot(shown, sheet),
        pareto_plot(shown, sheet),
        rate_plot(shown, sheet),
        drift_plot(shown, arrays, sheet),
        telemetry_plot(shown, result.channels, arrays, result.lacking, sheet),
    )
    return [plot for plot in plots if plot is not None]


def _details(it: Shown, units: Mapping[str, Quantity]) -> dict[str, Any]:
    """All that is known of a row: its facts, its figures by stage and clock, and its telemetry."""
    return {
        "number": it.number,
        "label": it.label,
        "facts": _facts(it.row, units),
        "times": _times(it.row),
        "row": it.row,
    }


def _facts(row: Row, units: Mapping[str, Quantity]) -> list[tuple[str, str]]:
    facts = [("scenario", scenario_words(row)), ("engine", row.engine or "")]
    if row.providers:
        facts.append(("nodes by provider", ", ".join(f"{name} {count}" for name, count in row.providers.items())))
    if row.model is not None:
        model = row.model
        source = model.source_sha256 or model.sha256
        facts.append(("model", f"{model.name}, input {model.input_size[1]}x{model.input_size[0]}, SHA-256 {source}"))
        if source != model.sha256:
            facts.append(("what was loaded", f"a file made of it, SHA-256 {model.sha256}"))
        facts.append(("precision", f"{model.precision or 'unknown'}, from {model.precision_source}"))
        facts.append(("head", model.head or "no contract: measured as a plain classifier"))
    if row.price is not None:
        price = row.price
        facts.append(
            (
                "map's price",
                f"inference and map: {_ratio_words(price.inference, price.inference_ci)} times inference alone; "
                f"the whole frame: {_ratio_words(price.total, price.total_ci)}"
                + "".join(f"; {doubt}" for doubt in price.doubts),
            )
        )
    if row.cold is not None:
        facts.append(("before the first answer", f"{cold_words(row.cold)} (medians of {row.blocks} processes)"))
    if row.energy is not None:
        energy = row.energy
        above = "" if energy.above_idle is None else f", of these {energy.above_idle:.1f} above idle"
        facts.append(
            (
                "energy",
                f"{energy.millijoules_a_frame:.1f} mJ a frame{above}; {energy.watts:.2f} W, {energy.frames} frames; "
                f"{', '.join(energy.channels)}",
            )
        )
    for name, found in (("parity", row.parity), ("fidelity", row.fidelity)):
        if found is not None:
            maps = "" if found.map_correlation is None else f", maps correlate by {found.map_correlation:.4f} or more"
            verdict = f"; {'holds' if found.holds else 'DIFFERS'}" if name == "parity" else ""
            facts.append(
                (
                    name,
                    f"against {found.against} on {found.pictures} pictures: same best class on {found.top1:.1%}, "
                    f"{logits_words(found)}{maps}{verdict}",
                )
            )
    if row.yardstick is not None:
        facts.append(
            (
                "yardstick",
                f"{milliseconds(row.yardstick.p50_ms)} ms for a fixed piece of work, p99 "
                f"{milliseconds(row.yardstick.p99_ms)} ms",
            )
        )
    facts += [
        (name, f"{_telemetry_words(figures, units.get(name))} ({figures.readings} readings)")
        for name, figures in row.telemetry.items()
    ]
    return [(name, text) for name, text in facts if text]


def _ratio_words(ratio: float, interval: tuple[float, float]) -> str:
    far = is_far(ratio, interval)
    return f"{ratio:.4f} [{f'> {FAR:g}x' if far else f'{interval[0]:.4f}, {interval[1]:.4f}'}]"


def _telemetry_words(figures: ChannelFigures, quantity: Quantity | None) -> str:
    def of(value: float) -> str:
        if quantity == "memory":
            return size(int(value))
        return f"{value:.4g} {UNITS[quantity]}" if quantity in UNITS else f"{value:.4g}"

    if figures.rise is not None:
        return f"rose by {of(figures.rise)}"
    if figures.mean is None or figures.least is None or figures.greatest is None:
        return "could not be read"
    return f"mean {of(figures.mean)}, from {of(figures.least)} to {of(figures.greatest)}"


def _times(row: Row) -> list[tuple[str, str, Figures]]:
    """Stage, clock and figures, in the order of the data; what they are part of comes last."""
    times = [(stage, "host", row.wall[stage]) for stage in stages_of([row])]
    whole = [stage for stage in ("total", "latency", "age") if stage in row.wall]
    times += [(stage, "host", row.wall[stage]) for stage in whole]
    times += [(stage, "device", row.device[stage]) for stage in stages_of([row], "device")]
    return times
