"""The thread that runs the network on the frames of all sources, in turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Condition, Lock, Thread
from typing import Protocol

from gapcam.camera.ages import Ages
from gapcam.camera.batching import BatchMeasurement, measure_batch, takes_batches
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.errors import in_words
from gapcam.camera.event import Event
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.log_pace import LogPace
from gapcam.camera.mailbox import Mailbox
from gapcam.errors import FrameError, GapcamError, UsageError, VerificationError
from gapcam.result import Result
from gapcam.session import Session

log = logging.getLogger("gapcam.camera")

BEAT_S = 0.5
"""How often it comes round where there is nothing to do: whoever watches over it sees that it lives."""

PERSISTS = 8
"""An engine that failed on so many frames one after another will not recover."""


class Explains(Protocol):
    """What turns a result into an explained frame: `gapcam.camera.explainer.Explainer`."""

    @property
    def gap_s(self) -> float:
        """A source without a frame for so long is away."""

    def part_with_last(self, captured: CapturedFrame) -> list[Event]:
        """What is noticed because this frame has nothing to do with the one before; then all begins anew."""

    def explain(self, captured: CapturedFrame, result: Result, wait_ms: float) -> ExplainedFrame:
        """The explained frame."""

    def end(self) -> list[Event]:
        """What is noticed when no more frames come; then all begins anew."""


@dataclass(slots=True, eq=False)
class Line:
    """One source's way through the network.

    Attributes:
        name: of the source.
        mailbox: of its captured frames.
        explainer: what it remembers.
        ages: from capture to the hand-over.
        last: its last explained frame, until its end was told.
    """

    name: str
    mailbox: Mailbox[CapturedFrame]
    explainer: Explains
    ages: Ages
    last: ExplainedFrame | None = None


class InferenceThread:
    """Takes frames from the sources' mailboxes in turn, explains them, and hands them on.

    Where a source has ended or is away, or its next frame has nothing to do with its last one, what is noticed then is
    told with that last one, which is handed over once more.

    Args:
        session: what runs the network.
        lines: of each source.
        changed: the condition that all their mailboxes share.
        batch: whether frames of several sources share an inference; None measures it, where there are several and the
            model takes batches.
        ready: called once, before the first frame is waited for: what is measured is measured in peace.
        hand_over: called with each explained frame; it may wait, and calls `beat` meanwhile.
        every_beat: called about every `BEAT_S` seconds.
        ended: called last of all.

    Attributes:
        error: why it ended early.
        batched: whether frames share an inference.
        measured: what that was decided by, where it was measured.
        inference: how long the network's runs took, with the preprocessing.
    """

    def __init__(
        self,
        session: Session,
        lines: Sequence[Line],
        *,
        changed: Condition,
        batch: bool | None,
        ready: Callable[[], None],
        hand_over: Callable[[ExplainedFrame], None],
        every_beat: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None
        self.batched = bool(batch)
        self.measured: BatchMeasurement | None = None
        self.inference = Ages()
        self.thread = Thread(target=self._run, name="gapcam inference", daemon=True)
        self._session, self._lines, self._changed, self._batch = session, list(lines), changed, batch
        self._ready = ready
        self._hand_over, self._every_beat, self._ended = hand_over, every_beat, ended
        self._failures = 0  # of the engine, one after another
        self._failure_log = LogPace()
        self._lock = Lock()
        self._beat_at = self._checked_at = time.monotonic()

    def start(self) -> None:
        """Begin."""
        self.beat()
        self.thread.start()

    def beat(self) -> None:
        """It lives."""
        now = time.monotonic()
        self._beat_at = now
        if now >= self._checked_at + BEAT_S:
            self._checked_at = now
            self._every_beat()

    @property
    def idle_s(self) -> float:
        """Since it last came round, seconds."""
        return time.monotonic() - self._beat_at

    def _run(self) -> None:
        try:
            try:
                self._choose()
            finally:
                self._ready()
            while not self._all_ended():
                self.beat()
                taken = self._take()
                if taken:
                    self._explain(taken)
                self._tell_ends()
            self._tell_ends()
        except BaseException as error:  # raised again by whoever waits for the pipeline
            self.error = error
            log.error("the pipeline ends: %s", in_words(error), exc_info=not isinstance(error, GapcamError))
        finally:
            self._ended()

    def _choose(self) -> None:
        """Whether to use batches."""
        if self._batch is None and len(self._lines) > 1 and takes_batches(self._session):
            self.measured = measured = measure_batch(self._session, len(self._lines))
            self.batched = measured.worth_it
            log.info(
                "%d frames take %.1f ms one after another, %.1f ms in one inference (of %d rounds): %s",
                measured.frames,
                measured.single_ms,
                measured.batch_ms,
                measured.rounds,
                "frames of several sources share one" if self.batched else "each has its own",
            )

    def _all_ended(self) -> bool:
        with self._changed:
            return all(line.mailbox.ended for line in self._lines)

    def _take(self) -> list[tuple[Line, CapturedFrame]]:
        """A frame of the source whose turn it is, or of each; none where there was none for `BEAT_S`."""
        with self._changed:
            self._changed.wait_for(lambda: self._some_ready() or self._all_ended(), BEAT_S)
            taken: list[tuple[Line, CapturedFrame]] = []
            for line in tuple(self._lines):
                frame = line.mailbox.take_now()
                if frame is None:
                    continue
                taken.append((line, frame))
                # Whose turn it was comes last now.
                self._lines.remove(line)
                self._lines.append(line)
                if not self.batched:
                    break
            return taken

    def _some_ready(self) -> bool:
        return any(line.mailbox.ready for line in self._lines)

    def _explain(self, taken: list[tuple[Line, CapturedFrame]]) -> None:
        started = time.monotonic()
        try:
            results = self._results([frame for _, frame in taken])
        except BaseException as error:
            if not isinstance(error, GapcamError) or isinstance(error, UsageError):  # the latter: the session is closed
                for line, _ in taken:
                    line.mailbox.finish("failed")
                raise
            if len(taken) == 1:
                self._failed(*taken[0], error)
            else:  # one by one, so that the error is that frame's whose it is
                for each in taken:
                    self._explain([each])
            return
        for (line, frame), result in zip(taken, results, strict=True):
            self._finish(line, frame, result, started)

    def _results(self, frames: list[CapturedFrame]) -> list[Result]:
        started = time.monotonic()
        images = [frame.image for frame in frames]
        results = [self._session(images[0])] if len(images) == 1 else self._session.batch(images)
        self.inference.add(time.monotonic() - started)
        return results

    def _finish(self, line: Line, frame: CapturedFrame, result: Result, started: float) -> None:
        try:
            self._tell(line, line.explainer.part_with_last(frame))
            explained = line.explainer.explain(frame, result, (started - frame.taken_at) * 1e3)
        except GapcamError as error:
            self._failed(line, frame, error)
            return
        except BaseException:
            line.mailbox.finish("failed")
            raise
        self._failures = 0
        self._hand_over(explained)
        line.last = explained
        line.ages.add(time.monotonic() - frame.taken_at)
        line.mailbox.finish("done")

    def _tell_ends(self) -> None:
        now = time.monotonic()
        for line in self._lines:
            if line.last is not None and (line.mailbox.ended or self._away(line, line.last.captured, now)):
                self._tell(line, line.explainer.end())
                line.last = None

    def _tell(self, line: Line, events: list[Event]) -> None:
        """Of a source's last frame."""
        if events and line.last is not None:
            self._hand_over(replace(line.last, events=tuple(events), again=True))

    def _away(self, line: Line, last: CapturedFrame, now: float) -> bool:
        """Whether a source that has a clock of no file's has been silent for long."""
        return last.position_s is None and not line.mailbox.ready and now - last.taken_at > line.explainer.gap_s

    def _failed(self, line: Line, frame: CapturedFrame, error: GapcamError) -> None:
        line.mailbox.finish("failed")
        if (unsaid := self._failure_log.due()) is not None:
            message = "source %s: frame %d could not be explained: %s%s"
            log.warning(message, line.name, frame.number, in_words(error), unsaid, extra={"source": line.name})
        if not isinstance(error, (FrameError, VerificationError)):
            self._failures += 1
            if self._failures >= PERSISTS:
                raise error
