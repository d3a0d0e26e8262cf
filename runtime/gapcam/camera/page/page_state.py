"""All that the parts of the page's server share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property

from gapcam.camera.page.credentials import Credentials
from gapcam.camera.page.event_history import EventHistory
from gapcam.camera.page.frame_times import FrameTimes
from gapcam.camera.page.guesses import Guesses
from gapcam.camera.page.newest_frames import NewestFrames
from gapcam.camera.page.picture_encoder import PictureEncoder
from gapcam.camera.page.seats import Seats
from gapcam.camera.page.server_options import ServerOptions
from gapcam.camera.page.snapshots import Snapshots
from gapcam.camera.page.view import View
from gapcam.camera.page.watched import Watched
from gapcam.camera.status import PipelineStatus
from gapcam.camera.uri import redacted, without_credentials


@dataclass
class PageState:
    """Of one server, from its start to its end; history and times live longer, over restarts.

    Attributes:
        pipeline: what is watched.
        options: how it is served.
        port: where it listens.
        frames: the newest of each source.
        events: the last ones.
        times: ages and stages of the frames so far, for /metrics.
        seats: who watches.
        credentials: who may.
        encoder: of pictures.
        snapshots: whose turn it is to take one.
        guesses: how often an address is told that a token is wrong. The right one is let in at any time.
        refusals: how many answers had a status of 400 or more, by status.
        closing: whether the server ends, so that streams do.
    """

    pipeline: Watched
    options: ServerOptions
    port: int
    frames: NewestFrames
    events: EventHistory
    times: FrameTimes
    seats: Seats
    credentials: Credentials
    encoder: PictureEncoder
    snapshots: Snapshots
    guesses: Guesses = field(default_factory=Guesses)
    refusals: Counter[int] = field(default_factory=Counter)
    closing: bool = False

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the pipeline's sources."""
        return tuple(source.name for source in self.pipeline.status().sources)

    @cached_property
    def cookie(self) -> str:
        """The name of a session's. Browsers share cookies among a host's ports, so that each server needs its own."""
        return f"{'__Host-' if self.options.tls_cert else ''}gapcam_{self.port}"

    @cached_property
    def first_view(self) -> View:
        """What is seen before anything else is wished for."""
        settings = self.pipeline.settings
        return View(source=self.sources[0], threshold=settings.threshold, look=settings.drawn)

    def status(self) -> PipelineStatus:
        """The pipeline's, for strangers: no URI in it has credentials, whoever wrote the problem that names it."""
        status = self.pipeline.status()
        return replace(
            status,
            sources=tuple(
                replace(source, uri=without_credentials(source.uri), problem=redacted(source.problem, uri=source.uri))
                for source in status.sources
            ),
            sinks=tuple(replace(sink, problem=redacted(sink.problem, uri="")) for sink in status.sinks),
        )
