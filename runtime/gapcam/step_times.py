"""How long the steps of one frame took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class StepTimes(dict[str, float]):
    """Milliseconds by the name of the step, the latest time each."""

    @contextmanager
    def timed(self, step: str, *, more: bool = False) -> Iterator[None]:
        """Measure a `with` block. With `more` its time is added to what the step has."""
        before = self.get(step, 0.0) if more else 0.0
        started = perf_counter()
        yield
        self[step] = before + (perf_counter() - started) * 1e3
