"""A camera in front of pictures: a source that a test can unplug and plug in again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle
from threading import Event

import numpy as np
from numpy.typing import NDArray

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import SourceLostError


class ShownPictures:
    """One picture after the other, over and over.

    Args:
        name: of the source.
        pictures: each H x W x 3 uint8 BGR.
        fps: pictures a second.
    """

    live = True
    paced = True

    def __init__(self, name: str, pictures: Sequence[NDArray[np.uint8]], fps: float = 10) -> None:
        self.name, self.uri = name, f"pictures://{len(pictures)}"
        self._pictures, self._apart_s = cycle(pictures), 1 / fps
        self._plugged, self._ended = Event(), Event()
        self._plugged.set()
        self._due = 0.0

    def unplug(self) -> None:
        """No more pictures, and it cannot be opened, until it is plugged in."""
        self._plugged.clear()

    def plug_in(self) -> None:
        """It can be opened again."""
        self._plugged.set()

    def open(self) -> None:
        """As a source."""
        self._check()
        self._due = time.monotonic()

    def read(self) -> SourceFrame | None:
        """As a source."""
        self._due = max(self._due + self._apart_s, time.monotonic() - self._apart_s)
        if self._ended.wait(max(0.0, self._due - time.monotonic())):
            return None
        self._check()
        return SourceFrame(next(self._pictures).copy(), time.monotonic())

    def interrupt(self) -> None:
        """As a source."""
        self._ended.set()

    def close(self) -> None:
        """As a source."""

    def _check(self) -> None:
        if not self._plugged.is_set():
            raise SourceLostError("the camera is unplugged")
