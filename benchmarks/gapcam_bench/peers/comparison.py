"""Peers against gapcam: every time in units of gapcam's for the same frames and the same picture, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.cell import GAPCAM, Cell, Work
from gapcam_bench.peers.names import PEERS
from gapcam_bench.result import BenchResult, Row
from gapcam_bench.statistics.ratio import Ratio, paired_ratio

Arrays = Mapping[str, NDArray[Any]]

_OURS = {
    "features": ("gapcam", "ONNX Runtime, the map in NumPy"),
    "topk": ("gapcam, top-k", "the same with the best five classes' maps computed in the graph"),
    "plain": ("no map", "gapcam's classifier alone, for scale"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One way, in one group.

    Attributes:
        name: of it.
        row: what was measured.
        ratio: of its total to gapcam's; None for gapcam itself, where one of the two was not measured, and where the
            answers of one of them differ.
    """

    name: str
    row: Row
    ratio: Ratio | None

    @property
    def differs(self) -> bool:
        """Whether its answers are not the reference's, so that its time says nothing."""
        return _differs(self.row)


@dataclass(frozen=True, slots=True)
class Group:
    """Ways to the same thing.

    Attributes:
        frame: (height, width) in pixels.
        work: what is done with the map: ("overlay",), or nothing.
        lines: gapcam first.
    """

    frame: tuple[int, int]
    work: tuple[Work, ...]
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What goes in and what comes out."""
        goal = "overlay" if self.work else "map alone"
        return f"{goal}, of a {self.frame[1]} x {self.frame[0]} frame"


def groups_of(result: BenchResult, arrays: Arrays) -> tuple[Group, ...]:
    """A result of `gapcam bench peers`, compared.

    Args:
        result: with rows of gapcam and of peers.
        arrays: its raw samples.
    """
    found: dict[tuple[tuple[int, int], tuple[Work, ...]], list[Row]] = {}
    for row in result.rows:
        found.setdefault((row.cell.frame, row.cell.work), []).append(row)
    return tuple(
        Group(frame, work, tuple(_line(row, rows, arrays) for row in rows)) for (frame, work), rows in found.items()
    )


def in_doubt(groups: Sequence[Group]) -> str | None:
    """Why a comparison is not to be relied on: in which groups gapcam's own row is not valid; None where in none."""
    found = [
        (row.status.upper() if row.status != "valid" else "DIFFERENT from the reference", group.title)
        for group in groups
        for row in (line.row for line in group.lines if line.name == GAPCAM)
        if row.status != "valid" or _differs(row)
    ]
    if not found:
        return None
    states, titles = (list(dict.fromkeys(each)) for each in zip(*found, strict=True))
    return f"gapcam's own row is {' or '.join(states)} ({'; '.join(titles)})"


def name_of(cell: Cell) -> str:
    """How the tables call a cell's subject."""
    return _OURS[cell.emit][0] if cell.subject == GAPCAM and cell.emit in _OURS else cell.subject


def legend(groups: Sequence[Group]) -> tuple[tuple[str, str], ...]:
    """What each of the names in a comparison stands for."""
    known = {**dict(_OURS.values()), **{peer.name: peer.what for peer in PEERS.values()}}
    names = dict.fromkeys(line.name for group in groups for line in group.lines)
    return tuple((name, known[name]) for name in names if name in known)


def _line(row: Row, rows: Sequence[Row], arrays: Arrays) -> Line:
    ours = next((each for each in rows if each.cell.subject == GAPCAM and each.cell.emit == "features"), None)
    return Line(name_of(row.cell), row, None if ours is None or row is ours else _ratio(row, ours, arrays))


def _differs(row: Row) -> bool:
    return row.parity is not None and not row.parity.holds


def _ratio(row: Row, ours: Row, arrays: Arrays) -> Ratio | None:
    """None where they have no round in common (one was interrupted, skipped, or failed), or do not do the same."""
    if _differs(row) or _differs(ours):
        return None
    samples = [(arrays.get(f"{each.id}/wall/total"), arrays.get(f"{each.id}/block")) for each in (row, ours)]
    (new, new_blocks), (old, old_blocks) = samples
    if new is None or old is None or new_blocks is None or old_blocks is None:
        return None
    if not np.intersect1d(new_blocks, old_blocks).size:
        return None
    return paired_ratio(new, new_blocks, old, old_blocks)
