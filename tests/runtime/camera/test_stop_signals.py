"""SIGINT and SIGTERM, sent to real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gapcam.camera.stop_signals import StopSignals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

WAITS = """
import sys, threading, time
from gapcam.camera.stop_signals import StopSignals
wake = threading.Event()
with StopSignals(wake) as signals:
    print("ready", flush=True)
    wake.wait()
    print("asked", int(signals.number), signals.asked.is_set(), flush=True)
    {then}
sys.exit(signals.exit_code)
"""


@contextmanager
def started(then: str = "pass", **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS.format(then=then)], stdout=subprocess.PIPE, text=True, **options
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_the_first_signal_asks_to_stop(number: signal.Signals, code: int) -> None:
    with started() as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    assert out == f"asked {int(number)} True\n"
    assert process.returncode == code


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_at_once_even_while_a_library_does_not_return(second: signal.Signals) -> None:
    # One call in C that looks at no signals, as an engine's may be.
    with started("import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("asked")
        process.send_signal(second)
        assert process.wait(timeout=20) == 128 + second


def test_a_terminal_that_closes_may_say_so_twice() -> None:
    with started("sys.stdin.readline()", stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("asked")
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=20)
    assert process.returncode == 0


def test_what_nohup_ignores_stays_ignored() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(preexec_fn=ignore) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert out == f"asked {int(signal.SIGTERM)} True\n"


FIRST = """
import os, time
from gapcam.camera.stop_signals import ending_by_signals
with ending_by_signals():
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "--pid", "--fork", "true"]).returncode != 0,
    reason="no process namespaces can be made here",
)
def test_the_first_process_of_a_container_is_ended_while_it_loads() -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", FIRST]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as unshare:
        try:
            assert unshare.stdout is not None
            assert unshare.stdout.readline() == "ready 1\n"
            child = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text(encoding="ascii").strip()
            os.kill(int(child), signal.SIGTERM)
            assert unshare.wait(20) == 0
        finally:
            unshare.kill()


def test_afterwards_signals_do_what_they_did() -> None:
    before, threads = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)), set(threading.enumerate())
    with StopSignals(threading.Event()) as signals:
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert not signals.asked.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not set(threading.enumerate()) - threads
