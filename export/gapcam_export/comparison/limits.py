"""What a comparison is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapcam.errors import UsageError


@dataclass(frozen=True)
class Limit:
    """A figure and what it must be at least.

    Attributes:
        figure: its name, as in `gapcam.contract.Fidelity`.
        at_least: the limit.
        measured: the figure; None where there is none.
    """

    figure: str
    at_least: float
    measured: float | None

    @property
    def met(self) -> bool:
        """Whether the figure is there and not below the limit."""
        return self.measured is not None and self.measured >= self.at_least

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"figure": self.figure, "at_least": self.at_least, "measured": self.measured, "met": self.met}

    def __str__(self) -> str:
        measured = "not measured" if self.measured is None else f"{self.measured:.4f}"
        return f"{NAMES[self.figure]} is {measured}, and at least {self.at_least:g} was asked for"


NAMES = {
    "top1_agreement": "the top-1 agreement",
    "box_iou": "the mean IoU of the boxes",
    "map_pearson": "the mean correlation of the maps (Pearson)",
}
"""What can be held to a limit."""


def check_limits(at_least: Mapping[str, float | None]) -> None:
    """Refuse limits that no figure can be measured against.

    Raises:
        UsageError: one is not in [-1, 1] (of correlations) or [0, 1].
    """
    for figure, limit in at_least.items():
        low = -1 if figure == "map_pearson" else 0
        if limit is not None and not low <= limit <= 1:
            raise UsageError(f"the limit of {NAMES[figure]} is {limit}; give a number from {low} to 1")


def limits_of(figures: Mapping[str, Any], at_least: Mapping[str, float | None]) -> tuple[Limit, ...]:
    """Each limit that was given, with its figure.

    Args:
        figures: of a comparison.
        at_least: by the figure's name; None where there is no limit.
    """
    return tuple(Limit(name, limit, figures[name]) for name, limit in at_least.items() if limit is not None)
