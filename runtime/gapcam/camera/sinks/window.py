"""Shows pictures in a window of each source."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from gapcam.camera.errors import StopRequestedError
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.child_python import child_code
from gapcam.errors import UsageError

_CLOSING_KEYS = (ord("q"), 27)
_INSTEAD = "or watch in a browser, with --serve 127.0.0.1:8080"
_PROBE = "import cv2; cv2.namedWindow('gapcam'); cv2.waitKey(1); cv2.destroyAllWindows()"


class WindowSink:
    """A window of each source. The keys q and Esc, or closing a window, end everything.

    OpenCV's windows belong to the thread that made them: `open`, `write` and `close` are for one thread.

    Args:
        options: `sources` and `bare` concern it.

    Raises:
        UsageError: this OpenCV has no windows, or there is no display.
    """

    capacity = 1
    """People see the newest frame only."""

    def __init__(self, options: SinkOptions) -> None:
        _check_display()
        self.name = "window"
        self._options = options
        self._shown: set[str] = set()

    def open(self) -> None:
        """Windows are made when their first frame comes."""

    def write(self, frame: ExplainedFrame) -> None:
        """Show the frame's picture.

        Raises:
            StopRequestedError: a key or a closed window asks for it.
        """
        source = frame.captured.source
        if not self._options.takes(source):
            return
        title = f"gapcam: {source}"
        if title not in self._shown:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            height, width = frame.captured.image.shape[:2]
            cv2.resizeWindow(title, width, height)
            self._shown.add(title)
        cv2.imshow(title, frame.captured.image if self._options.bare else frame.picture())
        key = cv2.waitKey(1)
        if key & 0xFF in _CLOSING_KEYS and key >= 0:
            raise StopRequestedError(f"the key {chr(key & 0xFF)!r} was pressed")
        for shown in self._shown:
            if cv2.getWindowProperty(shown, cv2.WND_PROP_VISIBLE) < 1:
                raise StopRequestedError("a window was closed")

    def close(self) -> None:
        """Close the windows."""
        if self._shown:
            self._shown.clear()
            cv2.destroyAllWindows()
            cv2.waitKey(1)


def _check_display() -> None:
    if _window_system() == "NONE":
        raise UsageError(
            "this OpenCV has no windows (opencv-python-headless); put opencv-python in its place: pip uninstall "
            f"opencv-python-headless, then pip install --force-reinstall opencv-python; {_INSTEAD}"
        )
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(f"there is no display for a window: DISPLAY is not set; run it on a desktop, {_INSTEAD}")
    # A toolkit ends the whole process where its display does not answer, so another process asks.
    try:
        subprocess.run(child_code(_PROBE), check=True, capture_output=True, timeout=30)  # noqa: S603
    except (subprocess.SubprocessError, OSError):
        shown = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY", "")
        raise UsageError(
            f"no window can be opened on the display {shown!r}; check that it is yours, {_INSTEAD}"
        ) from None


def _window_system() -> str:
    """OpenCV's, such as QT5, GTK3, WIN32UI; NONE where it was built without any."""
    lines = (line.strip() for line in cv2.getBuildInformation().splitlines())
    return next((line.partition(":")[2].strip().split()[0] for line in lines if line.startswith("GUI:")), "NONE")
