"""What a source says of its failures is shown without its credentials, whoever wrote the source."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from planned_camera import FAST, FedSource, PlannedSource, eventually, no_thread_left, picture, session_with

from gapcam.camera.backoff import Reopen
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.pipeline import Pipeline
from gapcam.errors import DataError

URI = "rtsp://admin:geheim@cam/live"
SAYS = f"{URI}: geheim was refused"


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


def own(source: PlannedSource) -> PlannedSource:
    """As somebody may write it, who forgets that `uri` has no credentials."""
    source.uri = URI
    return source


def test_what_loses_a_source_is_masked_in_log_and_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gapcam.camera")
    plan = [picture(), BrokenFrameError(SAYS), RuntimeError(SAYS), SourceLostError(SAYS), DataError(SAYS)]
    source = own(PlannedSource(plan, "door"))
    pipeline = Pipeline(session_with(lambda _: None), [source], reopen=Reopen(**FAST))
    with pytest.raises(DataError):
        pipeline.run()
    status = pipeline.status().sources[0]
    assert status.uri == "rtsp://***@cam/live"
    assert status.problem == "rtsp://***@cam/live: *** was refused"
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [
        "source door: broken frame: rtsp://***@cam/live: *** was refused",
        "source door: lost: RuntimeError: rtsp://***@cam/live: *** was refused; it is opened again",
        "source door: failed: rtsp://***@cam/live: *** was refused",
    ]
    assert "geheim" not in caplog.text


def test_other_uris_in_an_error_are_masked_too(caplog: pytest.LogCaptureFixture) -> None:
    source = PlannedSource([SourceLostError(f"tried {URI}"), picture()], "door")
    with Pipeline(session_with(lambda _: None), [source], reopen=Reopen(first_s=60, greatest_s=60)) as pipeline:
        eventually(lambda: pipeline.status().sources[0].state == "lost")
        assert pipeline.status().sources[0].problem == "tried rtsp://***@cam/live"
    assert "geheim" not in caplog.text


def test_a_failure_of_interrupt_and_close_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(FedSource):
        def interrupt(self) -> None:
            super().interrupt()
            raise RuntimeError(SAYS)

        def close(self) -> None:
            super().close()
            raise OSError(SAYS)

    source = own(Clumsy("door"))
    with Pipeline(session_with(lambda _: None), [source]):
        eventually(lambda: source.calls == ["open"])
    said = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert said == [
        "source door: interrupting the source failed: RuntimeError: rtsp://***@cam/live: *** was refused",
        "source door: closing the source failed: OSError: rtsp://***@cam/live: *** was refused",
    ]
    assert "geheim" not in caplog.text


def test_a_path_that_looks_like_credentials_is_shown_whole() -> None:
    source = PlannedSource([DataError("/films/a:b@c.mp4 is empty")], "film")
    source.uri = "/films/a:b@c.mp4"
    pipeline = Pipeline(session_with(lambda _: None), [source])
    with pytest.raises(DataError):
        pipeline.run()
    assert pipeline.status().sources[0].problem == "/films/a:b@c.mp4 is empty"
