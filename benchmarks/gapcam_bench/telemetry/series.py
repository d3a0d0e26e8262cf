"""What was read over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.telemetry.reading import Channel

Span = tuple[float, float]
"""(began, ended) in seconds since the epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Telemetry.

    Attributes:
        time: [N] float64 seconds since the epoch, rising.
        values: by channel name, [N] float64 in the channel's unit; NaN where it could not be read.
        channels: what was read; each has its values.
        lacking: what could not be read, and why, by name.
    """

    time: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    channels: tuple[Channel, ...]
    lacking: dict[str, str]


def joined(pieces: Sequence[Series]) -> Series:
    """Series of the same machine one after the other, as a benchmark that was resumed has them.

    A channel that a piece does not have is NaN there; of `lacking` and of channels that differ, the last piece's hold.
    """
    pieces = sorted(pieces, key=lambda piece: piece.time[0] if len(piece.time) else 0.0)
    channels = {channel.name: channel for piece in pieces for channel in piece.channels}
    lacking = {name: why for piece in pieces for name, why in piece.lacking.items() if name not in channels}
    if not pieces:
        return Series(time=np.empty(0), values={}, channels=(), lacking={})
    return Series(
        time=np.concatenate([piece.time for piece in pieces]),
        values={
            name: np.concatenate([piece.values.get(name, np.full(len(piece.time), np.nan)) for piece in pieces])
            for name in channels
        },
        channels=tuple(channels.values()),
        lacking=lacking,
    )
