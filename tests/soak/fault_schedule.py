"""Which fault comes when, the same in each cycle, so that cycles can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

CYCLE_S = 60.0
"""What a fault's `at` is of. A shorter cycle has the same faults in less time."""


@dataclass(frozen=True)
class Fault:
    """Something that happens.

    Attributes:
        at: seconds after the beginning of a cycle of `CYCLE_S`.
        name: what, for people.
        do: makes it happen.
    """

    at: float
    name: str
    do: Callable[[], object]


class Schedule:
    """The faults of all cycles, one after another.

    Args:
        faults: of one cycle.
        cycle_s: how long it is.
        cycles: how many there are.

    Attributes:
        done: how many faults have happened.
        last: the name of the last one.
    """

    def __init__(self, faults: Sequence[Fault], cycle_s: float, cycles: int) -> None:
        ordered = sorted(faults, key=lambda fault: fault.at)
        self._due = [
            (cycle * cycle_s + fault.at * cycle_s / CYCLE_S, fault) for cycle in range(cycles) for fault in ordered
        ]
        self.done, self.last = 0, ""

    def run_due(self, elapsed_s: float) -> None:
        """Make happen what is due so long after the beginning."""
        while self.done < len(self._due) and self._due[self.done][0] <= elapsed_s:
            fault = self._due[self.done][1]
            self.done, self.last = self.done + 1, fault.name
            fault.do()
