"""Ends long commands as Ctrl-C does when the system asks them to end, or the terminal is gone."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_OUTPUTS = (1, 2)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does: temporary files are removed, a run says how to go on.

    SIGHUP comes where a terminal is closed or a connection breaks. Under nohup, which ignores it, it stays ignored.
    """
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: signal.default_int_handler}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = _hung_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hung_up(number: int, frame: FrameType | None) -> None:
    """What is said to a terminal that is gone would be an error; let it go nowhere, so that files are still written.

    The kernel may send the signal twice, to the session's leader and to the group in the foreground: once is enough.
    """
    signal.signal(number, signal.SIG_IGN)
    for output in _OUTPUTS:
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)
    signal.default_int_handler(number, frame)
