"""Integers as callers hand them in."""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import SupportsIndex

from gapcam.errors import UsageError


def whole_number(value: object, name: str) -> int:
    """A plain int of an integer of any type, or of a float that is one: OpenCV's `VideoCapture.get` gives 1080.0.

    Args:
        value: what was handed in.
        name: what the message calls it.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(value, SupportsIndex):
        return index(value)
    if isinstance(value, Real) and float(value).is_integer():
        return int(float(value))
    raise UsageError(f"{name} is {value!r}; give a whole number")
