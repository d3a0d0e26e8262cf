"""From sources through a model to sinks, in threads of their own."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from threading import Condition, Event, Lock, Thread, current_thread
from types import TracebackType
from typing import Literal, TypeAlias, TypeVar, get_args

from gapcam.camera.ages import Ages
from gapcam.camera.backoff import Reopen
from gapcam.camera.capture_thread import CaptureThread
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.explainer import Explainer
from gapcam.camera.file_clashes import check_files_of
from gapcam.camera.inference_thread import BEAT_S, InferenceThread, Line
from gapcam.camera.kept_events import KeptEvents
from gapcam.camera.mailbox import Mailbox
from gapcam.camera.names import check_different
from gapcam.camera.sink_thread import SinkThread
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sources.protocol import Source
from gapcam.camera.status import PipelineStatus
from gapcam.camera.uri import without_credentials
from gapcam.errors import UsageError
from gapcam.session import Session

log = logging.getLogger("gapcam.camera")

Policy: TypeAlias = Literal["newest", "all"]

_One = TypeVar("_One")

CLOSING_S = 1.0
"""How long `stop` waits for a sink that it closes because its thread hangs."""

_DEFAULT_SETTINGS = ExplainSettings()
_DEFAULT_REOPEN = Reopen()


class Pipeline:
    """Reads sources, explains their frames with one session, hands them to sinks; each in a thread of its own.

    The newest frame wins: of each source one frame waits for the network, and a newer one takes its place. What is
    dropped so is counted. A slow sink drops frames of its own and slows nothing else; their events come with the next
    frame that it gets of the source. Where it is an event (a class leaves) that a source ends, is away or begins anew,
    its last frame is handed over once more, with these events.

    Use it as a context manager, call `run`, or loop over `frames()`. It runs once. Its methods may be called from any
    thread, but not from a signal handler, which may interrupt one of them.

    Args:
        session: it stays yours: close it after the pipeline has ended.
        sources: at least one; their names differ.
        sinks: their names differ.
        settings: what is computed and shown.
        policy: "newest"; or "all", where no source is live: nothing is dropped anywhere, and all wait for the slowest.
            By default "all" for a source that is not paced (images, say), "newest" for others; sinks drop frames
            unless nothing may be dropped of any source.
        batch: whether frames of several sources share an inference. By default that is measured at the start, for a
            second, where there are several sources and the model takes batches.
        reopen: how a source that is lost, or a sink that fails, is opened again.

    Attributes:
        demand: the classes that somebody wants maps of, beside those of the settings.
        session: as given.
        settings: as given.

    Raises:
        UsageError: there is no source, two have one name, something is no source or no sink, or the policy does not
            fit.
        ClassNotFoundError: the settings name a class that the model does not have.

    Example:
        >>> with gapcam.load("model.onnx") as session:  # doctest: +SKIP
        ...     for frame in Pipeline(session, [source_from_uri("/dev/video0")]).frames():
        ...         print(frame.top[0].label)
    """

    def __init__(
        self,
        session: Session,
        sources: Iterable[Source],
        sinks: Iterable[Sink] = (),
        *,
        settings: ExplainSettings = _DEFAULT_SETTINGS,
        policy: Policy | None = None,
        batch: bool | None = None,
        reopen: Reopen = _DEFAULT_REOPEN,
    ) -> None:
        sources, sinks = _listed(sources, Source, "source"), _listed(sinks, Sink, "sink")
        _check(sources, policy)
        self.demand = ClassDemand()
        self.session, self.settings = session, settings
        blocking = [policy == "all" or not (policy or source.live or source.paced) for source in sources]
        self._blocking = all(blocking)  # sinks, too
        self._waiting = [] if self._blocking else [s.name for s, waits in zip(sources, blocking, strict=True) if waits]
        self._reopen = reopen
        self._lock = Lock()
        self._started_at: float | None = None
        self._stopping = self._explained_all = self._gave_up = False
        self._running = 0  # threads
        self._finished = Event()  # all have ended, or were given up
        self._taps: list[Mailbox[ExplainedFrame]] = []
        changed = Condition()
        lines: list[Line] = []
        self._captures: list[CaptureThread] = []
        for source, waits in zip(sources, blocking, strict=True):
            ages, mailbox = Ages(), Mailbox[CapturedFrame](1, blocking=waits, changed=changed)
            self._captures.append(CaptureThread(source, mailbox, ages, reopen=reopen, ended=self._thread_ended))
            lines.append(Line(source.name, mailbox, Explainer(session, source.name, settings, self.demand), ages))
        self._sinks: list[SinkThread] = []
        self._inference = InferenceThread(
            session,
            lines,
            changed=changed,
            batch=batch,
            ready=self._start_captures,
            hand_over=self._hand_over,
            every_beat=self._check_stalls,
            ended=self._inference_ended,
        )
        for sink in sinks:
            self.add_sink(sink)

    def add_sink(self, sink: Sink) -> None:
        """One more, before the start.

        Raises:
            UsageError: it is none, has the name of another one, would write over files of others, or the pipeline was
                started.
        """
        _listed([sink], Sink, "sink")
        with self._lock:
            if self._started_at is not None:
                raise UsageError(f"sink {sink.name!r} was added after the start; add sinks before it")
            check_different([*(other.sink.name for other in self._sinks), sink.name], "sink")
            if sink.capacity < 1:
                raise UsageError(f"sink {sink.name!r} has a capacity of {sink.capacity}; it must be at least 1")
            check_files_of(sink, (one.source for one in self._captures), (other.sink for other in self._sinks))
            self._sinks.append(
                SinkThread(
                    sink,
                    blocking=self._blocking,
                    reopen=self._reopen,
                    stop=self.request_stop,
                    ended=self._thread_ended,
                )
            )

    def start(self) -> None:
        """Start all threads.

        Raises:
            UsageError: it was started or stopped before; a pipeline runs once.
        """
        with self._lock:
            if self._started_at is not None or self._stopping:
                raise UsageError("this pipeline was started or stopped before; make a new one")
            self._started_at = time.monotonic()
            self._running = len(self._threads())
        for name in self._waiting if self._sinks else ():
            text = "source %s: slow sinks may drop its frames, as other sources do not wait; alone it loses none"
            log.warning(text, name, extra={"source": name})
        for sink in self._sinks:
            sink.start()
        self._inference.start()

    def request_stop(self) -> None:
        """Begin to stop, and return at once: sources end, and what they captured still goes its way.

        A frame that a source is just reading is dropped, and counted, also where else nothing is dropped. What still
        goes its way has no time limit but that of `stop`.
        """
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            if self._started_at is None:
                self._finished.set()
                return
            taps = list(self._taps)
        for tap in taps:
            tap.close()
        for capture in self._captures:
            capture.stop()

    def stop(self, timeout_s: float = 10) -> None:
        """Stop, and finish the sinks: what they wrote can be used. Again, or before the start, it does nothing.

        Frames that were captured are explained and written, as far as there is time; the rest is dropped, and counted.

        Args:
            timeout_s: how long that may take. A thread that hangs after it is named in a log line and left to itself;
                its sink is closed.
        """
        self.request_stop()
        if current_thread() in self._threads():
            return  # a sink calls: it cannot wait for its own end
        if self._finished.wait(timeout_s):
            self._join()
        else:
            self._give_up()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended, at the latest after so many seconds: all sources ended or failed, or it was stopped.

        Raises:
            BackendError: the engine failed, and so did the pipeline.
            GapcamError: every source failed; the first one's error.
            UsageError: it was not started.
        """
        if self._started_at is None and not self._stopping:
            raise UsageError("this pipeline was not started; call start() or use it in a with block")
        ended = self._finished.wait(timeout_s)
        if ended:
            self._join()
            self._raise_error()
        return ended

    def run(self, duration_s: float | None = None) -> None:
        """Start, wait until it ends, for at most so many seconds, and stop.

        Raises:
            GapcamError: as `wait`.
        """
        self.start()
        try:
            self.wait(duration_s)
        finally:
            self.stop()
        self._raise_error()

    def __enter__(self) -> Pipeline:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._raise_error()

    def frames(self) -> Iterator[ExplainedFrame]:
        """For a loop of your own: the newest explained frame each time, until the pipeline ends or is stopped.

        Where nothing may be dropped, every frame, and the pipeline waits for the loop, until that ends or the iterator
        is closed or gone. Frames that came before this was called are not among them. Where the pipeline was not
        started, the loop starts it, and stops it at its end.

        Raises:
            GapcamError: as `wait`, at the end of the loop.
        """
        tap: Mailbox[ExplainedFrame] = Mailbox(1, blocking=self._blocking, drop=KeptEvents("frames()").drop_one)
        with self._lock:
            self._taps = [other for other in self._taps if not other.ended]
            self._taps.append(tap)
            if self._stopping or self._explained_all:
                tap.close()
        loop = self._tapped(tap)
        # What no loop ever began to go through is closed by nobody else.
        weakref.finalize(loop, tap.discard).atexit = False
        return loop

    def status(self) -> PipelineStatus:
        """How it is doing now. Cheap."""
        started_at = self._started_at
        return PipelineStatus(
            running=started_at is not None and not self._finished.is_set(),
            uptime_s=0.0 if started_at is None else time.monotonic() - started_at,
            idle_s=0.0 if started_at is None else self._inference.idle_s,
            model=os.path.basename(self.session.name),  # noqa: PTH119 - a name for people, not always a path
            engine=self.session.engine,
            batched=self._inference.batched,
            inference=self._inference.inference.percentiles(),
            sources=tuple(capture.status() for capture in self._captures),
            sinks=tuple(sink.status() for sink in self._sinks),
        )

    def _tapped(self, tap: Mailbox[ExplainedFrame]) -> Iterator[ExplainedFrame]:
        starts = self._started_at is None and not self._stopping
        try:
            if starts:
                self.start()
            while (frame := tap.take()) is not None:
                tap.finish("done")
                yield frame
        finally:
            tap.discard()
            with self._lock:
                self._taps = [other for other in self._taps if other is not tap]
            if starts:
                self.stop()
        self._raise_error()

    def _start_captures(self) -> None:
        for capture in self._captures:
            capture.start()  # and it ends at once where it was stopped meanwhile

    def _hand_over(self, frame: ExplainedFrame) -> None:
        for mailbox in (*(sink.mailbox for sink in self._sinks), *self._taps):
            while not mailbox.wait_for_place(BEAT_S):
                self._inference.beat()
            mailbox.put(frame)

    def _check_stalls(self) -> None:
        for capture in self._captures:
            capture.check_stall()

    def _inference_ended(self) -> None:
        """Nothing more is explained: sinks write what waits for them, and end."""
        self.request_stop()  # where it ended early
        for capture in self._captures:
            capture.mailbox.discard()
        with self._lock:
            self._explained_all = True
            taps = list(self._taps)
        for mailbox in (*(sink.mailbox for sink in self._sinks), *taps):
            mailbox.close()
        self._thread_ended()

    def _thread_ended(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._finished.set()

    def _threads(self) -> list[Thread]:
        return [
            *(capture.thread for capture in self._captures),
            self._inference.thread,
            *(sink.thread for sink in self._sinks),
        ]

    def _join(self) -> None:
        """The last steps of threads that have done their work."""
        for thread in self._threads():
            if thread.ident is not None and not self._gave_up:
                thread.join()

    def _give_up(self) -> None:
        """The time to stop is over: drop what waits, and leave threads to themselves that hang."""
        for capture in self._captures:
            capture.mailbox.discard()
        for sink in self._sinks:
            sink.mailbox.discard()
        if not self._finished.wait(CLOSING_S):
            self._gave_up = True
            for thread in self._threads():
                if thread.is_alive():
                    log.error("thread %r hangs and is left to itself", thread.name)
            for capture in self._captures:
                if capture.thread.is_alive():
                    capture.abandon()
            for sink in self._sinks:
                if sink.thread.is_alive():
                    sink.abandon(CLOSING_S)
        self._finished.set()

    def _raise_error(self) -> None:
        """What the pipeline ended with, if it was an error."""
        if self._inference.error is not None:
            raise self._inference.error
        errors = [capture.error for capture in self._captures]
        if errors[0] is not None and None not in errors:
            raise errors[0]


def _check(sources: Sequence[Source], policy: Policy | None) -> None:
    if not sources:
        raise UsageError("there is no source; give at least one")
    check_different([source.name for source in sources], "source")
    if policy not in (None, *get_args(Policy)):
        raise UsageError(f"policy is {policy!r}; give one of {', '.join(get_args(Policy))}")
    if policy == "all":
        for source in sources:
            if source.live:
                raise UsageError(
                    f"policy is 'all', and source {source.name!r} is live: its frames come whether there is time for "
                    "them or not. Give 'newest'"
                )


def _listed(given: Iterable[_One], kind: type, word: str) -> tuple[_One, ...]:
    """All of them; refuse one in place of several, a text that one can be made of, and what is none."""
    made = f"make a {word} of it with {word}_from_uri"
    if isinstance(given, (str, os.PathLike)):
        raise UsageError(f"got {without_credentials(os.fspath(given))!r}; {made}, and put that into a list")
    if not isinstance(given, Iterable) or not _missing(given, kind):
        raise UsageError(f"got {_kind_of(given)}, not a list of {word}s; put each {word} into a list")
    listed = tuple(given)
    one: object
    for one in listed:
        if isinstance(one, (str, os.PathLike)):
            raise UsageError(f"got {without_credentials(os.fspath(one))!r}; {made}")
        if isinstance(one, type):
            raise UsageError(f"got {_kind_of(one)}; give an object of it")
        if missing := _missing(one, kind):
            raise UsageError(
                f"got {_kind_of(one)}, which has no {', '.join(missing)}; a {word} is what "
                f"gapcam.camera.{word.capitalize()} says"
            )
    return listed


def _kind_of(one: object) -> str:
    return f"the class {one.__name__}" if isinstance(one, type) else type(one).__name__


def _missing(one: object, kind: type) -> list[str]:
    """What a protocol asks for and an object does not have."""
    methods = [name for name in vars(kind) if not name.startswith("_")]
    return [
        *(name for name in kind.__annotations__ if not hasattr(one, name)),
        *(f"{name}()" for name in methods if not callable(getattr(one, name, None))),
    ]
