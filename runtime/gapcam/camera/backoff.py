"""When to try again what failed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from gapcam.errors import UsageError

WELL_S = 5.0
"""What ran for so long, and for longer than it was waited for, ran well."""

JITTER = 0.25
"""The greatest part of a wait that is left out by chance, so that what failed together does not come back together."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """How a source that is lost, or a sink that fails, is opened again.

    Attributes:
        first_s: the first wait, seconds; each further one is twice as long.
        greatest_s: the longest wait.
        give_up_s: for how long that is tried with a source, from its last frame on; None for ever. It has failed then.
        stall_s: a live source that gave no frame for so long is shown as stalled.

    Raises:
        UsageError: a value is out of its range.
    """

    first_s: float = 0.5
    greatest_s: float = 30.0
    give_up_s: float | None = None
    stall_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("first_s", "greatest_s", "stall_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value!r}; give seconds above 0")
        if self.greatest_s < self.first_s:
            raise UsageError(f"greatest_s is {self.greatest_s!r} and first_s {self.first_s!r}; give a greater one")
        if self.give_up_s is not None and not self.give_up_s >= 0:
            raise UsageError(f"give_up_s is {self.give_up_s!r}; give seconds, or None to try for ever")


@dataclass(slots=True)
class Backoff:
    """Waits that double from failure to failure.

    Args:
        first_s: the first one, seconds.
        greatest_s: the longest.
        random: of the jitter.
    """

    first_s: float
    greatest_s: float
    random: Random = field(default_factory=Random)
    _next_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_s = self.first_s

    def failed(self, ran_s: float) -> float:
        """Seconds to wait, at most `greatest_s`.

        Args:
            ran_s: for how long it ran before it failed, seconds; 0 where it did not start at all.
        """
        if ran_s >= max(WELL_S, self._next_s):
            self._next_s = self.first_s
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self.greatest_s)
        return wait_s * (1 - JITTER * self.random.random())
