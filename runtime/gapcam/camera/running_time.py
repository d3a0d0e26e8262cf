"""How long a source has been running, by its own time."""

from __future__ import annotations

from gapcam.camera.captured_frame import CapturedFrame


class RunningTime:
    """Seconds from a source's first frame to its newest; they never go back.

    Of a file they are those that the file says, however fast it is read; where these do not grow, since it begins anew,
    its last step once more. Else it is the time that passed; stamps that jitter add nothing until they are beyond the
    latest.

    Attributes:
        seconds: from the first frame to the newest.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._latest: float | None = None  # `taken_at`
        self._position_s: float | None = None
        self._step_s: float | None = None  # of the file

    def add(self, captured: CapturedFrame) -> float:
        """Take a frame: seconds from the one before, 0 or more."""
        before, position_s = self._position_s, captured.position_s
        latest = captured.taken_at if self._latest is None else max(self._latest, captured.taken_at)
        step = 0.0 if self._latest is None else latest - self._latest
        if before is not None and position_s is not None:
            if position_s > before:
                self._step_s = position_s - before
            if self._step_s is not None:
                step = self._step_s
        self._latest, self._position_s = latest, position_s
        self.seconds += step
        return step
