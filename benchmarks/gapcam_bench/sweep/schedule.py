"""What is measured when, and how long it will take."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits

_START_S = 3.0
"""A guess of what comes before a block's warm-up: a process, imports, the model, the check of its answers."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One block to measure.

    Attributes:
        round: from 0.
        cell: what.
    """

    round: int
    cell: Cell


def turns(cells: Sequence[Cell], rounds: int, *, seed: int) -> Iterator[Turn]:
    """Every cell once a round, in another order in each, the same ones for the same seed.

    So what a machine does meanwhile (it gets warm, another program wakes up) hits all cells alike, and no cell always
    follows the same other.
    """
    for number in range(rounds):
        order = list(cells)
        random.Random(f"{seed}/{number}").shuffle(order)  # noqa: S311 - an order, no secret
        yield from (Turn(number, cell) for cell in order)


@dataclass(slots=True)
class TimeLeft:
    """An estimate from what blocks have taken so far: of the same cell, else of all cells, else of the limits.

    Cells of the server scenario, which takes longer than the others, are estimated among themselves.

    Attributes:
        limits: of the blocks.
    """

    limits: Limits
    _taken: dict[str, list[float]] = field(default_factory=dict)
    _servers: set[str] = field(default_factory=set)

    def took(self, cell: Cell, seconds: float) -> None:
        """Note a block."""
        self._taken.setdefault(cell.key, []).append(seconds)
        if cell.scenario == "server":
            self._servers.add(cell.key)

    def of(self, turns: Sequence[Turn]) -> float:
        """Seconds for these blocks."""
        unknown = {server: self._unknown(server=server) for server in (False, True)}
        return sum(median(self._taken.get(turn.cell.key, [unknown[turn.cell.scenario == "server"]])) for turn in turns)

    def guess(self, scenario: str) -> float:
        """Seconds of a block before there was one; of the server scenario the most, which it nearly always takes."""
        limits = self.limits.of(scenario)
        measured = limits.most_seconds if scenario == "server" else limits.least_seconds
        return _START_S + 2 * limits.warm_up_least_seconds + measured

    def _unknown(self, *, server: bool) -> float:
        """Seconds of a block of a cell of which there was none."""
        every = [
            seconds for cell, taken in self._taken.items() if (cell in self._servers) == server for seconds in taken
        ]
        return median(every) if every else self.guess("server" if server else "single-stream")


def duration_text(seconds: float) -> str:
    """A duration as one says it: "40 s", "3 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
