"""A real page over a real pipeline, for tests: the cameras' frames are fed by the test one by one."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import httpx
import numpy as np
from camera_frames import picture
from planned_camera import PATIENCE_S, FedSource, KeepingSink
from small_models import a_contract, fake_red_and_blue
from websockets.sync.client import ClientConnection, connect

import gapcam
from gapcam.camera.backoff import Reopen
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.page.server import PageServer
from gapcam.camera.page.server_options import ServerOptions
from gapcam.camera.pipeline import Pipeline

TOKEN = "a-token-for-tests-0123456789"  # noqa: S105
LABELS = ("red", "blue")
SETTINGS = ExplainSettings(smoothing_s=0, gap_s=1e6, rules=(EventRule("red", 0.6, 0.4, enter_s=0, leave_s=0),))


@dataclass
class LiveFrame:
    """A message of the WebSocket."""

    header: dict[str, Any]
    data: bytes

    @property
    def image(self) -> np.ndarray:
        return cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR)


class Live:
    """A client of /api/live."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def view(self, **wishes: object) -> None:
        self.socket.send(json.dumps({"type": "view", **wishes}))

    def ready(self) -> None:
        self.socket.send('{"type": "ready"}')

    def frame(self) -> LiveFrame:
        """The next one."""
        message = self.socket.recv(PATIENCE_S)
        assert isinstance(message, bytes), message
        (length,) = struct.unpack(">I", message[:4])
        return LiveFrame(json.loads(message[4 : 4 + length]), message[4 + length :])

    def next(self) -> LiveFrame:
        """Ready for another one: that."""
        self.ready()
        return self.frame()

    def error(self) -> str:
        """The next message, which is an error."""
        message = json.loads(self.socket.recv(PATIENCE_S))
        assert message.pop("type") == "error"
        return str(message.pop("message"))

    def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes."""
        try:
            self.socket.recv(seconds)
        except TimeoutError:
            return True
        return False


@dataclass
class WatchedPage:
    """What a test has in its hands."""

    page: PageServer
    pipeline: Pipeline
    sources: dict[str, FedSource]
    kept: KeepingSink
    fed: int = 0

    def feed(self, image: np.ndarray | None = None, source: str = "cam") -> ExplainedFrame:
        """A frame of a source; returns when the page has it."""
        image = picture(self.fed) if image is None else image
        self.fed += 1
        self.sources[source].feed(image)
        stop_at = time.monotonic() + PATIENCE_S
        while True:
            newest = self.page.newest(source)
            if newest is not None and newest.captured.image is image:
                return newest
            assert time.monotonic() < stop_at
            time.sleep(0.001)

    def client(self, **how: Any) -> httpx.Client:
        return httpx.Client(base_url=self.page.url, timeout=PATIENCE_S, trust_env=False, **how)

    @contextmanager
    def live(self, *, view: dict[str, object] | None = None, **how: Any) -> Iterator[Live]:
        """A client; with a view it has asked for that already."""
        url = self.page.url.replace("http", "ws", 1) + "api/live"
        with connect(url, max_size=None, proxy=None, open_timeout=PATIENCE_S, **how) as socket:
            client = Live(socket)
            if view is not None:
                client.view(**view)
            yield client


@contextmanager
def watched_page(
    names: Sequence[str] = ("cam",),
    *,
    settings: ExplainSettings = SETTINGS,
    session: gapcam.Session | None = None,
    reopen: Reopen = Reopen(),  # noqa: B008 - it is frozen
    **options: Any,
) -> Iterator[WatchedPage]:
    """A pipeline that runs, with its page on a free port of this machine.

    Args:
        names: of the cameras.
        settings: of the pipeline.
        session: instead of the small model's own.
        reopen: of what is lost.
        options: of the server.
    """
    options = {"address": "127.0.0.1:0", **options}
    small = session or gapcam.Session(fake_red_and_blue(a_contract((16, 16), LABELS)), name="small.onnx")
    with small:
        sources = {name: FedSource(name) for name in names}
        pipeline = Pipeline(small, list(sources.values()), settings=settings, batch=False, reopen=reopen)
        page, kept = PageServer(pipeline, ServerOptions(**options)), KeepingSink("kept")
        page.start()
        try:
            pipeline.add_sink(page)
            pipeline.add_sink(kept)
            with pipeline:
                yield WatchedPage(page, pipeline, sources, kept)
        finally:
            page.close()
