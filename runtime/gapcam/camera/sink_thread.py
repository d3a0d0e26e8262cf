"""The thread that writes to one sink, and opens it again where it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock, Thread

from gapcam.camera.ages import Ages
from gapcam.camera.backoff import Backoff, Reopen
from gapcam.camera.errors import SinkEndedError, StopRequestedError, in_words
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.kept_events import KeptEvents
from gapcam.camera.log_pace import LogPace
from gapcam.camera.mailbox import Mailbox
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.status import SinkState, SinkStatus

log = logging.getLogger("gapcam.camera")


class SinkThread:
    """Writes what comes into its mailbox, until that is closed and empty.

    Args:
        sink: opened, written to and closed by this thread, and closed by another one where `write` never returns.
        blocking: whether its mailbox makes the pipeline wait, see `Mailbox`.
        reopen: how long is waited before it is opened again; that is tried for ever.
        stop: called where the user asks at this sink that everything stop.
        ended: called last of all.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        blocking: bool,
        reopen: Reopen,
        stop: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self.sink = sink
        drop = KeptEvents(f"sink {sink.name}").drop_one
        self.mailbox: Mailbox[ExplainedFrame] = Mailbox(sink.capacity, blocking=blocking, drop=drop)
        self.thread = Thread(target=self._run, name=f"gapcam sink {sink.name}", daemon=True)
        self._stop, self._ended = stop, ended
        self._blocking = blocking
        self._standstill = LogPace()
        self._backoff = Backoff(reopen.first_s, reopen.greatest_s)
        self._ages = Ages()
        self._lock = Lock()  # of what the status says
        self._state: SinkState = "opening"
        self._problem = ""
        self._restarts = 0

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def abandon(self, closing_s: float) -> None:
        """Close the sink from outside: its thread does not come back from `open`, `write` or `close`.

        Args:
            closing_s: how long to wait for that.
        """
        self.mailbox.discard()
        self._set_state("stopped", "it did not finish in time")
        self._say(logging.ERROR, "did not finish in time; it is closed as it is")
        closing = Thread(target=self._close, name=f"{self.thread.name} (closing)", daemon=True)
        closing.start()
        closing.join(closing_s)

    def status(self) -> SinkStatus:
        """Of one moment."""
        counts = self.mailbox.counts()
        with self._lock:
            return SinkStatus(
                name=self.sink.name,
                state=self._state,
                problem=self._problem,
                received=counts.received,
                written=counts.done,
                dropped=counts.dropped,
                failed=counts.failed,
                waiting=counts.waiting,
                restarts=self._restarts,
                age=self._ages.percentiles(),
                undelivered=getattr(self.sink, "undelivered", 0),
            )

    def _run(self) -> None:
        try:
            self._serve()
        except SinkEndedError as error:
            self._set_state("ended", str(error))
            self._say(logging.WARNING, "ended: %s", error)
        except StopRequestedError:
            self._set_state("ended")
            self._say(logging.INFO, "asks that everything stop")
            self._stop()
        except BaseException as error:  # noqa: BLE001 - SystemExit, say: the status must not say that it runs
            self._set_state("ended", in_words(error))
            self._say(logging.ERROR, "ended: %s", in_words(error))
        finally:
            self.mailbox.discard()
            self._close()
            self._ended()

    def _serve(self) -> None:
        """Until the mailbox is closed and empty."""
        while True:
            opened_at: float | None = None
            try:
                self.sink.open()
                opened_at = time.monotonic()
                self._opened()
                self._write_on()
            except (SinkEndedError, StopRequestedError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a sink raises: it is opened again, the others go on
                if not self._wait_to_reopen(error, opened_at):
                    return
            else:
                self._set_state("stopped")
                return

    def _write_on(self) -> None:
        while (frame := self.mailbox.take()) is not None:
            try:
                self.sink.write(frame)
            except StopRequestedError:
                self.mailbox.finish("dropped")
                raise
            except BaseException:
                self.mailbox.finish("failed")
                raise
            if not frame.again:
                self._ages.add(time.monotonic() - frame.captured.taken_at)
            self.mailbox.finish("done")

    def _opened(self) -> None:
        again = self._state == "restarting"
        self._set_state("running")
        if again:
            with self._lock:
                self._restarts += 1
            self._say(logging.INFO, "restarted")

    def _wait_to_reopen(self, error: Exception, opened_at: float | None) -> bool:
        """Whether to open it again. When the pipeline ends, once more and at once, for the frames that wait."""
        text = in_words(error)
        ending = self.mailbox.wait_until_closed(0)
        self._close()
        if ending and (not self.mailbox.ready or opened_at is None):
            self._say(logging.WARNING, "failed at the end: %s", text)
            self._set_state("stopped", text)
            return False
        again = self._state == "restarting"
        more = self._standstill.due()
        if again and self._blocking and more is not None:
            self._say(logging.WARNING, "still fails, and everything waits for it: %s%s", text, more)
        else:
            self._say(logging.DEBUG if again else logging.WARNING, "failed: %s; it is opened again", text)
        self._set_state("restarting", text)
        wait_s = self._backoff.failed(time.monotonic() - opened_at if opened_at is not None else 0)
        if self.mailbox.wait_until_closed(wait_s) and not self.mailbox.ready:
            self._set_state("stopped", text)
            return False
        return True

    def _close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:  # noqa: BLE001 - whatever a sink raises: what it wrote is as good as it gets
            self._say(logging.WARNING, "closing it failed: %s", in_words(error))

    def _set_state(self, state: SinkState, problem: str = "") -> None:
        with self._lock:
            self._state, self._problem = state, problem

    def _say(self, level: int, message: str, *values: object) -> None:
        log.log(level, f"sink %s: {message}", self.sink.name, *values, extra={"sink": self.sink.name})
