"""How good the pictures are that one client gets: as good as it can take in time."""

from __future__ import annotations

from typing import NamedTuple

LONG_S = 0.35
"""A round trip above this, from when a picture is to be drawn until the client is ready for the next, is too long."""
SHORT_S = 0.15
"""Below this, better pictures are tried."""


class Step(NamedTuple):
    """JPEG quality, and the picture's part of its full width."""

    quality: int
    scale: float


STEPS = (Step(85, 1.0), Step(75, 1.0), Step(70, 0.75), Step(60, 0.5), Step(50, 0.35), Step(40, 0.25))
"""From the best pictures to the smallest."""

_FIRST_PATIENCE, _LONGEST_PATIENCE = 8, 512


class Adaptation:
    """One client's place among `STEPS`.

    Two long round trips in a row take it a step down, one of more than a second two steps. A number of short ones in a
    row takes it a step up: eight at first, and twice as many whenever the better pictures proved too much at once, so
    that it does not go up and down for ever.
    """

    def __init__(self) -> None:
        self._place = 0
        self._long = self._short = 0
        self._patience = _FIRST_PATIENCE
        self._since_up: int | None = None

    @property
    def step(self) -> Step:
        """What the next picture is encoded with."""
        return STEPS[self._place]

    def took(self, seconds: float) -> None:
        """Learn of a round trip."""
        if self._since_up is not None:
            self._since_up += 1
            if self._since_up > self._patience:  # the better pictures were not too much
                self._patience, self._since_up = _FIRST_PATIENCE, None
        if seconds > LONG_S:
            self._short = 0
            self._long += 1
            if self._long == 2 or seconds > 1:
                self._down(2 if seconds > 1 else 1)
        elif seconds < SHORT_S:
            self._long = 0
            self._short += 1
            if self._short >= self._patience and self._place > 0:
                self._place -= 1
                self._short, self._since_up = 0, 0
        else:
            self._long = self._short = 0

    def _down(self, steps: int) -> None:
        self._place = min(self._place + steps, len(STEPS) - 1)
        self._long = 0
        if self._since_up is not None:
            self._patience, self._since_up = min(2 * self._patience, _LONGEST_PATIENCE), None
