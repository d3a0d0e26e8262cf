"""A row is what its blocks say, and every figure of it can be computed from the arrays again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

from gapcam_bench.block import Block, ModelFacts, Parity, WarmUp
from gapcam_bench.cell import Cell, ScenarioName
from gapcam_bench.limits import Limits
from gapcam_bench.price import with_prices
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.result_file import LoadedResult
from gapcam_bench.row_arrays import telemetry_arrays
from gapcam_bench.rows import ONE_PROCESS, TWO_PROCESSES, row_again, row_of, tidy, unexplained
from gapcam_bench.scenarios.measured import Trial
from gapcam_bench.schema import PATH
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series

CELL = Cell(model="model.onnx")
LAX = Limits(most_variation=10, most_drift=10, least_row_samples=1)
MakeBlock = Callable[..., Block]
Arrays = dict[str, NDArray[Any]]


def a_row(blocks: list[Block], cell: Cell = CELL, **more: Any) -> tuple[Row, Arrays]:
    """A row of as many rounds as there are blocks."""
    return row_of(cell, blocks, **{"rounds": len(blocks), "limits": LAX, **more})


def test_samples_of_all_blocks_stand_one_after_the_other_with_their_rounds(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, 3, count=20), make_block(CELL, 0, count=30)]
    row, arrays = a_row(blocks)
    assert row.blocks == 2
    assert row.wall["total"].count == 50
    assert np.array_equal(arrays[f"{CELL.key}/block"], [0] * 30 + [3] * 20)
    for stage, values in blocks[1].measured.wall.items():
        assert np.array_equal(arrays[f"{CELL.key}/wall/{stage}"][:30], values)
    assert np.array_equal(arrays[f"{CELL.key}/at"][30:], blocks[0].measured.at)
    assert arrays[f"{CELL.key}/blocks/round"].tolist() == [0, 3]
    assert np.array_equal(arrays[f"{CELL.key}/span"][1], [blocks[0].facts.began_at, blocks[0].facts.ended_at])


def test_figures_are_those_of_numpy(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round) for round in range(3)]
    row, _ = a_row(blocks)
    for stage in (*blocks[0].measured.wall, "unexplained"):
        ms = np.concatenate(
            [
                block.measured.wall[stage]
                if stage != "unexplained"
                else block.measured.wall["total"] - sum(v for k, v in block.measured.wall.items() if k != "total")
                for block in blocks
            ]
        ) / np.float64(1e6)
        figures = row.wall[stage]
        assert figures.count == 180
        assert math.isclose(figures.mean_ms, ms.mean(), rel_tol=1e-8)
        assert math.isclose(figures.sd_ms, ms.std(ddof=1), rel_tol=1e-8)
        assert math.isclose(figures.p50_ms, np.percentile(ms, 50, method="inverted_cdf"), rel_tol=1e-8)
        assert math.isclose(figures.p99_ms, np.percentile(ms, 99, method="inverted_cdf"), rel_tol=1e-8)
        assert math.isclose(figures.max_ms, ms.max(), rel_tol=1e-8)
        assert figures.p50_ci_ms is not None
        assert figures.p50_ci_ms[0] <= figures.p50_ms <= figures.p50_ci_ms[1]


def test_stages_stand_in_the_order_of_the_data_then_what_they_do_not_explain_then_the_total(
    make_block: MakeBlock,
) -> None:
    row, _ = a_row([make_block(CELL, 0, ms={"boxes": 1.0, "cam": 2.0, "inference": 5.0, "decode": 1.0})])
    assert list(row.wall) == ["decode", "inference", "cam", "boxes", "unexplained", "total"]


def test_a_stage_that_only_some_blocks_have_is_nothing_in_the_others(make_block: MakeBlock) -> None:
    row, arrays = a_row([make_block(CELL, 0, count=30), make_block(CELL, 1, count=30, ms={"inference": 5.0})])
    cam = arrays[f"{CELL.key}/wall/cam"]
    assert (cam[:30] > 0).all()
    assert (cam[30:] == 0).all()
    assert row.wall["cam"].count == 60


def test_a_device_has_figures_of_its_own(make_block: MakeBlock) -> None:
    cell = msgspec.structs.replace(CELL, device="cuda")
    row, _ = a_row([make_block(cell, round) for round in range(2)], cell)
    assert list(row.device) == ["inference"]
    assert math.isclose(row.device["inference"].p50_ms, 0.9 * row.wall["inference"].p50_ms, rel_tol=1e-3)
    assert a_row([make_block(CELL, 0)])[0].device == {}


def test_cold_costs_are_medians_of_the_processes_and_peaks_the_greatest(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round) for round in range(3)]
    row, _ = a_row(blocks, build_s=12.0)
    assert row.cold is not None
    loads = sorted(block.facts.cold.load_s for block in blocks)
    assert [row.cold.load_s.least, row.cold.load_s.median, row.cold.load_s.greatest] == pytest.approx(loads)
    assert row.cold.host_peak_bytes == max(block.facts.cold.host_peak_bytes or 0 for block in blocks)
    assert row.cold.device_peak_bytes is None
    assert row.cold.build_s == 12.0


def test_a_row_with_fewer_rounds_than_asked_for_is_interrupted(make_block: MakeBlock) -> None:
    row, _ = a_row([make_block(CELL, 0), make_block(CELL, 1)], rounds=5)
    assert row.status == "interrupted"
    assert row.reasons == ("2 of 5 rounds were measured",)
    none, arrays = a_row([], rounds=5)
    assert none.status == "interrupted"
    assert none.reasons == ("0 of 5 rounds were measured",)
    assert none.wall == {}
    assert arrays == {}


def test_a_block_without_samples_is_left_out_and_noted(make_block: MakeBlock) -> None:
    row, arrays = a_row([make_block(CELL, 0), make_block(CELL, 1, count=0)])
    assert row.blocks == 1
    assert row.notes[0] == "round 1 has no samples, and is left out"
    assert set(arrays[f"{CELL.key}/block"]) == {0}
    assert row.status == "interrupted"


def test_a_steady_row_is_valid_and_others_say_why_not(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round) for round in range(3)]
    assert a_row(blocks, limits=Limits())[0].status == "valid"
    slow = make_block(CELL, 3, ms={"inference": 20.0})
    cold = make_block(CELL, 4, warm_up=WarmUp(seconds=10, samples=9, stable=False))
    other = ModelFacts(
        name="model.onnx", sha256="1" * 64, precision=None, precision_source="", input_size=(1, 1), head=None
    )
    for block, words in (
        (slow, "drift between blocks"),
        (cold, "warm"),
        (make_block(CELL, 5, model=other), "the model's file was not the same in all rounds"),
        (make_block(CELL, 5, engine="another"), "the engine was not the same in all rounds"),
        (make_block(CELL, 5, providers=None), "what runs the graph's nodes was not the same in all rounds"),
    ):
        row, _ = a_row([*blocks, block], limits=Limits())
        assert row.status == "invalid"
        assert any(words in reason for reason in row.reasons), row.reasons
    assert "too few samples" in a_row([make_block(CELL, 0)], limits=Limits())[0].reasons[0]


def test_throttling_makes_a_row_invalid(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round) for round in range(3)]
    throttle = Channel(name="cpu/throttle", quantity="throttle", source="procfs")
    for held in (0.0, 1.0):
        series = a_series(blocks, throttle, held)
        row, _ = a_row(blocks, series=series, limits=Limits())
        assert row.status == ("invalid" if held else "valid")
        assert [reason for reason in row.reasons if "clocks were held down" in reason] == list(row.reasons)


def test_parity_is_that_of_the_block_that_was_checked_and_none_where_none_was(make_block: MakeBlock) -> None:
    assert a_row([make_block(CELL, 0)])[0].parity is None
    parity = Parity(
        against="model.onnx",
        pictures=8,
        top1=1.0,
        logits_error=1e-6,
        map_correlation=1.0,
        holds=True,
        tolerance=1e-4,
    )
    row, _ = a_row([make_block(CELL, 0, parity=parity), make_block(CELL, 1)])
    assert row.parity == parity
    assert row.fidelity is None


def test_notes_are_said_once(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round, notes=("has no contract",)) for round in range(2)]
    assert a_row(blocks, notes=("made of float32",))[0].notes[:2] == ("made of float32", "has no contract")


def a_series(blocks: list[Block], channel: Channel, value: float) -> Series:
    """A reading every half second from before the first block to after the last one."""
    began, ended = min(b.facts.began_at for b in blocks), max(b.facts.ended_at for b in blocks)
    time = np.arange(began - 20, ended + 5, 0.5)
    return Series(time=time, values={channel.name: np.full(len(time), value)}, channels=(channel,), lacking={})


POWER = Channel(name="rapl/package-0", quantity="power", source="rapl")
CARD = Channel(name="nvml0/power", quantity="power", source="nvml", gpu=0)


@pytest.mark.parametrize("batch", [1, 4])
def test_energy_is_shared_among_all_frames(make_block: MakeBlock, batch: int) -> None:
    cell = msgspec.structs.replace(CELL, batch=batch)
    blocks = [make_block(cell, round, count=100) for round in range(2)]
    row, _ = a_row(blocks, cell, series=a_series(blocks, POWER, 20.0))
    assert row.energy is not None
    assert row.energy.frames == 200 * batch
    seconds = sum(block.facts.ended_at - block.facts.began_at for block in blocks)
    assert row.energy.millijoules_a_frame == pytest.approx(20e3 * seconds / (200 * batch))
    assert row.telemetry[POWER.name].mean == 20.0
    assert row.scenario is not None
    assert row.scenario.frames_per_sample == batch
    assert row.wall["total"].count == 200, "figures are of queries"


def test_a_row_says_of_which_channel_its_energy_is_missing(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round, count=1000) for round in range(2)]
    series = a_series(blocks, POWER, 20.0)
    began = blocks[1].facts.began_at
    series.values[POWER.name][(series.time > began) & (series.time < began + 3)] = np.nan
    row, _ = a_row(blocks, series=series)
    assert row.energy is None
    assert [note for note in row.notes if note.startswith(f"no energy: {POWER.name} was not read throughout")]


TRIALS = (
    Trial(rate=50.0, p99_ms=9.0, queries=1001, kept=True, certified=True),
    Trial(rate=120.5, p99_ms=1e3 / 3, queries=400, kept=False, certified=False),
)


def test_energy_of_the_server_scenario_is_shared_among_the_queries_of_all_trials(make_block: MakeBlock) -> None:
    """Its samples are those of one trial, and its spans have all of them in."""
    cell = msgspec.structs.replace(CELL, scenario="server")
    blocks = [make_block(cell, round, count=100, rate=50.0, bound_ms=10.0, trials=TRIALS) for round in range(3)]
    for block in blocks:
        block.measured.wall["latency"] = block.measured.wall["total"] + 12_345
    row, _ = a_row(blocks, cell, series=a_series(blocks, POWER, 20.0))
    assert row.energy is not None
    assert row.energy.frames == 3 * (1001 + 400)
    seconds = sum(block.facts.ended_at - block.facts.began_at for block in blocks)
    assert row.energy.millijoules_a_frame == pytest.approx(20e3 * seconds / row.energy.frames)


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream"])
def test_where_loadgen_traced_some_blocks_only_the_row_is_judged_by_the_totals(
    make_block: MakeBlock, scenario: ScenarioName
) -> None:
    cell = msgspec.structs.replace(CELL, scenario=scenario)
    blocks = [make_block(cell, round, count=700) for round in range(3)]
    for block in blocks[:2]:
        block.measured.wall["latency"] = block.measured.wall["total"] + 40_000
    row, arrays = a_row(blocks, cell)
    assert "latency" not in row.wall
    assert f"{row.id}/wall/latency" not in arrays
    assert row.scenario is not None
    totals = row.wall["total"]
    assert row.scenario.value == (totals.p90_ms if scenario == "single-stream" else totals.p99_ms)
    assert row.scenario.early_stopping is not None
    assert row.scenario.early_stopping >= row.scenario.value
    (note,) = [note for note in row.notes if "LoadGen" in note]
    assert note.startswith("LoadGen recorded no latencies in 1 of 3 blocks")
    assert row_again(row, arrays) == row
    blocks[2].measured.wall["latency"] = blocks[2].measured.wall["total"] + 40_000
    traced, _ = a_row(blocks, cell)
    assert traced.wall["latency"].p50_ms == pytest.approx(row.wall["total"].p50_ms + 0.04)
    assert not [note for note in traced.notes if "LoadGen" in note]


def test_a_verdict_of_loadgens_that_is_invalid_is_noted(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round, verdict="INVALID" if round else "VALID") for round in range(3)]
    row, _ = a_row(blocks)
    assert row.status == "valid"
    (note,) = [note for note in row.notes if "LoadGen" in note]
    assert note.startswith("LoadGen's own verdict on 2 of 3 blocks is INVALID")
    assert a_row(blocks[:1])[0].notes == (ONE_PROCESS,)


def test_a_row_of_too_few_processes_says_so_and_others_do_not(make_block: MakeBlock) -> None:
    blocks = [make_block(CELL, round) for round in range(3)]
    for rounds in (3, 5):
        assert a_row(blocks[:1], rounds=rounds)[0].notes == (ONE_PROCESS,)
        assert a_row(blocks[:2], rounds=rounds)[0].notes == (TWO_PROCESSES,)
        assert a_row(blocks, rounds=rounds)[0].notes == ()


def several_rows(make_block: MakeBlock) -> tuple[list[Row], Arrays, Series]:
    """Rows of all kinds, with telemetry."""
    cells = {
        "plain": (msgspec.structs.replace(CELL, emit="plain", work=("decode",)), {}),
        "features": (CELL, {}),
        "batch": (msgspec.structs.replace(CELL, batch=4, scenario="offline"), {}),
        "device": (msgspec.structs.replace(CELL, device="cuda", emit="topk"), {}),
        "camera": (
            msgspec.structs.replace(CELL, scenario="camera"),
            {"rate": 15.0, "offered": 70, "dropped": 10},
        ),
        "server": (
            msgspec.structs.replace(CELL, scenario="server"),
            {"rate": 50.0, "bound_ms": 10 / 3, "trials": TRIALS, "verdict": "VALID"},
        ),
    }
    blocks = {name: [make_block(cell, round, **facts) for round in range(3)] for name, (cell, facts) in cells.items()}
    for name, more in (("camera", "age"), ("server", "latency")):
        for block in blocks[name]:
            block.measured.wall[more] = block.measured.wall["total"] + 12_345
    series = a_series([block for some in blocks.values() for block in some], POWER, 100 / 3)
    series = dataclasses.replace(series, channels=(POWER, CARD))
    series.values[CARD.name] = np.full(len(series.time), 200 / 3)
    idle = ((float(series.time[0]), float(series.time[8])),)
    rows, arrays = [], telemetry_arrays(series, idle)
    for name, (cell, _) in cells.items():
        row, of_row = a_row(blocks[name], cell, series=series, idle=idle)
        rows.append(row)
        arrays |= of_row
    return rows, arrays, series


def test_every_figure_is_computed_from_the_arrays_again(make_block: MakeBlock) -> None:
    rows, arrays, series = several_rows(make_block)
    for row in rows:
        assert row_again(without_figures(row), arrays, channels=series.channels) == row
    for row in rows:
        assert row.energy is not None
        on_card = row.cell.device == "cuda"
        assert row.energy.channels == ((POWER.name, CARD.name) if on_card else (POWER.name,))
        assert row.energy.watts == pytest.approx(100 if on_card else 100 / 3)
    kinds = {row.cell.scenario: row.scenario for row in rows if row.scenario is not None}
    server, camera = kinds["server"], kinds["camera"]
    assert server.trials == tidy_trials(TRIALS) * 3
    assert server.bound_ms == 3.33333333
    assert (camera.offered, camera.dropped) == (210, 30)


def tidy_trials(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    return tuple(tidy(trial) for trial in trials)


def without_figures(row: Row) -> Row:
    """The row with every figure falsified that the arrays give."""
    false: Any = json.loads(msgspec.json.encode(row))

    def falsified(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: falsified(each) for key, each in value.items()}
        if isinstance(value, list):
            return [falsified(each) for each in value]
        return value + 1 if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    kept = ("generator", "frames_per_sample", "build_s")  # said by no array
    for part in ("wall", "device", "scenario", "cold", "yardstick", "energy", "telemetry"):
        before = false[part]
        if before is not None:
            false[part] = {**falsified(before), **{name: before[name] for name in kept if name in before}}
    return msgspec.convert(false, Row)


def test_falsified_rows_differ(make_block: MakeBlock) -> None:
    rows, _, _ = several_rows(make_block)
    for row in rows:
        false = without_figures(row)
        for part in ("wall", "scenario", "cold", "yardstick", "energy", "telemetry"):
            assert getattr(false, part) != getattr(row, part)


def test_numbers_have_nine_digits_and_more_rounding_changes_nothing(make_block: MakeBlock) -> None:
    rows, _, _ = several_rows(make_block)
    for row in rows:
        assert tidy(row) == row
        text = msgspec.json.encode(row).decode()
        digits = [
            number.split("e")[0].replace(".", "").lstrip("0") for number in numbers(json.loads(text, parse_float=str))
        ]
        assert max(map(len, digits)) <= 9 + 1  # "5.0" is one digit, written as two


def numbers(value: Any) -> list[str]:
    """Every number with a point in a decoded JSON whose floats were left as text."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in numbers(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    return [value] if isinstance(value, str) and value.replace(".", "", 1).replace("e-", "", 1).isdecimal() else []


