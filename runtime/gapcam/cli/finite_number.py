"""Options that are numbers: none takes NaN, which passes every comparison that it should fail, or infinity."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click
from click.types import FloatParamType


class FiniteNumber(FloatParamType):
    """What `float` is to click, without NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        found = super().convert(value, param, ctx)
        if not isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


class FiniteRange(FiniteNumber, click.FloatRange):
    """A range that NaN and infinity are not in."""
