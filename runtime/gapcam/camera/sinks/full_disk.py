"""A disk that fills up: noticed before it is full, and told from other failures."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from gapcam.atomic_file import FULL_DISK
from gapcam.camera.errors import SinkEndedError

_INTERVAL_S = 1.0


class FreeSpace:
    """Watches how much room a folder's disk has.

    Args:
        folder: where files are written.
        least_bytes: that must stay free; with 0 nothing is watched.
    """

    def __init__(self, folder: Path, least_bytes: int) -> None:
        self._folder, self._least = folder, least_bytes
        self._next = float("-inf")

    def check(self) -> None:
        """Look, but no more than once a second.

        Raises:
            SinkEndedError: there is less room than that.
            OSError: the folder is gone.
        """
        now = time.monotonic()
        if not self._least or now < self._next:
            return
        self._next = now + _INTERVAL_S
        free = shutil.disk_usage(self._folder).free
        if free < self._least:
            raise SinkEndedError(
                f"the disk of {self._folder} has {free / 1e6:.0f} MB left, and {self._least / 1e6:.0f} MB are to stay "
                "free; nothing more is written there. Make room, or set min-free"
            )


def ended_by_full_disk(error: BaseException, path: Path) -> SinkEndedError | None:
    """What to raise in an error's place where it says that there is no more room; None where it does not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL_DISK:
            return SinkEndedError(f"{path} cannot grow: {cause.strerror}; nothing more is written there. Make room")
        cause = cause.__cause__
    return None
