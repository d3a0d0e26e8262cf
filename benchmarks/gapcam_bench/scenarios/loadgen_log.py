"""What LoadGen wrote down of a run: its figures and its verdict, and every latency that it computed them from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam.errors import DataError

DETAIL, TRACE = "mlperf_log_detail.txt", "mlperf_log_trace.json"

_LAST = '"name":"LastTrace"'

_SAMPLE = re.compile(
    r'"name":"Sample","cat":"default","ph":"b".*?"ts":(?P<ts>[-\d.]+).*?"sample_seq":(?P<sample>\d+),'
    r'"query_seq":(?P<query>\d+),.*?"complete_ns":(?P<ns>\d+)'
)


@dataclass(frozen=True, slots=True, eq=False)
class LoadGenLog:
    """One run.

    Attributes:
        figures: by LoadGen's keys, such as "result_validity", "result_90.00_percentile_latency_ns",
            "early_stopping_latency_ss".
        query: [n] the number of the query that each sample is of, in the order in which samples were scheduled; empty
            where no trace was written.
        scheduled_ns: [n] when each was scheduled, from the first's.
        latency_ns: [n] from then to its completion.
    """

    figures: dict[str, Any]
    query: NDArray[np.int64]
    scheduled_ns: NDArray[np.int64]
    latency_ns: NDArray[np.int64]

    @property
    def verdict(self) -> str:
        """VALID or INVALID."""
        return str(self.figures["result_validity"])

    def query_latency_ns(self) -> NDArray[np.int64]:
        """Of each query that of its last sample."""
        latencies = np.zeros(int(self.query.max(initial=-1)) + 1, np.int64)
        np.maximum.at(latencies, self.query, self.latency_ns)
        return latencies


def read_loadgen_log(folder: Path, *, traced: bool) -> LoadGenLog:
    """Read the detail log's figures, and the trace's samples where there is one.

    LoadGen goes on where it cannot write: a log that ends early is how that is noticed.

    The trace is no valid JSON (LoadGen quotes some strings twice), so its lines are matched one by one. Its times are
    in microseconds with three decimals, which is every nanosecond.

    Args:
        folder: of the logs.
        traced: whether there is a trace.

    Raises:
        DataError: LoadGen could not write all of it.
    """
    figures = {}
    try:
        for line in _text(folder / DETAIL).splitlines():
            entry = msgspec.json.decode(line.removeprefix(":::MLLOG "))
            figures[entry["key"]] = entry["value"]
    except msgspec.DecodeError:
        raise _not_whole(folder / DETAIL) from None
    if "result_validity" not in figures:
        raise _not_whole(folder / DETAIL)
    text = _text(folder / TRACE) if traced else ""
    if traced and _LAST not in text:
        raise _not_whole(folder / TRACE)
    samples = [
        (int(found["sample"]), int(found["query"]), round(float(found["ts"]) * 1e3), int(found["ns"]))
        for found in _SAMPLE.finditer(text)
    ]
    columns = np.array(sorted(samples), np.int64).reshape(-1, 4)
    return LoadGenLog(
        figures=figures,
        query=columns[:, 1],
        scheduled_ns=columns[:, 2] - columns[0, 2] if len(columns) else columns[:, 2],
        latency_ns=columns[:, 3],
    )


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _not_whole(path: Path) -> DataError:
    return DataError(
        f"LoadGen could not write all of its log {path}, as where a disk is full; make room, or choose another place"
    )
