"""A camera that keeps time exactly and costs nothing: what is measured then is the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gapcam.camera.captured_frame import SourceFrame
from gapcam.frame import Frame


class PacedFrames:
    """Pictures from memory, one after another, at a rate: a source.

    As of a camera, a frame is there at its moment whether somebody reads it or not, and it is taken at that moment,
    not when it is read. Whoever reads too late gets the newest frame.

    Args:
        images: H x W x 3 uint8 BGR each, shown in turn; nobody writes to them.
        fps: frames a second.
        name: of the source.

    Attributes:
        missed: frames that nobody read.
        sent: frames that were read.
    """

    live = True
    paced = True

    def __init__(self, images: Sequence[Frame], fps: float, name: str = "camera") -> None:
        self.name, self.uri = name, f"memory:{name}"
        self.missed = self.sent = 0
        self._images, self._interval = images, 1 / fps
        self._stopped = threading.Event()
        self._began: float | None = None
        self._next = 0

    def open(self) -> None:
        """The first frame is there one interval later."""
        self._began, self._next = time.monotonic(), 1

    def read(self) -> SourceFrame | None:
        """Wait for the next frame."""
        if self._began is None:
            self.open()
        began, now = self._began or 0.0, time.monotonic()
        newest = int((now - began) / self._interval)
        if newest > self._next:
            self.missed += newest - self._next
            self._next = newest
        taken_at = began + self._next * self._interval
        if self._stopped.wait(max(0.0, taken_at - now)):
            return None
        image = self._images[self._next % len(self._images)]
        self._next += 1
        self.sent += 1
        return SourceFrame(image, taken_at)

    def interrupt(self) -> None:
        """End it."""
        self._stopped.set()

    def close(self) -> None:
        """Nothing to give back."""
