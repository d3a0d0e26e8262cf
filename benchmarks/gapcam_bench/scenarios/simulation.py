"""Simulated time and planned durations: what the generators of load are themselves checked by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gapcam_bench.scenarios.clock import Clock
from gapcam_bench.subjects.protocol import Answer, Picture, StageTimes

NO_PIXELS = np.zeros((1, 1, 3), np.uint8)


class SimulatedClock:
    """Time that passes only where somebody waits: a scenario of hours takes moments, and is exact to the nanosecond."""

    def __init__(self) -> None:
        self._now = 0

    def now_ns(self) -> int:
        """Nanoseconds since it was made."""
        return self._now

    def sleep_until_ns(self, moment: int) -> None:
        """Be there."""
        self._now = max(self._now, moment)


class PlannedSubject:
    """Takes the time that it is told to take, and computes nothing.

    Args:
        clock: that it waits by.
        service_ns: given how many inferences there were before, and how many pictures this one has, the nanoseconds
            that it takes.

    Attributes:
        served: the names of the pictures of each inference.
    """

    engine = "planned"

    def __init__(self, clock: Clock, service_ns: Callable[[int, int], int]) -> None:
        self.served: list[tuple[str, ...]] = []
        self._clock, self._service_ns = clock, service_ns

    def run(self, pictures: Sequence[Picture]) -> StageTimes:
        """Wait."""
        took = self._service_ns(len(self.served), len(pictures))
        self._clock.sleep_until_ns(self._clock.now_ns() + took)
        self.served.append(tuple(picture.name for picture in pictures))
        return StageTimes(wall={"inference": took})

    def answer(self, picture: Picture) -> Answer:
        """Nothing is known of any picture."""
        raise NotImplementedError(picture.name)

    def close(self) -> None:
        """Nothing to give back."""


def planned_pictures(count: int) -> list[Picture]:
    """Pictures named "0", "1", and so on, without content."""
    return [Picture(name=str(at), jpeg=b"", frame=NO_PIXELS) for at in range(count)]
