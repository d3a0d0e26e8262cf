"""A thread that works for others: the order of jobs, what they raise, how it ends."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from gapcam.backends.own_thread import OwnThread
from gapcam.errors import UsageError


def end_of(thread: threading.Thread) -> bool:
    thread.join(timeout=10)
    return not thread.is_alive()


def test_all_jobs_are_done_by_one_thread_one_after_the_other() -> None:
    worker, running = OwnThread("test"), threading.Lock()

    def job() -> int:
        assert running.acquire(blocking=False)
        time.sleep(0.001)
        running.release()
        return threading.get_ident()

    with ThreadPoolExecutor(4) as threads:
        done_by = set(threads.map(lambda _: worker.done(job), range(40)))
    assert len(done_by) == 1
    assert threading.get_ident() not in done_by
    worker.close()


def test_an_error_is_raised_where_the_job_was_handed_in_and_the_thread_goes_on() -> None:
    worker = OwnThread("test")
    with pytest.raises(ZeroDivisionError):
        worker.done(lambda: 1 // 0)
    assert worker.done(lambda: 5) == 5
    worker.close()


def test_closed_it_ends_and_refuses_jobs() -> None:
    worker = OwnThread("test")
    thread = worker.done(threading.current_thread)
    worker.close()
    worker.close()
    assert end_of(thread)
    with pytest.raises(UsageError):
        worker.done(lambda: 0)


def test_collected_it_ends_and_keeps_nothing_of_a_job_alive() -> None:
    class Thing:
        pass

    worker, thing = OwnThread("test"), Thing()
    thread = worker.done(threading.current_thread)
    kept = weakref.ref(thing)
    assert worker.done(lambda thing=thing: thing is not None)  # type: ignore[misc]
    del thing
    worker.done(lambda: None)  # the thread has let go of the one before
    assert kept() is None
    del worker
    gc.collect()
    assert end_of(thread)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals to threads are POSIX's")
def test_who_is_interrupted_leaves_only_when_the_job_is_done() -> None:
    worker, ended = OwnThread("test"), threading.Event()

    def job() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        worker.done(job)
    assert ended.is_set()
    worker.close()


@pytest.mark.parametrize("begins", [True, False])
def test_who_is_interrupted_while_handing_a_job_in_waits_for_it_where_it_has_begun(
    begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, let_go, began, ended = OwnThread("test"), threading.Event(), threading.Event(), threading.Event()
    jobs = worker._jobs

    class Interrupted:
        def put(self, entry: tuple[object, object]) -> None:
            jobs.put(entry)  # type: ignore[arg-type]
            if begins:
                assert began.wait(10)
            raise KeyboardInterrupt

    def job() -> None:
        began.set()
        time.sleep(0.2)
        ended.set()

    with ThreadPoolExecutor(1) as other:
        if not begins:
            busy = threading.Event()
            other.submit(worker.done, lambda: (busy.set(), let_go.wait(10)))
            assert busy.wait(10)
        monkeypatch.setattr(worker, "_jobs", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            worker.done(job)
        assert ended.is_set() == begins
        monkeypatch.undo()
        let_go.set()
    assert worker.done(lambda: 5) == 5
    assert began.is_set() == begins  # not later, either
    worker.close()


@pytest.mark.parametrize("closes", ["atexit.register(worker.close)", "atexit.register(lambda: worker.done(close))", ""])
def test_a_process_ends_with_it_and_it_works_until_then(closes: str) -> None:
    script = f"""
import atexit, gc
from gapcam.backends.own_thread import OwnThread
def close(): print("closed at the exit")
worker = None
{closes}
worker = OwnThread("test")
worker.done(lambda: print("worked"))
"""
    run = subprocess.run([sys.executable, "-c", script.replace("(worker.close)", "(lambda: worker.close())")],
                         capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert run.stdout.split("\n") == ["worked", *(["closed at the exit"] if "done" in closes else []), ""]
    assert run.stderr == ""
