"""A thread that does what others hand to it, for libraries that keep something a thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias, TypeVar

from gapcam.backends.protocol import CLOSED
from gapcam.errors import UsageError

T = TypeVar("T")

_Jobs: TypeAlias = "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class OwnThread:
    """One job after the other, in the order in which they come. Whoever hands one in waits for it.

    The thread ends when it is closed or collected, and does not keep a process alive.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: _Jobs = SimpleQueue()
        self._lock, self._closed = Lock(), False
        Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
        # Not at the process's exit: a session may be closed there, and that is a job after this one.
        weakref.finalize(self, self._jobs.put, None).atexit = False

    def done(self, job: Callable[[], T]) -> T:
        """What a job returns or raises.

        Raises:
            UsageError: the thread is closed.
        """
        outcome: Future[T] = Future()
        try:
            with self._lock:
                if self._closed:
                    raise UsageError(CLOSED)
                self._jobs.put((outcome, job))
            return outcome.result()
        except BaseException:
            # Where Ctrl+C came: a job that has begun still uses what the caller is about to give back.
            if not outcome.cancel():
                wait([outcome])
            raise

    def close(self) -> None:
        """End the thread after the jobs that were handed in. Closing twice does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)


def _work(jobs: _Jobs) -> None:
    while (entry := jobs.get()) is not None:
        _do(*entry)
        del entry  # while it waits, nothing of the last job is kept alive


def _do(outcome: Future[T], job: Callable[[], T]) -> None:
    try:
        if outcome.set_running_or_notify_cancel():
            outcome.set_result(job())
    except BaseException as error:  # noqa: BLE001 - it is raised where the job was handed in
        outcome.set_exception(error)
    finally:
        del outcome, job  # the error's traceback leads here: no cycle