def test_what_is_unexplained_is_the_total_without_the_stages_alone() -> None:
    wall = {
        "decode": np.array([1, 2]),
        "cam": np.array([3, 0]),
        "total": np.array([10, 3]),
        "latency": np.array([100, 100]),
        "age": np.array([100, 100]),
    }
    assert unexplained(wall).tolist() == [6, 1]
    assert unexplained({"total": np.array([5])}).tolist() == [5]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_samples_give_a_row_that_json_can_hold(make_block: MakeBlock, data: st.DataObject) -> None:
    scenario = data.draw(st.sampled_from(["single-stream", "multi-stream", "offline", "camera"]))
    cell = msgspec.structs.replace(CELL, scenario=scenario)
    blocks = []
    for round in range(data.draw(st.integers(1, 3))):
        block = make_block(cell, round, count=data.draw(st.sampled_from([1, 2, 3, 30])))
        for stage, values in block.measured.wall.items():
            least = 1 if stage == "total" else 0
            values[:] = data.draw(st.sampled_from([least, 7, 10**13])) if data.draw(st.booleans()) else values
        blocks.append(block)
    row, arrays = a_row(blocks, cell, limits=Limits())
    decoded = msgspec.json.decode(msgspec.json.encode(row), type=Row)
    assert decoded == row
    assert row_again(row, arrays) == row


def test_every_figure_of_a_real_result_is_computed_from_its_arrays_again(real: LoadedResult) -> None:
    result, arrays = real.result, real.needed_arrays()
    assert [row.cell.emit for row in result.rows] == ["plain", "features", "topk"]
    again = [row_again(without_figures(row), arrays, channels=result.channels) for row in result.rows]
    assert with_prices(again, arrays) == result.rows
    assert [row.price is None for row in result.rows] == [True, False, False]


def test_a_real_result_keeps_the_published_schema(real: LoadedResult) -> None:
    Draft202012Validator(json.loads(PATH.read_bytes())).validate(json.loads(real.path.read_bytes()))
    assert msgspec.json.decode(real.path.read_bytes(), type=BenchResult) == real.result


def test_stages_of_a_real_result_never_explain_more_than_the_total(real: LoadedResult) -> None:
    for row in real.result.rows:
        prefix = f"{row.id}/wall/"
        wall = {name.removeprefix(prefix): a for name, a in real.arrays.items() if name.startswith(prefix)}
        left = unexplained(wall)
        assert left.min() >= 0
        assert {"preprocess", "inference"} <= wall.keys()
        assert np.median(left) < np.median(wall["total"]) / 2, "most of it is explained"
