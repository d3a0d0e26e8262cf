"""Assembles the blocks of a cell into a row of the result, and computes a row's figures again from its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.block import Block
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.result import BESIDES, Cold, Row, Scenario, Spread, Status
from gapcam_bench.row_arrays import (
    block_indices,
    row_arrays,
    scenario_facts,
    spans_of,
    stages_in,
    telemetry_in,
    untraced,
)
from gapcam_bench.scenarios.measured import ScenarioFacts
from gapcam_bench.scenarios.metric import scenario_of, scenario_reasons
from gapcam_bench.statistics.figures import figures_of
from gapcam_bench.statistics.validity import notes_on_noise, reasons_invalid
from gapcam_bench.telemetry.energy import channel_figures, power_capped, throttled
from gapcam_bench.telemetry.energy_of_row import energy_of_row, notes_on_energy
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series, Span

T = TypeVar("T", bound=msgspec.Struct)

ONE_PROCESS = "one process: how processes differ is not in the ±, which is too narrow; take three rounds or more"
TWO_PROCESSES = "two processes: too few for an interval of the p50 or the p99; take three rounds or more"

DIGITS = 9
"""Significant ones of every number in the JSON: of a second, nanoseconds."""


def row_of(
    cell: Cell,
    blocks: Sequence[Block],
    *,
    rounds: int,
    limits: Limits,
    series: Series | None = None,
    idle: Sequence[Span] = (),
    build_s: float | None = None,
    notes: Sequence[str] = (),
) -> tuple[Row, dict[str, NDArray[Any]]]:
    """One row, and its arrays by their names in the result.

    Args:
        cell: the combination.
        blocks: its findings, each of another round, in any order. One without a sample is left out, and noted.
        rounds: that were asked for; a row with fewer is "interrupted".
        limits: by which it is valid.
        series: telemetry of the whole run; None where there is none.
        idle: spans of it in which nothing ran.
        build_s: seconds that the engine took to build, where one was built for this row.
        notes: what a reader should know, beside what the blocks say.
    """
    measured = sorted((block for block in blocks if len(block.measured.at)), key=lambda block: block.facts.round)
    empty = sorted(block.facts.round for block in blocks if not len(block.measured.at))
    notes = [*notes, *(f"round {number} has no samples, and is left out" for number in empty)]
    if not measured:
        return _with_notes(Row(id=cell.key, cell=cell, **_status(0, rounds, ())), notes), {}
    first = measured[0].facts
    row = Row(
        id=cell.key,
        cell=cell,
        status="valid",
        blocks=len(measured),
        model=first.model,
        pictures=first.pictures,
        engine=first.engine,
        providers=first.providers,
        parity=next((block.facts.parity for block in measured if block.facts.parity), None),
        fidelity=next((block.facts.fidelity for block in measured if block.facts.fidelity), None),
    )
    arrays = row_arrays(row.id, measured)
    of_blocks = [block.measured.facts for block in measured]
    row = _figured(row, arrays, of_blocks, series=series, idle=idle, build_s=build_s)
    invalid = [
        *_reasons(row, arrays, limits, series),
        *scenario_reasons(cell.scenario, stages_in(row.id, arrays, "wall"), block_indices(row.id, arrays), of_blocks),
        *_differences(measured),
    ]
    row = msgspec.structs.replace(row, **_status(row.blocks, rounds, invalid))
    notes += [note for block in measured for note in block.facts.notes]
    notes += _of_the_generator(measured)
    notes += notes_on_noise(arrays[f"{row.id}/wall/total"], limits)
    notes += {1: [ONE_PROCESS], 2: [TWO_PROCESSES]}.get(len(measured), [])
    if series is not None:
        spans = spans_of(arrays[f"{row.id}/span"])
        notes += [*power_capped(series, spans), *notes_on_energy(series, spans, device=cell.device)]
    return tidy(_with_notes(row, notes)), arrays


def row_again(
    row: Row,
    arrays: Mapping[str, NDArray[Any]],
    *,
    channels: Sequence[Channel] = (),
) -> Row:
    """The same row, with every figure computed from the arrays anew; it equals the one that was written.

    What no figure is stays as it is: the model, the notes, parity, the status, and the price, which is another row's
    business (`gapcam_bench.price.with_prices`).

    Args:
        row: of a result, with at least one block.
        arrays: of the same result.
        channels: of its telemetry, likewise.
    """
    if row.scenario is None or row.cold is None:
        return row
    series, idle = telemetry_in(arrays, channels)
    facts = scenario_facts(row.id, arrays, row.scenario.generator, row.scenario.frames_per_sample)
    return tidy(_figured(row, arrays, facts, series=series, idle=idle, build_s=row.cold.build_s))


def unexplained(wall: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """What no stage explains of each sample, in nanoseconds: the total without its stages."""
    explained = [values for stage, values in wall.items() if stage not in BESIDES]
    return wall["total"] - np.sum(explained, axis=0, dtype=np.int64, initial=0)


def tidy(struct: T) -> T:
    """A struct of the result with all its numbers rounded, here and nowhere else."""
    return msgspec.convert(_rounded(msgspec.to_builtins(struct)), type(struct))


def _figured(
    row: Row,
    arrays: Mapping[str, NDArray[Any]],
    facts: Sequence[ScenarioFacts],
    *,
    series: Series | None,
    idle: Sequence[Span],
    build_s: float | None,
) -> Row:
    """The row with all figures that its arrays and the telemetry's give."""
    block = arrays[f"{row.id}/block"]
    wall, device = stages_in(row.id, arrays, "wall"), stages_in(row.id, arrays, "device")
    shown = {**{stage: wall[stage] for stage in wall if stage not in BESIDES}, "unexplained": unexplained(wall)} | wall
    scenario = scenario_of(row.cell.scenario, wall, block_indices(row.id, arrays), facts)
    spans = spans_of(arrays[f"{row.id}/span"])
    return msgspec.structs.replace(
        row,
        wall={stage: figures_of(values, block) for stage, values in shown.items()},
        device={stage: figures_of(values, block) for stage, values in device.items()},
        scenario=scenario,
        cold=_cold({name: arrays[f"{row.id}/blocks/{name}"] for name in _COLD}, build_s),
        yardstick=figures_of(arrays[f"{row.id}/yardstick"], arrays[f"{row.id}/yardstick_block"])
        if len(arrays[f"{row.id}/yardstick"])
        else None,
        energy=None
        if series is None
        else energy_of_row(series, spans, _frames(len(block), scenario), idle, device=row.cell.device),
        telemetry={} if series is None else channel_figures(series, spans),
    )


