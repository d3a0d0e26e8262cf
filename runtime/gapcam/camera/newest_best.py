"""Each source's best class, for whoever shows how the pipeline is doing."""

from __future__ import annotations

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.result import Prediction


class NewestBest:
    """Of each source, what its newest frame shows. It is read by other threads than it is written by."""

    def __init__(self) -> None:
        self._of_source: dict[str, Prediction] = {}

    def note(self, frame: ExplainedFrame) -> None:
        """Remember a frame's best class."""
        if frame.top:
            self._of_source[frame.captured.source] = frame.top[0]

    def of(self, source: str) -> Prediction | None:
        """The best class of a source's newest frame; None before the first."""
        return self._of_source.get(source)
