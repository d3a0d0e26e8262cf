"""The threads of this process that the system knows: FFmpeg's, too."""

from __future__ import annotations

import time
from pathlib import Path


def native_threads() -> int:
    """How many there are."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def back_to(count: int, within_s: float) -> bool:
    """Whether there are no more than so many again, within some seconds."""
    until = time.monotonic() + within_s
    while native_threads() > count:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
