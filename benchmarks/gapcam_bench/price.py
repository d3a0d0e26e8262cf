"""What the map costs: each row against the row that is like it and computes no map.

The row that it is held against has `emit` "plain" and the same subject, model, device, precision, batch, frame, threads
and scenario. Of `work`, overlay and boxes may differ, since a plain row has no map to draw; decoding may not.

Two ratios, each of medians over samples by the host's clock, taken round by round (`paired_ratio`), since the blocks of
one round were measured in turn, and what slows a round slows both:

- inference: of what it takes to have the logits on the host, and the map with them. It is inference + cam +
  device-to-host, over the plain row's inference. device-to-host is, by the host's clock, the map's download and nothing
  else, whatever is drawn. Where the graph itself computes the maps (`maps`, `topk`), they are in its inference, and cam
  is what is left to do: nearly nothing. On the CPU, inference begins at the network's input. On a CUDA device the host
  sees upload, preprocessing and inference as one call, in both rows alike: there the ratio begins at the frame, and is
  closer to 1 than one of the network alone would be.
- total: of the whole call, from the frame to the answer: over what a plain classifier of the same frame takes. Here
  overlay and boxes count, too.

A ratio of 1.03 says that the map costs 3 % of the inference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.cell import ON_A_MAP, Cell
from gapcam_bench.result import Price, Row
from gapcam_bench.rows import tidy
from gapcam_bench.statistics.ratio import Ratio, paired_ratio

PRICED = ("inference", "cam", "device-to-host")
"""Stages, by the host's clock, that the ratio of inferences is of. A stage that a row does not have is 0."""

WIDE = 0.25
"""Of the ratio: an interval that reaches further says little."""


def with_prices(rows: Sequence[Row], arrays: Mapping[str, NDArray[Any]]) -> tuple[Row, ...]:
    """The rows, each with its price where there is a plain row like it with a round in common.

    Args:
        rows: of one run.
        arrays: of all of them.
    """
    plain = {_but_for_the_map(row.cell): row for row in rows if row.cell.emit == "plain" and row.blocks}
    return tuple(
        msgspec.structs.replace(
            row,
            price=_price(row, plain.get(_but_for_the_map(row.cell)), arrays)
            if row.cell.emit != "plain" and row.blocks
            else None,
        )
        for row in rows
    )


def _but_for_the_map(cell: Cell) -> Cell:
    work = tuple(each for each in cell.work if each not in ON_A_MAP)
    return msgspec.structs.replace(cell, emit="plain", work=work)


def _price(row: Row, plain: Row | None, arrays: Mapping[str, NDArray[Any]]) -> Price | None:
    if plain is None or not np.intersect1d(arrays[f"{row.id}/block"], arrays[f"{plain.id}/block"]).size:
        return None
    inference, total = (_ratio(row, plain, arrays, stages) for stages in (PRICED, ("total",)))
    if inference is None or total is None:
        return None
    low, high = inference.ci
    doubts = [f"its plain row is {plain.status.upper()}"] if plain.status != "valid" else []
    if not inference.between_processes:
        doubts.append("fewer than three rounds do not tell how processes differ")
    if max(inference.ratio / low, high / inference.ratio) > 1 + WIDE:
        doubts.append(f"its interval is wider than {100 * WIDE:.0f} % on a side")
    return tidy(
        Price(
            plain=plain.id,
            inference=inference.ratio,
            inference_ci=inference.ci,
            total=total.ratio,
            total_ci=total.ci,
            between_processes=inference.between_processes and total.between_processes,
            doubts=tuple(doubts),
        )
    )


def _ratio(row: Row, plain: Row, arrays: Mapping[str, NDArray[Any]], stages: Sequence[str]) -> Ratio | None:
    new, old = (_sum(each, arrays, stages) for each in (row, plain))
    if min(new.min(), old.min()) <= 0:  # a subject that does not say how long its inference took
        return None
    ratio = paired_ratio(new, arrays[f"{row.id}/block"], old, arrays[f"{plain.id}/block"])
    return ratio if math.isfinite(ratio.ci_high) else None  # of one or two samples, no interval is known


def _sum(row: Row, arrays: Mapping[str, NDArray[Any]], stages: Sequence[str]) -> NDArray[np.int64]:
    there = [arrays[name] for stage in stages if (name := f"{row.id}/wall/{stage}") in arrays]
    return np.sum(there, axis=0, dtype=np.int64) if there else np.zeros(1, np.int64)
