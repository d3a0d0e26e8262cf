"""The price of the map is the ratio to the plain row that is like it in everything else, round by round."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from gapcam_bench.block import Block
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.price import with_prices
from gapcam_bench.reports.columns import figure_columns
from gapcam_bench.reports.words import remarks
from gapcam_bench.result import Row
from gapcam_bench.rows import row_of

MakeBlock = Callable[..., Block]
FEATURES = Cell(model="model.onnx")
PLAIN = msgspec.structs.replace(FEATURES, emit="plain", work=("decode",))
PLAIN_MS = {"decode": 1.0, "inference": 5.0, "device-to-host": 1.0}
FEATURES_MS = {"decode": 1.0, "inference": 5.5, "cam": 0.5, "overlay": 3.0, "device-to-host": 1.2}


def priced(make_block: MakeBlock, *rows: tuple[Cell, dict[str, float], int]) -> tuple[Row, ...]:
    """Rows of cells with stages in milliseconds and rounds, with prices."""
    made, arrays = [], {}
    for cell, ms, rounds in rows:
        blocks = [make_block(cell, round, count=100, ms=ms) for round in range(rounds)]
        row, of_row = row_of(cell, blocks, rounds=rounds, limits=Limits())
        made.append(row)
        arrays |= of_row
    return with_prices(made, arrays)


def test_it_is_of_inference_cam_and_device_to_host_and_of_the_total(make_block: MakeBlock) -> None:
    plain, features = priced(make_block, (PLAIN, PLAIN_MS, 5), (FEATURES, FEATURES_MS, 5))
    assert plain.price is None
    assert features.price is not None
    price = features.price
    assert price.plain == PLAIN.key
    assert math.isclose(price.inference, 7.2 / 6.0, rel_tol=0.01)
    assert price.inference_ci[0] <= price.inference <= price.inference_ci[1]
    assert price.inference_ci[1] / price.inference_ci[0] < 1.05
    assert math.isclose(price.total, 11.25 / 7.05, rel_tol=0.01)  # 0.05 ms is in no stage
    assert price.total_ci[0] <= price.total <= price.total_ci[1]
    assert price.between_processes


def test_the_ratio_is_the_geometric_mean_of_the_rounds(make_block: MakeBlock) -> None:
    blocks = {
        cell: [make_block(cell, round, count=101, ms=ms) for round in range(4)]
        for cell, ms in ((PLAIN, PLAIN_MS), (FEATURES, FEATURES_MS))
    }

    def medians(cell: Cell) -> NDArray[np.float64]:
        return np.array([np.median(block.measured.wall["total"]) for block in blocks[cell]])

    made = [row_of(cell, some, rounds=4, limits=Limits()) for cell, some in blocks.items()]
    (_, features) = with_prices([row for row, _ in made], made[0][1] | made[1][1])
    assert features.price is not None
    expected = np.exp(np.mean(np.log(medians(FEATURES) / medians(PLAIN))))
    assert math.isclose(features.price.total, expected, rel_tol=1e-8)


def test_a_slow_round_slows_both_and_changes_no_price(make_block: MakeBlock) -> None:
    def prices(factors: list[float]) -> tuple[float, float, float]:
        made = []
        for cell, ms in ((PLAIN, PLAIN_MS), (FEATURES, FEATURES_MS)):
            blocks = [make_block(cell, round, count=100, ms=ms) for round in range(len(factors))]
            for block, factor in zip(blocks, factors, strict=True):
                for values in block.measured.wall.values():
                    values[:] = values * factor
            made.append(row_of(cell, blocks, rounds=len(factors), limits=Limits()))
        (_, row) = with_prices([row for row, _ in made], made[0][1] | made[1][1])
        assert row.price is not None
        return row.price.inference, *row.price.inference_ci

    assert prices([1.0, 3.0, 1.0, 2.0]) == pytest.approx(prices([1.0] * 4), rel=1e-6)


def test_a_graph_that_computes_the_maps_itself_has_them_in_its_inference(make_block: MakeBlock) -> None:
    fused = msgspec.structs.replace(FEATURES, emit="topk")
    ms = {"decode": 1.0, "inference": 6.6, "cam": 0.001, "device-to-host": 1.0}
    _, row = priced(make_block, (PLAIN, PLAIN_MS, 3), (fused, ms, 3))
    assert row.price is not None
    assert math.isclose(row.price.inference, 7.6 / 6.0, rel_tol=0.01)


def test_the_same_work_costs_nothing(make_block: MakeBlock) -> None:
    _, row = priced(make_block, (PLAIN, PLAIN_MS, 5), (FEATURES, PLAIN_MS, 5))
    assert row.price is not None
    assert math.isclose(row.price.inference, 1, rel_tol=0.01)


OTHERS: dict[str, Any] = {
    "subject": "torch-cam, eager",
    "model": "another.onnx",
    "device": "cuda",
    "precision": "fp16",
    "batch": 2,
    "frame": (1080, 1920),
    "threads": 1,
    "scenario": "offline",
    "work": ("overlay",),
}


@pytest.mark.parametrize("field", OTHERS)
def test_rows_that_differ_in_more_are_not_compared(make_block: MakeBlock, field: str) -> None:
    other = msgspec.structs.replace(PLAIN, **{field: OTHERS[field]})
    _, row = priced(make_block, (other, PLAIN_MS, 2), (FEATURES, FEATURES_MS, 2))
    assert row.price is None


def test_every_field_of_a_cell_is_among_those_that_may_not_differ() -> None:
    assert {*OTHERS, "emit"} == set(Cell.__struct_fields__)


@pytest.mark.parametrize(
    "work", [("decode",), ("decode", "overlay"), ("decode", "boxes"), ("decode", "overlay", "boxes")]
)
def test_what_is_drawn_may_differ(make_block: MakeBlock, work: tuple[str, ...]) -> None:
    _, row = priced(make_block, (PLAIN, PLAIN_MS, 2), (msgspec.structs.replace(FEATURES, work=work), FEATURES_MS, 2))
    assert row.price is not None


def test_there_is_no_price_without_a_plain_row_that_was_measured(make_block: MakeBlock) -> None:
    assert [row.price for row in priced(make_block, (FEATURES, FEATURES_MS, 2))] == [None]
    assert [row.price for row in priced(make_block, (PLAIN, PLAIN_MS, 0), (FEATURES, FEATURES_MS, 2))] == [None, None]
    assert [row.price for row in priced(make_block, (PLAIN, PLAIN_MS, 2), (FEATURES, FEATURES_MS, 0))] == [None, None]
    no_inference = {"decode": 1.0}
    assert priced(make_block, (PLAIN, no_inference, 2), (FEATURES, no_inference, 2))[1].price is None


def test_rows_without_a_round_in_common_have_no_price(make_block: MakeBlock) -> None:
    plain, first = row_of(PLAIN, [make_block(PLAIN, 0)], rounds=2, limits=Limits())
    features, second = row_of(FEATURES, [make_block(FEATURES, 1)], rounds=2, limits=Limits())
    assert with_prices([plain, features], first | second)[1].price is None


def test_too_few_rounds_are_said(make_block: MakeBlock) -> None:
    _, row = priced(make_block, (PLAIN, PLAIN_MS, 2), (FEATURES, FEATURES_MS, 2))
    assert row.price is not None
    assert not row.price.between_processes
    assert row.price.doubts == ("fewer than three rounds do not tell how processes differ",)


def test_single_samples_have_no_price_since_no_interval_is_known(make_block: MakeBlock) -> None:
    made = [row_of(cell, [make_block(cell, 0, count=1)], rounds=1, limits=Limits()) for cell in (PLAIN, FEATURES)]
    rows = with_prices([row for row, _ in made], made[0][1] | made[1][1])
    assert [row.price for row in rows] == [None, None]
    assert b"null" in msgspec.json.encode(rows[1])


def test_a_price_of_noisy_rounds_or_of_an_invalid_plain_row_says_so(make_block: MakeBlock) -> None:
    lenient = Limits(most_drift=1e9, most_variation=1e9)

    def of(times_longer: list[float], limits: Limits = lenient) -> Row:
        made, arrays = [], {}
        for cell, times in ((PLAIN, times_longer), (FEATURES, [1.0] * len(times_longer))):
            blocks = [
                make_block(cell, round, ms={name: ms * times[round] for name, ms in FEATURES_MS.items()})
                for round in range(len(times))
            ]
            row, of_row = row_of(cell, blocks, rounds=len(times), limits=limits)
            made.append(row)
            arrays |= of_row
        return with_prices(made, arrays)[1]

    rounds = [0.5, 2.0, 1.0, 0.5, 2.0]
    steady, noisy, invalid = of([1.0] * 5), of(rounds), of(rounds, Limits())
    assert steady.price is not None
    assert steady.price.doubts == ()
    assert not any("price" in said for _, said in remarks([steady]))
    assert noisy.price is not None
    assert noisy.price.doubts == ("its interval is wider than 25 % on a side",)
    (column,) = (each for each in figure_columns([noisy]) if each.title == "map's price")
    assert noisy.price.inference_ci[1] > 2 * noisy.price.inference
    assert column.text(noisy) == f"{noisy.price.inference:.3f}x ± > 2x ?"
    assert any("the map's price is not to be relied on: its interval" in said for _, said in remarks([noisy]))
    assert invalid.price is not None
    assert invalid.price.doubts == ("its plain row is INVALID", *noisy.price.doubts)
    interrupted = with_prices(*_interrupted(make_block))[1]
    assert interrupted.price is not None
    assert interrupted.price.doubts == ("its plain row is INTERRUPTED",)


def _interrupted(make_block: MakeBlock) -> tuple[list[Row], dict[str, NDArray[Any]]]:
    made = [
        row_of(cell, [make_block(cell, round, ms=ms) for round in range(3)], rounds=rounds, limits=Limits())
        for cell, ms, rounds in ((PLAIN, PLAIN_MS, 4), (FEATURES, FEATURES_MS, 3))
    ]
    return [row for row, _ in made], made[0][1] | made[1][1]
