"""How long is measured, and from when on a measurement is too noisy to be called one."""

from __future__ import annotations

import msgspec

SERVER_TIMES, SERVER_SECONDS = 3, 60.0
"""The server scenario tries several rates in one block, each with hundreds of queries that arrive one by one: it has so
many times as long as others have, but no more than this, where they have not more themselves."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one block: what one fresh process measures of one cell.

    Attributes:
        least_seconds: that are measured, warm-up not counted.
        least_samples: that are measured; the block goes on until there are so many, or `most_seconds` are over.
        most_seconds: after which it stops in any case.
        warm_up_least_seconds: before which no warm-up is taken as stable.
        warm_up_most_seconds: after which measuring begins, stable or not; the row says so.
        most_variation: of a valid row: the coefficient of variation (sd / mean) of its totals.
        most_drift: of a valid row: how far the medians of its blocks, and of the first and last third within blocks,
            may lie apart, as a ratio minus 1.
        least_row_samples: of a valid row, over all its blocks.
    """

    least_seconds: float = 2.0
    least_samples: int = 20
    most_seconds: float = 20.0
    warm_up_least_seconds: float = 0.5
    warm_up_most_seconds: float = 10.0
    most_variation: float = 0.25
    most_drift: float = 0.10
    least_row_samples: int = 100

    def of(self, scenario: str) -> Limits:
        """Those of one block of a scenario, where these are what was asked for: the server's has more time."""
        if scenario != "server":
            return self
        longer = min(SERVER_TIMES * self.most_seconds, SERVER_SECONDS)
        return msgspec.structs.replace(self, most_seconds=max(self.most_seconds, longer))
