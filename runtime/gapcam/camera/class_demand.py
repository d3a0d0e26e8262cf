"""Which classes are being watched by somebody, and so need maps."""

from __future__ import annotations

from collections import Counter
from threading import Lock


class ClassDemand:
    """A counted set of classes that many threads add to and take from: each client of a page with the one it picked.

    A class that was acquired twice is wanted until it was released twice.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[int] = Counter()
        self._wanted: tuple[int, ...] = ()

    def acquire(self, index: int) -> None:
        """Want maps of a class, given by its index in the logits."""
        with self._lock:
            self._counts[index] += 1
            self._wanted = tuple(sorted(self._counts))

    def release(self, index: int) -> None:
        """Want them no longer.

        Raises:
            ValueError: the class was not acquired, or released already.
        """
        with self._lock:
            if index not in self._counts:
                raise ValueError(f"class {index} is released, and nobody has acquired it")
            self._counts[index] -= 1
            if not self._counts[index]:
                del self._counts[index]
            self._wanted = tuple(sorted(self._counts))

    def wanted(self) -> tuple[int, ...]:
        """The indices that somebody wants, ascending."""
        return self._wanted