def _frames(samples: int, scenario: Scenario) -> int:
    """That were answered while the row was measured; the server's samples are those of one trial of several."""
    queries = samples if scenario.trials is None else sum(trial.queries for trial in scenario.trials)
    return queries * scenario.frames_per_sample


_COLD = ("import_s", "load_s", "first_result_s", "host_peak_bytes", "device_peak_bytes")


def _cold(costs: Mapping[str, NDArray[np.float64]], build_s: float | None) -> Cold:
    return Cold(
        import_s=_spread(costs["import_s"]),
        load_s=_spread(costs["load_s"]),
        first_result_s=_spread(costs["first_result_s"]),
        build_s=build_s,
        host_peak_bytes=_peak(costs["host_peak_bytes"]),
        device_peak_bytes=_peak(costs["device_peak_bytes"]),
    )


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(median=float(np.median(values)), least=float(values.min()), greatest=float(values.max()))


def _peak(values: NDArray[np.float64]) -> int | None:
    known = values[np.isfinite(values)]
    return int(known.max()) if len(known) else None


def _reasons(row: Row, arrays: Mapping[str, NDArray[Any]], limits: Limits, series: Series | None) -> tuple[str, ...]:
    """Why its samples are no valid measurement."""
    total, block, at = (arrays[f"{row.id}/{name}"] for name in ("wall/total", "block", "at"))
    stable = [bool(value) for value in arrays[f"{row.id}/blocks/warm_up_stable"]]
    invalid = reasons_invalid(total, block, at, limits, stable=stable)
    held = () if series is None else throttled(series, spans_of(arrays[f"{row.id}/span"]))
    return *invalid, *held


def _status(blocks: int, rounds: int, invalid: Sequence[str]) -> dict[str, Any]:
    """Status and reasons."""
    if blocks < rounds:
        return {"status": "interrupted", "reasons": (f"{blocks} of {rounds} rounds were measured", *invalid)}
    status: Status = "invalid" if invalid else "valid"
    return {"status": status, "reasons": tuple(invalid)}


def _differences(blocks: Sequence[Block]) -> list[str]:
    """Reasons why blocks do not measure the same."""
    found = []
    for what, values in (
        ("the model's file", [block.facts.model for block in blocks]),
        ("what is on the pictures", [block.facts.pictures for block in blocks]),
        ("the engine", [block.facts.engine for block in blocks]),
        ("what runs the graph's nodes", [block.facts.providers for block in blocks]),
        ("the load's generator", [block.facts.facts.generator for block in blocks]),
        ("the number of frames a sample", [block.facts.facts.frames_per_sample for block in blocks]),
    ):
        if any(value != values[0] for value in values):
            found.append(f"{what} was not the same in all rounds")
    return found


def _of_the_generator(blocks: Sequence[Block]) -> list[str]:
    """What a reader should know of what LoadGen said, or did not say."""
    found = []
    if without := untraced(blocks):
        found.append(
            f"LoadGen recorded no latencies in {len(without)} of {len(blocks)} blocks, whose queries were too many: "
            "those of the others are left out, and the row is judged by the totals"
        )
    if invalid := sum(block.measured.facts.verdict == "INVALID" for block in blocks):
        found.append(
            f"LoadGen's own verdict on {invalid} of {len(blocks)} blocks is INVALID: too few queries for its early "
            "stopping, or too many late ones, or cut off at the most time"
        )
    return found


def _with_notes(row: Row, notes: Sequence[str]) -> Row:
    return msgspec.structs.replace(row, notes=tuple(dict.fromkeys(notes)))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value
