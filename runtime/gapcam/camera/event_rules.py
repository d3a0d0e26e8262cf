"""When something that a class does is an event."""

from __future__ import annotations

from dataclasses import dataclass

from gapcam.camera.finite_number import check_seconds
from gapcam.camera.hysteresis import LIMIT_OPTIONS, HysteresisLimits
from gapcam.camera.option_text import number_from_text, split_options
from gapcam.classes import ClassRef
from gapcam.errors import UsageError

ANY_CLASS = "*"


@dataclass(frozen=True, slots=True)
class EventRule:
    """A class enters when its score has been high for a while, and leaves when it has been low for a while.

    A score between `enter` and `leave`, however it flickers, is no event.

    Attributes:
        target: the class, by index or label; "*" for each class that becomes the best one, as long as no other rule is
            about it.
        enter: score from which the class is there, in (0, 1].
        leave: score below which it is gone, in (0, enter]; None for 60 % of `enter`.
        enter_s: seconds for which the score must have been at `enter` or above without a break.
        leave_s: seconds for which it must have been below `leave` without a break.
        stay_s: seconds after which the class "stays", an event each time it is there for so long; any number of them.

    Raises:
        UsageError: a value is out of its range.
    """

    target: ClassRef
    enter: float = 0.5
    leave: float | None = None
    enter_s: float = 0.3
    leave_s: float = 1.0
    stay_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _ = self.limits  # checks them
        if not isinstance(self.stay_s, tuple):
            raise UsageError(f"stay_s is {self.stay_s!r}; give a tuple of seconds, such as (10,)")
        stays = {check_seconds(seconds, "the time of a stay", above_zero=True) for seconds in self.stay_s}
        object.__setattr__(self, "stay_s", tuple(sorted(stays)))

    @property
    def limits(self) -> HysteresisLimits:
        """Of the score."""
        return HysteresisLimits.of(self.enter, self.leave, self.enter_s, self.leave_s)


def rule_from_text(text: str) -> EventRule:
    """A rule as the command line has it: CLASS[:OPTION=VALUE,...].

    Args:
        text: the class by its label or index, or "*". Options: "enter" and "leave", scores; "for", the seconds until it
            enters; "gone", until it leaves; "stays", which may be repeated. A label may hold commas and colons; one
            that itself ends in a colon and NAME=VALUE is written with one more colon behind it.

    Raises:
        UsageError: an option is unknown, given twice, or its value is none.

    Example:
        >>> rule_from_text("tabby:enter=0.6,for=0.5,stays=10").stay_s
        (10.0,)
    """
    target, pairs = split_options(text)
    where = f"the event {text!r}"
    if not target:
        raise UsageError(f"{where} names no class; give CLASS[:enter=0.5,leave=0.3,for=0.3,gone=1,stays=10]")
    values: dict[str, float] = {}
    stays = []
    for key, value in pairs:
        number = number_from_text(value, f"{key!r} of {where}")
        if key == "stays":
            stays.append(number)
        elif key not in LIMIT_OPTIONS:
            raise UsageError(f"{where} has an option {key!r}; give one of {', '.join([*LIMIT_OPTIONS, 'stays'])}")
        elif LIMIT_OPTIONS[key] in values:
            raise UsageError(f"{where} has {key!r} twice; give it once")
        else:
            values[LIMIT_OPTIONS[key]] = number
    try:
        return EventRule(target, stay_s=tuple(stays), **values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
