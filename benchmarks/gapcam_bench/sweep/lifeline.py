"""Ends a process when the one that started it is gone, however that ended."""

from __future__ import annotations

import os
import sys
import threading

PARENT = "GAPCAM_BENCH_PARENT"
"""The environment variable that holds the parent's process id."""

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def end_with_parent() -> None:
    """Let this process end with its parent; nothing where `PARENT` is not set.

    Standard input must be a pipe whose other end the parent alone holds: it ends when the parent does. On Linux the
    kernel kills the process, too, whatever it is in the middle of.
    """
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != int(parent):  # it had ended before
            os._exit(1)
    threading.Thread(target=_wait_for_end, name="lifeline", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
