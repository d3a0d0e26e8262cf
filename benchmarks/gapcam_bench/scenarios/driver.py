"""What all scenarios do: hand a subject its pictures in turn, and note the time around each inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios.clock import Clock
from gapcam_bench.subjects.protocol import Picture, StageTimes, Subject

Progress = Callable[[str, float], None]
"""Called with what goes on, and how much of it is done, in [0, 1]."""

PROGRESS_NS = 200_000_000
_READINGS = 5


@dataclass(frozen=True, slots=True)
class Inference:
    """One call of a subject.

    Attributes:
        began: moment of the driver's clock, in nanoseconds.
        ended: likewise.
        stages: as the subject says.
    """

    began: int
    ended: int
    stages: StageTimes

    @property
    def total(self) -> int:
        """Nanoseconds from the call to its return."""
        return self.ended - self.began


class Driver:
    """A subject and its pictures.

    Args:
        subject: what is measured.
        pictures: at least one; taken in turn, again and again.
        cell: the combination.
        limits: how long.
        settings: of the scenario.
        clock: what tells the time.
        progress: called now and then, between samples.
    """

    def __init__(
        self,
        subject: Subject,
        pictures: Sequence[Picture],
        cell: Cell,
        limits: Limits,
        settings: ScenarioSettings,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self.cell, self.limits, self.settings, self.clock = cell, limits, settings, clock
        self.pictures = pictures
        self._subject, self._progress = subject, progress
        self._next = 0
        self._reported: int | None = None
        self._first: int | None = None
        self._last: int | None = None

    def infer(self, count: int) -> Inference:
        """One inference of the next pictures."""
        first, self._next = self._next, (self._next + count) % len(self.pictures)
        return self.infer_these([self.pictures[(first + at) % len(self.pictures)] for at in range(count)])

    def infer_these(self, pictures: Sequence[Picture]) -> Inference:
        """One inference of these pictures."""
        began = self.clock.now_ns()
        stages = self._subject.run(pictures)
        inference = Inference(began, self.clock.now_ns(), stages)
        self._first, self._last = began if self._first is None else self._first, inference.ended
        return inference

    def begin(self, moment: int | None = None) -> None:
        """The measured part begins: with the next call, or at a moment of the clock."""
        self._first, self._last = moment, None

    def span(self) -> tuple[float, float]:
        """Of the measured part so far, in seconds since the epoch: from its beginning to the last answer."""
        epoch = self._epoch()
        ended = self.clock.now_ns() if self._last is None else self._last
        began = ended if self._first is None else self._first
        return epoch + began * 1e-9, epoch + ended * 1e-9

    def _epoch(self) -> float:
        """The clock's zero in seconds since the epoch.

        Both clocks are read one after another; a pause between would move the span. The quickest of some readings has
        none.
        """
        readings = []
        for _ in range(_READINGS):
            before, now, after = self.clock.now_ns(), time.time(), self.clock.now_ns()
            readings.append((after - before, now - before * 1e-9))
        return min(readings)[1]

    def enough(self, samples: int, since: int) -> bool:
        """Whether time and samples suffice, or the most time is over.

        Args:
            samples: that were measured.
            since: moment at which measuring began.
        """
        seconds, limits = (self.clock.now_ns() - since) * 1e-9, self.limits
        done = min(seconds / max(limits.least_seconds, 1e-9), samples / max(limits.least_samples, 1))
        self.report("measuring", max(done, seconds / limits.most_seconds))
        return samples > 0 and (done >= 1 or seconds >= limits.most_seconds)

    def report(self, what: str, done: float) -> None:
        """Tell the progress, a few times a second."""
        now = self.clock.now_ns()
        if self._reported is None or now - self._reported >= PROGRESS_NS:
            self._reported = now
            self._progress(what, min(1.0, max(0.0, done)))
