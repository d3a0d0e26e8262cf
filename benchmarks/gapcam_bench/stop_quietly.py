"""Ends a process on SIGINT and SIGTERM without a word, whatever it is in the middle of, but never within a file."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopQuietly:
    """From now on these signals end the process with 128 and their number: 130 and 143.

    A Python handler runs when the main thread comes back from whatever library it is in, which may be at the end of a
    measurement. So a thread waits for the byte that the interpreter's own handler writes at once.
    """

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)  # without one the interpreter writes no byte
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="stop quietly", daemon=True).start()

    @contextmanager
    def not_now(self) -> Iterator[None]:
        """A `with` block that is finished before the process ends."""
        with self._writing:
            yield

    def _wait(self) -> None:
        number = os.read(self._read, 1)[0]
        with self._writing:
            os._exit(128 + number)
