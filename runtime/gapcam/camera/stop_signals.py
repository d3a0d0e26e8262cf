"""SIGINT, SIGTERM and SIGHUP end the camera in good order; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from gapcam.errors import ExitCode

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANG_UP = getattr(signal, "SIGHUP", None)


class StopSignals:
    """Within this context, what would end the process sets `asked` instead.

    The numbers of signals come out of a socket that the interpreter writes to, in a thread that waits for nothing else.
    So a second signal ends the process even where the main thread is inside of a library's call that does not return;
    and no lock is taken in a signal handler.

    A signal that was ignored before, as by `nohup`, stays ignored.

    Args:
        wake: also set at the first signal.

    Attributes:
        asked: set at the first signal.
        number: of that signal; None before.
    """

    def __init__(self, wake: threading.Event) -> None:
        self.asked = threading.Event()
        self.number: int | None = None
        self._wake = wake
        self._before: dict[int, object] = {}
        self._thread = threading.Thread(target=self._wait, name="gapcam signals", daemon=True)

    @property
    def exit_code(self) -> ExitCode:
        """130 after SIGINT, as after any command that the user broke off; else 0: to be stopped is a service's end."""
        return ExitCode.INTERRUPTED if self.number == signal.SIGINT else ExitCode.DONE

    def __enter__(self) -> StopSignals:
        self._end, self._signals = socket.socketpair()
        self._signals.setblocking(False)
        self._descriptor_before = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _noted)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        signal.set_wakeup_fd(self._descriptor_before)
        self._signals.close()  # the thread reads the end
        self._thread.join()
        self._end.close()

    def _wait(self) -> None:
        while received := self._end.recv(1):
            number = received[0]
            if number not in self._before:
                continue
            if self.asked.is_set():
                if number == _HANG_UP:  # a terminal that closes sends several
                    continue
                os._exit(128 + number)
            self.number = number
            self.asked.set()
            self._wake.set()


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """While there is nothing to finish yet, SIGTERM ends the first process of a container, too.

    The kernel ignores signals to such a process that it does not handle; any other is ended by them.
    """
    if os.getpid() != 1:
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.DONE))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The interpreter has written the number to the socket."""
