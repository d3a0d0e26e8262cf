"""A camera with its page, as `gapcam camera MODEL --source ... --serve` runs it, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import gapcam
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.page.server import PageServer
from gapcam.camera.page.server_options import ServerOptions
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.sources.protocol import Source


class WatchedCamera:
    """A pipeline and its page, from `__enter__` to `__exit__`.

    Maps have each frame's own normalisation and no average over time, so that a still picture's map is the session's.

    Args:
        session: it stays the caller's.
        sources: their names differ.
        port: where the page is; 0 for any free one.
        server: of `ServerOptions`: the token that it asks for, say.
    """

    def __init__(self, session: gapcam.Session, sources: Sequence[Source], *, port: int = 0, **server: Any) -> None:
        settings = ExplainSettings(
            smoothing_s=0, normalization="minmax", rules=(EventRule("*", enter=0.2, enter_s=0.2, leave_s=0.4),)
        )
        self._pipeline = Pipeline(session, sources, settings=settings)
        self._server = PageServer(self._pipeline, ServerOptions(address=f"127.0.0.1:{port}", **server))
        self._pipeline.add_sink(self._server)

    def __enter__(self) -> WatchedCamera:
        self._server.start()
        self._pipeline.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipeline.stop()

    @property
    def url(self) -> str:
        """Of the page, with a slash at its end."""
        return self._server.url

    @property
    def port(self) -> int:
        """Of the page."""
        return int(self.url.rstrip("/").rsplit(":", 1)[1])
