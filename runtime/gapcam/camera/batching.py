"""Whether frames of several sources are faster in one inference than one after another. Only measuring tells."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from gapcam.contract import IMAGE
from gapcam.frame import Frame
from gapcam.session import Session

SECONDS = 1.0
"""How long is measured, at most; one round is always measured."""

ROUNDS = 20
"""How many rounds are enough."""

WORTH = 0.95
"""A batch is used where it takes at most this part of the time: below a twentieth, the two are the same."""


@dataclass(frozen=True, slots=True)
class BatchMeasurement:
    """Medians over rounds in which both had their turn.

    Attributes:
        frames: how many.
        single_ms: one after another, all of them.
        batch_ms: in one inference.
        ratio: the median of the rounds' ratios of a batch to single ones.
        rounds: how many were measured.
    """

    frames: int
    single_ms: float
    batch_ms: float
    ratio: float
    rounds: int

    @property
    def worth_it(self) -> bool:
        """Whether the batch is clearly faster."""
        return self.ratio <= WORTH


def takes_batches(session: Session) -> bool:
    """Whether its model was exported for any number of images at once."""
    return session.inputs[IMAGE].shape[0] is None


def measure_batch(session: Session, frames: int, *, seconds: float = SECONDS) -> BatchMeasurement:
    """Run both on noise, in turn, the one that begins changing from round to round.

    Args:
        session: whose model takes batches.
        frames: at least 2.
        seconds: to stop after.

    Raises:
        BackendError: the engine failed.
    """
    height, width = session.contract.preprocessing.size
    noise = list(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8))
    stop_at = time.perf_counter() + seconds
    single_s: list[float] = []
    batch_s: list[float] = []
    _single(session, noise), _batch(session, noise)  # warm-up
    while not batch_s or (len(batch_s) < ROUNDS and time.perf_counter() < stop_at):
        if len(batch_s) % 2:
            batch_s.append(_batch(session, noise))
            single_s.append(_single(session, noise))
        else:
            single_s.append(_single(session, noise))
            batch_s.append(_batch(session, noise))
    return BatchMeasurement(
        frames=frames,
        single_ms=float(np.median(single_s)) * 1e3,
        batch_ms=float(np.median(batch_s)) * 1e3,
        ratio=float(np.median(np.divide(batch_s, single_s))),
        rounds=len(batch_s),
    )


def _single(session: Session, frames: list[Frame]) -> float:
    started = time.perf_counter()
    for frame in frames:
        session(frame)
    return time.perf_counter() - started


def _batch(session: Session, frames: list[Frame]) -> float:
    started = time.perf_counter()
    session.batch(frames)
    return time.perf_counter() - started
