"""Sinks as they should not be."""

from __future__ import annotations

import time

from gapcam.camera.explained_frame import ExplainedFrame


class FailingSink:
    """Fails at each frame while `failing` is set."""

    name = "failing"
    capacity = 4

    def __init__(self) -> None:
        self.failing = False

    def open(self) -> None:
        """Works."""

    def write(self, frame: ExplainedFrame) -> None:
        if self.failing:
            raise OSError(f"frame {frame.captured.number} is too much for it")

    def close(self) -> None:
        """Works."""


class SlowSink:
    """Takes its time for each frame."""

    name = "slow"
    capacity = 2

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def open(self) -> None:
        """Works."""

    def write(self, frame: ExplainedFrame) -> None:  # noqa: ARG002
        time.sleep(self.seconds)

    def close(self) -> None:
        """Works."""
