"""Sources and sinks that do what a test plans, and a session whose every run waits for the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from small_models import fake_red_and_blue

import gapcam
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.status import PipelineStatus

PATIENCE_S = 20.0
"""For what must happen: long enough for a busy machine."""

FAST = {"first_s": 0.001, "greatest_s": 0.004}
"""Of `Reopen`."""


def picture(value: int = 0, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    """H x W x 3 uint8, all pixels alike."""
    return np.full((*size, 3), value % 256, np.uint8)


class PlannedSource:
    """Reads what its plan says: an array is a frame, an exception is raised, a callable is called for one of these.

    Args:
        plan: of reads, across reopenings; after it comes the end.
        opens: what `open` raises, one after another; None is success, as is everything after these.
    """

    def __init__(
        self,
        plan: Iterable[object] = (),
        name: str = "camera",
        *,
        live: bool = False,
        paced: bool | None = None,
        opens: Iterable[Exception | None] = (),
    ) -> None:
        self.name, self.uri, self.live = name, f"planned://{name}", live
        self.paced = live if paced is None else paced
        self.calls: list[str] = []
        self.interrupted = threading.Event()
        self.given = 0
        self._plan, self._opens = iter(plan), iter(opens)

    def open(self) -> None:
        self.calls.append("open")
        error = next(self._opens, None)
        if error is not None:
            raise error

    def read(self) -> SourceFrame | None:
        step = next(self._plan, None)
        if callable(step):
            step = step()
        if isinstance(step, BaseException):
            raise step
        if step is None:
            return None
        self.given += 1
        return SourceFrame(step, time.monotonic())  # type: ignore[arg-type]

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.calls.append("close")


class FedSource(PlannedSource):
    """A live camera whose frames the test feeds one by one; it ends when it is interrupted."""

    def __init__(self, name: str = "camera", *, live: bool = True, paced: bool | None = None) -> None:
        self._fed: list[object] = []
        self._came = threading.Condition()
        super().__init__(self._steps(), name, live=live, paced=paced)

    def feed(self, *steps: object) -> None:
        with self._came:
            self._fed.extend(steps)
            self._came.notify()

    def interrupt(self) -> None:
        super().interrupt()
        self.feed(None)

    def _steps(self) -> Iterator[object]:
        while True:
            with self._came:
                self._came.wait_for(lambda: self._fed)
                step = self._fed.pop(0)
            yield step


class KeepingSink:
    """Keeps (source, number) of each frame.

    Args:
        before: called with each frame before it is kept; what it raises is raised.
        opens: as of a source.
    """

    def __init__(
        self,
        name: str = "sink",
        *,
        capacity: int = 1000,
        before: Callable[[ExplainedFrame], object] = lambda _: None,
        opens: Iterable[Exception | None] = (),
    ) -> None:
        self.name, self.capacity = name, capacity
        self.kept: list[tuple[str, int]] = []
        self.frames: list[ExplainedFrame] = []
        self.calls: list[str] = []
        self._before, self._opens = before, iter(opens)

    def open(self) -> None:
        self.calls.append("open")
        error = next(self._opens, None)
        if error is not None:
            raise error

    def write(self, frame: ExplainedFrame) -> None:
        self._before(frame)
        self.frames.append(frame)
        self.kept.append((frame.captured.source, frame.captured.number))

    def close(self) -> None:
        self.calls.append("close")


class Gate:
    """Something waits at it until the test lets it through."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived = self._passes = 0
        self._open = False

    def __call__(self, *_: object) -> None:
        """Wait here."""
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
            mine = self._arrived
            assert self._changed.wait_for(lambda: self._open or self._passes >= mine, PATIENCE_S)

    def let(self, passes: int = 1) -> None:
        """So many more may pass."""
        with self._changed:
            self._passes += passes
            self._changed.notify_all()

    def open(self) -> None:
        """From now on all pass."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_for(self, arrived: int) -> None:
        """Until so many have come, in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._arrived >= arrived, PATIENCE_S)


def session_with(during: Callable[[np.ndarray], object]) -> gapcam.Session:
    """A session of the hand-computed model that calls this in each run, with the [N,3,2,2] input."""
    backend = fake_red_and_blue()
    compute = backend.compute

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        changed = during(image)
        return {**compute(image), **(changed if isinstance(changed, dict) else {})}

    session = gapcam.Session(backend)
    backend.compute = run  # from now on: the session has run on noise already
    return session


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so that no event tells of: what a status says, mostly."""
    stop_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < stop_at, f"{what} did not come about"
        time.sleep(0.001)


def check_sums(status: PipelineStatus) -> None:
    """Nothing is lost without account."""
    for source in status.sources:
        assert source.captured == source.explained + source.dropped + source.failed + source.waiting, source
    for sink in status.sinks:
        assert sink.received == sink.written + sink.dropped + sink.failed + sink.waiting, sink


@contextmanager
def no_thread_left() -> Iterator[None]:
    """What runs inside leaves no thread behind."""
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before
