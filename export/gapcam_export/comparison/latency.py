"""How long the inference of two models takes on this machine, measured in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gapcam
from gapcam.frame import Frame
from gapcam.interleaved import measure, one_opencv_thread
from gapcam.latency import Latency

ROUNDS = 50
"""At most; each has four samples of each model."""
SECONDS = 20.0


@dataclass(frozen=True)
class LatencyComparison:
    """The latency of two models.

    Attributes:
        reference: the durations of the reference's inference.
        other: the other model's, in the same rounds.
        threads: that one inference may use; None for every physical core.
    """

    reference: Latency
    other: Latency
    threads: int | None

    @property
    def speedup(self) -> float:
        """How many times as fast as the reference the other model is: the median of the ratios, sample by sample."""
        return self.reference.ratio_to(self.other)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "threads": self.threads,
            "samples": self.reference.count,
            "reference": {"median_ms": self.reference.median_ms, "p99_ms": self.reference.p99_ms},
            "other": {"median_ms": self.other.median_ms, "p99_ms": self.other.p99_ms},
            "speedup": self.speedup,
        }


def compare_latency(
    reference: gapcam.Session,
    other: gapcam.Session,
    frame: Frame,
    *,
    threads: int | None,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    after_round: Callable[[int], None] = lambda _: None,
) -> LatencyComparison:
    """Measure the inference of two models on one frame, in turn.

    An inference is one run of the network at batch 1, to its logits, its features and what else maps are made of.
    Preprocessing is left out, and so are the maps, which cost both models the same.

    Args:
        reference: one model.
        other: the other.
        frame: H x W x 3 uint8 BGR.
        threads: that both were loaded with.
        rounds: how many at most, see `gapcam.interleaved.measure`.
        seconds: when to stop before that.
        after_round: called with the number of measured rounds.
    """
    images = [gapcam.preprocess(frame, session.contract.preprocessing)[None] for session in (reference, other)]
    steps = {
        "reference": lambda: reference.infer(images[0]),
        "other": lambda: other.infer(images[1]),
    }
    with one_opencv_thread():
        found = measure(steps, rounds=rounds, seconds=seconds, after_round=after_round)
    return LatencyComparison(found["reference"], found["other"], threads)
