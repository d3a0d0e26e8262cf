"""The thread that reads one source, over and over where it is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread

from gapcam.camera.ages import Ages
from gapcam.camera.backoff import Backoff, Reopen
from gapcam.camera.captured_frame import CapturedFrame, SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError, in_words
from gapcam.camera.finite_number import is_finite
from gapcam.camera.frame_rate import FrameRate
from gapcam.camera.log_pace import LogPace
from gapcam.camera.mailbox import Mailbox
from gapcam.camera.sources.protocol import Source
from gapcam.camera.status import SourceState, SourceStatus
from gapcam.camera.uri import redacted, without_credentials
from gapcam.errors import GapcamError, UsageError
from gapcam.frame import check_frame

log = logging.getLogger("gapcam.camera")

BROKEN_ROW = 50
"""A live source that gives so many broken frames one after another is lost."""

AHEAD_S = 1.0
"""A frame from so far ahead counts as taken now: a time reckoned from another clock is not exact."""

BEFORE_S = 3600.0
"""It may have been taken so long before the pipeline began: it waited in the source's own buffers."""


class CaptureThread:
    """Reads one source into a mailbox, which it closes at the end.

    Args:
        source: opened, read and closed by this thread alone.
        mailbox: of frames that wait for the network.
        ages: of its explained frames, for the status.
        reopen: when a lost source is opened again.
        ended: called last of all.

    Attributes:
        error: why the source failed for good.
    """

    def __init__(
        self,
        source: Source,
        mailbox: Mailbox[CapturedFrame],
        ages: Ages,
        *,
        reopen: Reopen,
        ended: Callable[[], None],
    ) -> None:
        self.source, self.mailbox, self.ages = source, mailbox, ages
        self.error: BaseException | None = None
        self.thread = Thread(target=self._run, name=f"gapcam capture {source.name}", daemon=True)
        self._reopen, self._ended = reopen, ended
        self._backoff = Backoff(reopen.first_s, reopen.greatest_s)
        self._stop = Event()
        self._broken_log = LogPace()
        self._rate = FrameRate()
        self._lock = Lock()  # of what the status says
        self._state: SourceState = "opening"
        self._since, self._problem = time.time(), ""
        self._width = self._height = self._number = self._broken = self._reopened = 0
        self._reading_since: float | None = None
        self._stalled_since: float | None = None
        self._began_at = self._frame_at = 0.0  # the latter of the last frame, or of the row of attempts
        self._lost = False

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self) -> None:
        """Ask it to end soon. What it has captured waits in the mailbox, which takes no more. From any thread."""
        self._stop.set()
        self.mailbox.close()
        try:
            self.source.interrupt()
        except Exception as error:  # noqa: BLE001 - whatever one of the user's own raises, the others are to be stopped
            self._say(logging.ERROR, "interrupting the source failed: %s", self._in_words(error))

    def abandon(self) -> None:
        """Its thread does not come back from the source, which cannot be closed therefore."""
        self._set_state("stopped", "it did not end in time")

    def check_stall(self) -> None:
        """Log where a live source has begun to stall, or gives frames again. Called about every half second."""
        now = time.monotonic()
        with self._lock:
            stalls, before = self._stalls(now), self._stalled_since
            if stalls and before is None:
                self._stalled_since = self._reading_since
            elif not stalls:
                self._stalled_since = None
        if stalls and before is None:
            self._say(logging.WARNING, "stalled: no frame and no error for %.1f s", self._reopen.stall_s)
        elif not stalls and before is not None:
            self._say(logging.INFO, "no longer stalled after %.1f s", now - before)

    def status(self) -> SourceStatus:
        """Of one moment."""
        counts, now = self.mailbox.counts(), time.monotonic()
        with self._lock:
            state, since, problem = self._state, self._since, self._problem
            if self._reading_since is not None and self._stalls(now):
                silent_s = now - self._reading_since
                state, since, problem = "stalled", time.time() - silent_s, f"no frame and no error for {silent_s:.1f} s"
            return SourceStatus(
                name=self.source.name,
                uri=without_credentials(self.source.uri),
                state=state,
                since=since,
                problem=problem,
                width=self._width,
                height=self._height,
                fps=self._rate.per_second(now),
                captured=counts.received,
                explained=counts.done,
                dropped=counts.dropped,
                failed=counts.failed,
                waiting=counts.waiting,
                broken=self._broken,
                reopened=self._reopened,
                age=self.ages.percentiles(),
                live=self.source.live,
            )

    def _run(self) -> None:
        try:
            self._capture()
        except BaseException as error:  # noqa: BLE001 - SystemExit, say: the status must not say that it runs
            self._fail(SourceLostError(in_words(error)))
        finally:
            self._close()
            self.mailbox.close()
            self._ended()

    def _capture(self) -> None:
        self._began_at = self._frame_at = time.monotonic()
        first = True
        while not self._stop.is_set():
            opened_at: float | None = None
            try:
                self.source.open()
                opened_at = time.monotonic()
                if not first:
                    with self._lock:
                        self._reopened += 1
                first = False
                self._read_on()
                break
            except SourceLostError as error:
                problem: Exception = error
            except GapcamError as error:
                if not self._stop.is_set():
                    self._fail(error)
                    return
                break
            except Exception as error:  # noqa: BLE001 - whatever a source raises: it is lost, and the others go on
                problem = error
            first = False
            self._close()
            if not self._wait_to_reopen(problem, opened_at):
                return
        if self._stop.is_set():
            self._set_state("stopped")
        else:
            self._set_state("ended")
            self._say(logging.INFO, "ended after %d frames", self._number)

    def _read_on(self) -> None:
        """Until the source ends or everything stops."""
        broken_row = 0
        while not self._stop.is_set():
            with self._lock:
                self._reading_since = time.monotonic()
            try:
                frame = self.source.read()
                if frame is not None:
                    _check(frame, self._began_at, BrokenFrameError if self._number else UsageError)
            except BrokenFrameError as error:
                broken_row += 1
                self._count_broken(error)
                if self.source.live and broken_row >= BROKEN_ROW:
                    raise SourceLostError(f"{broken_row} broken frames one after another; the last: {error}") from error
                continue
            finally:
                with self._lock:
                    self._reading_since = None
            if frame is None:
                return
            broken_row = 0
            self._came(frame)

    def _came(self, frame: SourceFrame) -> None:
        now = time.monotonic()
        taken_at, position_s = min(float(frame.taken_at), now), frame.position_s
        height, width = frame.image.shape[:2]
        before = (self._width, self._height)
        with self._lock:
            self._width, self._height = width, height
            self._rate.add(now)
        if self._state != "running":
            if self._lost:
                self._say(logging.INFO, "gives frames again after %.1f s", now - self._frame_at)
            else:
                self._say(logging.INFO, "running: %d x %d pixels", width, height)
            self._lost = False
            self._set_state("running")
        if before not in ((0, 0), (width, height)):
            self._say(logging.INFO, "frames are %d x %d pixels now; they were %d x %d", width, height, *before)
        self._frame_at = now
        captured = CapturedFrame(
            source=self.source.name,
            number=self._number,
            image=frame.image,
            taken_at=taken_at,
            time=time.time() - (now - taken_at),
            position_s=None if position_s is None else float(position_s),
            still=frame.still,
        )
        self._number += 1
        self.mailbox.put(captured)

    def _count_broken(self, error: BrokenFrameError) -> None:
        with self._lock:
            self._broken += 1
        if (unsaid := self._broken_log.due()) is not None:
            self._say(logging.WARNING, "broken frame: %s%s", self._in_words(error), unsaid)

    def _wait_to_reopen(self, problem: Exception, opened_at: float | None) -> bool:
        """Whether to open it again."""
        if self._stop.is_set():
            self._set_state("stopped")
            return False
        now = time.monotonic()
        wait_s = self._backoff.failed(now - opened_at if opened_at is not None else 0)
        give_up_s = self._reopen.give_up_s
        left_s = wait_s if give_up_s is None else self._frame_at + give_up_s - now
        if left_s <= 0:
            self._fail(problem)
            return False
        text = self._in_words(problem)
        if not self._lost:
            self._lost = True
            self._say(logging.WARNING, "lost: %s; it is opened again", text)
        else:
            self._say(logging.DEBUG, "still lost: %s", text)
        self._set_state("lost", text)
        self._stop.wait(min(wait_s, left_s))
        return True

    def _fail(self, error: Exception) -> None:
        self.error = error
        text = self._in_words(error)
        self._set_state("failed", text)
        self._say(logging.ERROR, "failed: %s", text)

    def _close(self) -> None:
        try:
            self.source.close()
        except Exception as error:  # noqa: BLE001 - whatever a source of the user's own raises: it is done with
            self._say(logging.ERROR, "closing the source failed: %s", self._in_words(error))

    def _set_state(self, state: SourceState, problem: str = "") -> None:
        with self._lock:
            if (state, problem) != (self._state, self._problem):
                if state != self._state:
                    self._since = time.time()
                self._state, self._problem = state, problem

    def _in_words(self, error: BaseException) -> str:
        """What may be shown of it: a source of the user's own may write its URI into it."""
        uri = self.source.uri
        return redacted(in_words(error), uri if without_credentials(uri) != uri else "")

    def _stalls(self, now: float) -> bool:
        if not self.source.live or self._reading_since is None or self._state not in ("opening", "running"):
            return False
        return now - self._reading_since > self._reopen.stall_s

    def _say(self, level: int, message: str, *values: object) -> None:
        log.log(level, f"source %s: {message}", self.source.name, *values, extra={"source": self.source.name})


