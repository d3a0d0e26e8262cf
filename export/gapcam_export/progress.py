"""How a long piece of work says what it is at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """What `export` and `quantize` call."""

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """A step begins, or goes on.

        Args:
            step: what is being done.
            done: how much of it is done.
            total: of how much; 0 where that is not counted.
        """


def silent(step: str, done: int = 0, total: int = 0, /) -> None:
    """Say nothing."""
    del step, done, total


def counted(progress: Progress, step: str, total: int) -> Callable[[int], None]:
    """For what calls back with the number of things that are done."""
    return lambda done: progress(step, done, total)
