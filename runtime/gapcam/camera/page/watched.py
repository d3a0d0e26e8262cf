"""What the page needs of a pipeline."""

from __future__ import annotations

from typing import Protocol

from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.status import PipelineStatus
from gapcam.session import Session


class Demand(Protocol):
    """Which classes' maps somebody looks at. Counted: two who look release twice."""

    def acquire(self, index: int) -> None:
        """From now on this class's map is wanted."""

    def release(self, index: int) -> None:
        """One looks at it no more."""


class Watched(Protocol):
    """A pipeline, as the page sees it."""

    @property
    def session(self) -> Session:
        """Its model."""

    @property
    def settings(self) -> ExplainSettings:
        """How it explains."""

    @property
    def demand(self) -> Demand:
        """Which maps are wanted."""

    def status(self) -> PipelineStatus:
        """How it is doing; from any thread, at any time."""
