"""Numbers as callers hand them in."""

from __future__ import annotations

from math import isfinite
from numbers import Real
from typing import TypeGuard

from gapcam.errors import UsageError


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something is a number, of whatever type, and neither infinite nor NaN. True and False are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and isfinite(float(value))


def check_seconds(value: object, name: str, *, above_zero: bool = False) -> float:
    """A duration as a plain float.

    Raises:
        UsageError: it is no finite number, or negative, or zero where that makes no sense.
    """
    if not is_finite(value) or value < 0 or (above_zero and value == 0):
        expected = "a number of seconds above 0" if above_zero else "a number of seconds, 0 or more"
        raise UsageError(f"{name} is {value!r}; give {expected}")
    return float(value)
