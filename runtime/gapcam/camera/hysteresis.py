"""Whether something is there, by a value that flickers."""

from __future__ import annotations

from dataclasses import dataclass, field

from gapcam.camera.finite_number import check_seconds, is_finite
from gapcam.errors import UsageError

LIMIT_OPTIONS = {"enter": "enter", "leave": "leave", "for": "enter_s", "gone": "leave_s"}
"""The fields of `HysteresisLimits` by the names that they have on a command line."""

_LEAVE_OF_ENTER = 0.6
_TICK_S = 1e-6
"""Ten frames a tenth of a second apart are a second, whatever floats make of it."""


@dataclass(frozen=True, slots=True)
class HysteresisLimits:
    """When something counts as there. A Schmitt trigger with delays.

    Attributes:
        enter: there from this value on, in (0, 1].
        leave: gone below this one, in (0, enter].
        enter_s: seconds for which it must have been at `enter` or above without a break.
        leave_s: seconds for which it must have been below `leave` without a break.

    Raises:
        UsageError: one is out of its range.
    """

    enter: float
    leave: float
    enter_s: float
    leave_s: float

    @classmethod
    def of(cls, enter: float, leave: float | None, enter_s: float, leave_s: float) -> HysteresisLimits:
        """With a `leave` of None that of 60 % of `enter`."""
        if leave is None:
            leave = _LEAVE_OF_ENTER * enter if is_finite(enter) else 0.0
        return cls(enter, leave, enter_s, leave_s)

    def __post_init__(self) -> None:
        if not is_finite(self.enter) or not 0 < self.enter <= 1:
            raise UsageError(f"enter is {self.enter!r}; give a number above 0 and at most 1")
        if not is_finite(self.leave) or not 0 < self.leave <= self.enter:
            raise UsageError(f"leave is {self.leave!r}; give a number above 0 and at most enter, which is {self.enter}")
        check_seconds(self.enter_s, "the time until it counts as there")
        check_seconds(self.leave_s, "the time until it counts as gone")


@dataclass(slots=True)
class Hysteresis:
    """One thing that is watched.

    Attributes:
        limits: when it counts as there.
        inside: whether it is there.
        since: where it is or was there, the moment at which the value first was at `enter`, in seconds.
        last: likewise the last moment at which the value was at `leave` or above.
    """

    limits: HysteresisLimits
    inside: bool = False
    since: float = 0.0
    last: float = 0.0
    _turned: float | None = field(default=None, init=False)
    """The first of the moments without a break that speak against `inside`."""

    @property
    def seconds(self) -> float:
        """For how long it has been there, or was."""
        return self.last - self.since

    @property
    def pending(self) -> bool:
        """Whether it is not there yet, but has begun to be."""
        return not self.inside and self._turned is not None

    def update(self, value: float, at: float) -> bool:
        """Take the value of a moment, in seconds, no earlier than the one before.

        Returns:
            Whether `inside` changed.
        """
        limits = self.limits
        if self.inside:
            turns, delay_s = not value >= limits.leave, limits.leave_s
            if not turns:
                self.last = at
        else:
            turns, delay_s = value >= limits.enter, limits.enter_s
        if not turns:
            self._turned = None
            return False
        if self._turned is None:
            self._turned = at
        if at - self._turned < delay_s - _TICK_S:
            return False
        if not self.inside:
            self.since, self.last = self._turned, at
        self.inside, self._turned = not self.inside, None
        return True

    def has_stayed(self, seconds: float, at: float) -> bool:
        """Whether it is there at this moment, and has been for so long."""
        return self.inside and self.last == at and at - self.since >= seconds - _TICK_S
