"""What cameras that OpenCV reads have in common."""

from __future__ import annotations

import time

import cv2
import numpy as np

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import SourceLostError
from gapcam.frame import Frame


class OpenCvCamera:
    """A `Source` that is read through `cv2.VideoCapture`. A kind of camera says how it is opened.

    Args:
        name: see `Source`.
        uri: see `Source`.
    """

    live = True
    paced = True

    def __init__(self, *, name: str, uri: str) -> None:
        self.name, self.uri = name, uri
        self._interrupted = False
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """See `Source`."""
        self.close()
        self._capture = self._opened()

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        if self._capture is None:
            raise SourceLostError(f"{self.uri} is not open")
        good, image = self._capture.read()
        now = time.monotonic()
        if self._interrupted:
            raise SourceLostError(f"{self.uri} was interrupted")
        if not good:
            raise SourceLostError(f"{self.uri} {self._why_no_frame()}")
        return self._frame(self._capture, np.asarray(image, np.uint8), now)

    def interrupt(self) -> None:
        """See `Source`: a read ends with the next frame, or with its time-out."""
        self._interrupted = True

    def close(self) -> None:
        """See `Source`."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _opened(self) -> cv2.VideoCapture:
        """The camera, open. Raises what `Source.open` raises."""
        raise NotImplementedError

    def _why_no_frame(self) -> str:
        return "gave no frame"

    def _frame(self, capture: cv2.VideoCapture, image: Frame, now: float) -> SourceFrame:  # noqa: ARG002 - for V4L2
        """What `read` gives; `now` is the `time.monotonic()` at which OpenCV handed the image over."""
        return SourceFrame(image, now)


def checked_capture(capture: cv2.VideoCapture, problem: str) -> cv2.VideoCapture:
    """The same, if it is open.

    Raises:
        SourceLostError: it is not; `problem` says why that may be.
    """
    if not capture.isOpened():
        capture.release()
        raise SourceLostError(problem)
    return capture