def _check(frame: object, began_at: float, odd_time: type[GapcamError]) -> None:
    """A mistake in a source of the user's own does not pass; an image that cannot be explained is counted later.

    Args:
        frame: what the source gave just now.
        began_at: when the pipeline began.
        odd_time: raised for a time that cannot be: at first it is a clock's, later one that stepped must not end a run.
    """
    if not isinstance(frame, SourceFrame) or frame.image is None:
        raise UsageError(f"the source gave {type(frame).__name__}; expected a SourceFrame with its image")
    if getattr(frame.image, "ndim", 0) < 2:
        check_frame(frame.image, "the source's SourceFrame has no frame: ")
    taken_at, position_s, now = frame.taken_at, frame.position_s, time.monotonic()
    if not is_finite(taken_at) or not began_at - BEFORE_S <= taken_at <= now + AHEAD_S:
        raise odd_time(
            f"the source's SourceFrame has a taken_at of {taken_at!r}, and time.monotonic() is {now:.3f}; give "
            "time.monotonic() of the capture, not time.time()"
        )
    # One below 0 is none of ours to refuse: in a transport stream times may begin anew, at less than the first one.
    if position_s is not None and not is_finite(position_s):
        raise odd_time(f"the source's SourceFrame has a position_s of {position_s!r}; give seconds, or None")
