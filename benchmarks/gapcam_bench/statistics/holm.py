"""Many tests at once: of thirty rows that are the same, one or two look different at 5 % each."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p, in the order given: those at most alpha hold a false one with probability at most alpha altogether.

    Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure. It holds whatever the tests have in common.
    """
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = so_far
    return adjusted
