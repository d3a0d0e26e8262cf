"""Whether a result's figures are those of its samples, as far as that is computed in no time.

Intervals are not: `gapcam_bench.rows.row_again` computes every figure of a row anew, in the time that bootstraps take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from gapcam.latency import NS_PER_MS
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.row_arrays import stages_in
from gapcam_bench.rows import unexplained
from gapcam_bench.statistics.nearest_rank import percentiles_of

_ROUNDED = 1e-6
"""How far a figure may be from that of the samples, relatively; the JSON has nine digits."""


def contradiction(result: BenchResult, arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """The first figure that the samples contradict, in words; None where there is none.

    Args:
        result: with rows whose count, median and longest of each stage are compared.
        arrays: its raw samples, which have been checked.
    """
    return next((wrong for row in result.rows if row.blocks for wrong in _wrong(row, arrays)), None)


def _wrong(row: Row, arrays: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    wall, device = stages_in(row.id, arrays, "wall"), stages_in(row.id, arrays, "device")
    wall |= {"unexplained": unexplained(wall)}
    for samples, of_stages in ((wall, row.wall), (device, row.device)):
        for stage, figures in of_stages.items():
            median, longest = (percentiles_of(samples[stage], (50, 100)) / NS_PER_MS).tolist()
            for name, said, found in (
                ("count", figures.count, len(samples[stage])),
                ("p50_ms", figures.p50_ms, median),
                ("max_ms", figures.max_ms, longest),
            ):
                if abs(said - found) > _ROUNDED * abs(found):
                    yield f"the {name} of {stage!r:.40} of row {row.id} is {said!r:.20}; its samples say {found:.9g}"
