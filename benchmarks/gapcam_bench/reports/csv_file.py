"""A result as CSV (RFC 4180): one line a row, clock and stage, every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import msgspec

from gapcam.cli.printable import printable
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.statistics.figures import Figures

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet computes: see OWASP, "CSV Injection"."""

ROW_COLUMNS = (
    "row", "status", "reasons", "subject", "model", "source_sha256", "model_sha256", "model_precision", "device",
    "precision", "emit", "batch", "frame_height_px", "frame_width_px", "threads", "scenario", "work", "engine",
    "blocks",
)  # fmt: skip
STAGE_COLUMNS = (
    "stage", "clock", "count", "mean_ms", "sd_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms",
    "p50_ci_low_ms", "p50_ci_high_ms", "p99_ci_low_ms", "p99_ci_high_ms",
)  # fmt: skip
RESULT_COLUMNS = (
    "metric", "metric_value", "metric_unit", "frames_per_s", "offered", "dropped", "price_inference_ratio",
    "price_inference_ci_low", "price_inference_ci_high", "price_total_ratio", "price_total_ci_low",
    "price_total_ci_high", "energy_mj_per_frame", "energy_above_idle_mj_per_frame", "power_w", "energy_channels",
    "import_s", "load_s", "first_result_s", "build_s", "host_peak_bytes", "device_peak_bytes", "parity_holds",
    "parity_logits_error", "fidelity_top1", "fidelity_map_correlation",
)  # fmt: skip
COLUMNS = (*ROW_COLUMNS, *STAGE_COLUMNS, *RESULT_COLUMNS)


def csv_of(result: BenchResult) -> str:
    """The text. What was not measured is empty; a row without any stage has one line.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\r\n")
    lines.writerow(COLUMNS)
    for row in result.rows:
        before, after = tuple(_row_cells(row)), tuple(_result_cells(row))
        for stage in _stages(row) or [("", "", None)]:
            lines.writerow([_cell(value) for value in (*before, *_stage_cells(*stage), *after)])
    return written.getvalue()


def _stages(row: Row) -> list[tuple[str, str, Figures | None]]:
    return [
        (stage, clock, figures)
        for clock, by_stage in (("wall", row.wall), ("device", row.device))
        for stage, figures in by_stage.items()
    ]


def _row_cells(row: Row) -> Iterator[object]:
    cell, model = row.cell, row.model
    yield from (row.id, row.status, "; ".join(row.reasons), cell.subject, cell.model)
    yield from (None, None, None) if model is None else (model.source_sha256, model.sha256, model.precision)
    yield from (cell.device, cell.precision, cell.emit, cell.batch, *cell.frame)
    yield from ("all" if cell.threads is None else cell.threads, cell.scenario, "+".join(cell.work))
    yield from (row.engine, row.blocks)


def _stage_cells(stage: str, clock: str, figures: Figures | None) -> Iterator[object]:
    yield from (stage, clock)
    if figures is None:
        yield from (None for _ in STAGE_COLUMNS[2:])
    else:
        for name, value in msgspec.structs.asdict(figures).items():
            yield from (value or (None, None)) if name.endswith("_ci_ms") else (value,)


def _result_cells(row: Row) -> Iterator[object]:
    scenario, price, energy, cold = row.scenario, row.price, row.energy, row.cold
    yield from (
        (None,) * 6
        if scenario is None
        else (
            scenario.metric,
            scenario.value,
            scenario.unit,
            scenario.frames_a_second,
            scenario.offered,
            scenario.dropped,
        )
    )
    yield from (None,) * 6 if price is None else (price.inference, *price.inference_ci, price.total, *price.total_ci)
    yield from (None,) * 3 if energy is None else (energy.millijoules_a_frame, energy.above_idle, energy.watts)
    yield None if energy is None else "; ".join(energy.channels)
    if cold is None:
        yield from (None,) * 6
    else:
        yield from (cold.import_s.median, cold.load_s.median, cold.first_result_s.median, cold.build_s)
        yield from (cold.host_peak_bytes, cold.device_peak_bytes)
    yield from (None, None) if row.parity is None else (row.parity.holds, row.parity.logits_error)
    yield from (None, None) if row.fidelity is None else (row.fidelity.top1, row.fidelity.map_correlation)


def _cell(value: object) -> object:
    """A value as it is written: numbers as they are, text without what is a command to someone."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
