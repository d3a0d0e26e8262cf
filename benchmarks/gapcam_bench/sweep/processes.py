"""One fresh process a block: started, listened to, and ended whatever happens."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from gapcam.child_python import child_module
from gapcam.errors import DataError, ExitCode, GapcamError
from gapcam_bench.block import Request
from gapcam_bench.block_file import read_block
from gapcam_bench.limits import Limits
from gapcam_bench.sweep.lifeline import PARENT
from gapcam_bench.sweep.scratch import SCRATCH

WORKER = "gapcam_bench.worker"
"""The module that measures a block: `python -m MODULE REQUEST.json FOLDER`."""

_POLL_S = 0.2
_STOPPED_S = 1.0
"""A poll that takes so long: this process was stopped (Ctrl-Z), or the machine slept. The worker is not to blame."""
_LINES_TOLD = 3
_LONGEST_TOLD = 400
_PATIENCE_S = 300.0
"""What a block may take beyond its limits: loading, an engine built by ONNX Runtime, the check of the answers."""


class _Line(msgspec.Struct):
    """What a worker prints: how far it is, or why it gives up."""

    phase: str = ""
    done: float = 0.0
    error: str | None = None
    exit_code: int = ExitCode.BUG


class BlockError(GapcamError):
    """A block could not be measured; the message says why, in a sentence.

    Attributes:
        worker_exit_code: what the worker said that it would end with; of one that was killed, died or hung, MODEL: it
            is the model that cannot be measured here, mostly for want of memory, and no error of gapcam's.
        by_signal: whether it was ended by a signal: perhaps by chance, because memory was full just then.
    """

    def __init__(self, message: str, worker_exit_code: int = ExitCode.MODEL, *, by_signal: bool = False) -> None:
        super().__init__(message)
        self.worker_exit_code, self.by_signal = worker_exit_code, by_signal


@dataclass(frozen=True, slots=True)
class Patience:
    """When a worker is taken to hang.

    Attributes:
        silent_s: after so long without a line.
        total_s: after so long.
    """

    silent_s: float
    total_s: float


def patience(limits: Limits) -> Patience:
    """For a worker that keeps to its limits; the server scenario tries many rates in one block."""
    longest = limits.most_seconds + limits.warm_up_most_seconds
    return Patience(silent_s=_PATIENCE_S + 2 * longest, total_s=2 * _PATIENCE_S + 20 * longest)


def measure_in_process(
    request: Request,
    folder: Path,
    *,
    worker: str = WORKER,
    allowed: Patience | None = None,
    on_phase: Callable[[str, float], None] = lambda _phase, _done: None,
) -> None:
    """Measure one block in a fresh process, which leaves its files in a folder.

    The process is over when this returns or raises, KeyboardInterrupt included; and it ends by itself when this
    process is killed. A whole block counts, however the process ended after it had written it; and time in which this
    process was stopped counts for nothing.

    Args:
        request: what to measure.
        folder: that is there, empty.
        worker: the module to run.
        allowed: when to give up; None for what goes with the request's limits.
        on_phase: is called with what the process is at, and how much of that is done, in [0, 1].

    Raises:
        BlockError: it failed, died, or hung.
    """
    allowed = allowed or patience(request.limits)
    asked = folder / "request.json"
    asked.write_bytes(msgspec.json.encode(request))
    with tempfile.TemporaryFile() as errors:
        try:
            _run(child_module(worker, str(asked), str(folder)), folder, errors, allowed, on_phase)
        except BlockError:
            if not _is_whole(folder):
                raise
    asked.unlink()


def _run(
    command: list[str], folder: Path, errors: IO[bytes], allowed: Patience, on_phase: Callable[[str, float], None]
) -> None:
    process = _start(command, folder, errors)
    try:
        given_up = _listen(process, allowed, on_phase)
        process.wait(allowed.silent_s)
    except subprocess.TimeoutExpired:
        raise BlockError(f"the process did not end within {allowed.silent_s:.0f} s of its last word") from None
    finally:
        _end(process)
    if given_up is not None:
        raise BlockError(str(given_up.error), given_up.exit_code)
    if process.returncode < 0:
        raise BlockError(f"the process {_how_it_ended(process.returncode)}{_last_words(errors)}", by_signal=True)
    if process.returncode > 0:  # of Python's own: it could not even say why
        raise BlockError(f"the process {_how_it_ended(process.returncode)}{_last_words(errors)}", ExitCode.BUG)


def _is_whole(folder: Path) -> bool:
    try:
        read_block(folder)
    except DataError:
        return False
    return True


def _start(command: list[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - this Python
            command,
            stdin=subprocess.PIPE,  # stays open for as long as this process is alive
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, PARENT: str(os.getpid()), SCRATCH: str(folder.absolute())},
            start_new_session=True,  # Ctrl-C is for this process alone, which ends that one
        )
    except OSError as error:
        raise BlockError(f"no process can be started: {error.strerror}") from error


def _listen(
    process: subprocess.Popen[bytes], allowed: Patience, on_phase: Callable[[str, float], None]
) -> _Line | None:
    """Read what the process says until it closes its standard output; the error that it told, if any."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), name="bench worker", daemon=True).start()
    began = heard = polled = time.monotonic()
    given_up = None
    while True:
        line: bytes | None = b""
        with suppress(queue.Empty):
            line = lines.get(timeout=_POLL_S)
        now = time.monotonic()
        if now - polled > _STOPPED_S:
            began, heard = began + (now - polled), now
        polled = now
        if line is None:
            return given_up
        heard = now if line else heard
        if now - heard > allowed.silent_s:
            raise BlockError(f"the process hung: no word from it for {allowed.silent_s:.0f} s")
        if now - began > allowed.total_s:
            raise BlockError(f"the process was not done after {allowed.total_s:.0f} s")
        told = _told(line)
        if told is None:
            continue  # a library that prints
        if told.error is not None:
            given_up = told
        elif told.phase:
            on_phase(told.phase, told.done)


def _told(line: bytes) -> _Line | None:
    try:
        return msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:
        return None


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        if hasattr(os, "killpg"):  # and those that it has started; its group is its own
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    full = " (the system does so where memory is full)" if name == "SIGKILL" else ""
    return f"was ended by {name}{full}"


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    text = errors.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"; the last it said: {' | '.join(lines[-_LINES_TOLD:])[-_LONGEST_TOLD:]}" if lines else ""
