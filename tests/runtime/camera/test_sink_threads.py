"""A sink that fails is opened again, one that ended or hangs is closed; the camera and the other sinks go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Literal

import pytest
from planned_camera import (
    FAST,
    PATIENCE_S,
    FedSource,
    Gate,
    KeepingSink,
    PlannedSource,
    check_sums,
    eventually,
    no_thread_left,
    picture,
    session_with,
)

from gapcam.camera import log_pace
from gapcam.camera.backoff import Reopen
from gapcam.camera.errors import SinkEndedError
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.sink_thread import SinkThread
from gapcam.camera.status import SinkStatus
from gapcam.errors import DataError


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


def run(sink: KeepingSink, count: int = 10) -> SinkStatus:
    """The sink's status after so many frames, of which none may be dropped, while another sink gets them all."""
    other = KeepingSink("other")
    source = PlannedSource([picture(number) for number in range(count)])
    pipeline = Pipeline(session_with(lambda _: None), [source], [sink, other], reopen=Reopen(**FAST))
    pipeline.run()
    check_sums(pipeline.status())
    assert len(other.kept) == count
    return pipeline.status().sinks[0]


def raising(at: dict[int, Exception]) -> object:
    """Raise these errors, each once, at the frames of these numbers."""

    def before(frame: ExplainedFrame) -> None:
        error = at.pop(frame.captured.number, None)
        if error is not None:
            raise error

    return before


def said(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= level and hasattr(record, "sink")]


@pytest.mark.parametrize("error", [DataError("no"), OSError("no"), RuntimeError("no")], ids=["ours", "os", "any"])
def test_a_sink_that_fails_is_closed_and_opened_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    sink = KeepingSink(before=raising({3: error, 7: error}))  # type: ignore[arg-type]
    status = run(sink)
    assert [number for _, number in sink.kept] == [0, 1, 2, 4, 5, 6, 8, 9]
    assert sink.calls == ["open", "close"] * 3
    assert (status.received, status.written, status.failed, status.dropped) == (10, 8, 2, 0)
    assert (status.restarts, status.state, status.problem) == (2, "stopped", "")
    text = "no" if isinstance(error, DataError) else f"{type(error).__name__}: no"
    assert said(caplog) == [f"sink sink: failed: {text}; it is opened again", "sink sink: restarted"] * 2


def test_a_frame_at_which_it_failed_is_counted_at_once() -> None:
    camera, sink = FedSource(), KeepingSink(before=raising({0: OSError("no")}))  # type: ignore[arg-type]
    with Pipeline(session_with(lambda _: None), [camera], [sink], reopen=Reopen(**FAST)) as pipeline:
        camera.feed(picture())
        eventually(lambda: pipeline.status().sinks[0].state == "restarting" or pipeline.status().sinks[0].restarts)
        status = pipeline.status().sinks[0]
        assert (status.failed, status.waiting) == (1, 0)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_sink_that_raises_what_ends_programs_has_ended(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    sink = KeepingSink(before=raising({2: error}), capacity=1)  # type: ignore[dict-item,arg-type]
    status = run(sink)
    text = f"{type(error).__name__}: {error}".strip()
    assert (status.state, status.problem) == ("ended", text)
    assert (status.written, status.failed, status.dropped) == (2, 1, 7)
    assert sink.calls == ["open", "close"]
    assert said(caplog, logging.ERROR) == [f"sink sink: ended: {text}"]


def test_what_a_sink_could_not_deliver_is_told_on() -> None:
    class Sending(KeepingSink):
        undelivered = 0

        def write(self, frame: ExplainedFrame) -> None:
            super().write(frame)
            self.undelivered += frame.captured.number % 2

    assert run(KeepingSink()).undelivered == 0
    status = run(Sending())
    assert (status.written, status.undelivered) == (10, 5)


def test_a_sink_that_cannot_be_opened_yet_is_tried_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    sink = KeepingSink(opens=[OSError("not yet")] * 4, capacity=1)  # so that the camera waits for it
    status = run(sink, 100)
    assert len(sink.kept) == 100
    assert status.restarts == 1
    assert len(said(caplog, logging.WARNING)) == 1


def test_while_it_is_closed_the_camera_goes_on_and_the_newest_frames_wait_for_it() -> None:
    camera, other = FedSource(), KeepingSink("other")
    reopen = threading.Event()

    class Broken(KeepingSink):
        def open(self) -> None:
            super().open()
            assert reopen.wait(PATIENCE_S)

    sink = Broken(capacity=2, opens=[OSError("not yet")])
    with Pipeline(session_with(lambda _: None), [camera], [sink, other], reopen=Reopen(**FAST)) as pipeline:
        eventually(lambda: pipeline.status().sinks[0].state == "restarting")
        assert pipeline.status().sinks[0].problem == "OSError: not yet"
        for number in range(6):
            camera.feed(picture(number))
            eventually(lambda: len(other.kept) == number + 1)  # noqa: B023
        status = pipeline.status().sinks[0]
        assert (status.received, status.dropped, status.waiting) == (6, 4, 2)
        reopen.set()
        eventually(lambda: [number for _, number in sink.kept] == [4, 5])
        assert pipeline.status().sinks[0].state == "running"


@pytest.mark.parametrize("at_open", [True, False])
def test_a_sink_that_ended_is_closed_and_not_opened_again(at_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    error = SinkEndedError("the disk is full")
    sink = KeepingSink(opens=[error], capacity=1) if at_open else KeepingSink(before=raising({2: error}), capacity=1)  # type: ignore[arg-type]
    status = run(sink)
    assert sink.calls == ["open", "close"]
    written, failed = (0, 0) if at_open else (2, 1)
    assert (status.received, status.written, status.failed) == (10, written, failed)
    assert status.dropped == 10 - written - failed  # it keeps nobody waiting
    assert (status.state, status.problem) == ("ended", "the disk is full")
    assert said(caplog, logging.WARNING) == ["sink sink: ended: the disk is full"]


def test_a_sink_that_fails_for_ever_does_not_keep_a_file_from_ending() -> None:
    camera = PlannedSource([picture()] * 3, paced=True)
    sink = KeepingSink(opens=[OSError("gone")] * 10_000)
    started = time.monotonic()
    pipeline = Pipeline(session_with(lambda _: None), [camera], [sink], reopen=Reopen(first_s=60, greatest_s=60))
    pipeline.run()
    assert time.monotonic() - started < 10
    status = pipeline.status().sinks[0]
    assert (status.written, status.waiting, status.state) == (0, 0, "stopped")
    assert status.problem == "OSError: gone"
    assert status.received == status.dropped
    assert sink.calls in (["open", "close", "open", "close", "close"], ["open", "close", "close"])


def test_a_sink_that_is_closed_at_the_end_is_tried_once_more_for_what_waits() -> None:
    camera = FedSource()
    sink = KeepingSink(opens=[OSError("not yet")])
    pipeline = Pipeline(session_with(lambda _: None), [camera], [sink], reopen=Reopen(first_s=60, greatest_s=60))
    with pipeline:
        eventually(lambda: pipeline.status().sinks[0].state == "restarting")
        camera.feed(picture(), picture())
        eventually(lambda: pipeline.status().sinks[0].received >= 1)
    assert len(sink.kept) == pipeline.status().sinks[0].received
    assert sink.calls == ["open", "close", "open", "close"]


def test_a_sink_that_is_closed_at_the_end_is_left_closed_where_nothing_waits() -> None:
    sink = KeepingSink(opens=[OSError("not yet")])
    reopen = Reopen(first_s=60, greatest_s=60)
    with Pipeline(session_with(lambda _: None), [FedSource()], [sink], reopen=reopen) as pipeline:
        eventually(lambda: pipeline.status().sinks[0].state == "restarting")
    assert sink.calls == ["open", "close", "close"]


def test_what_waits_is_written_when_the_pipeline_stops_however_slow_the_sink_is() -> None:
    camera, stuck = FedSource(), Gate()
    sink = KeepingSink(capacity=3, before=stuck)
    with Pipeline(session_with(lambda _: None), [camera], [sink]) as pipeline:
        for number in range(4):
            camera.feed(picture(number))
            eventually(lambda: pipeline.status().sinks[0].received == number + 1)  # noqa: B023
        stuck.wait_for(1)
        stopper = threading.Thread(target=pipeline.stop)
        stopper.start()
        stuck.let(3)
        stuck.wait_for(4)
        assert stopper.is_alive()
        assert "close" not in sink.calls
        stuck.open()
        stopper.join(PATIENCE_S)
    assert [number for _, number in sink.kept] == [0, 1, 2, 3]


def test_a_sink_that_hangs_is_closed_from_outside_and_named(caplog: pytest.LogCaptureFixture) -> None:
    let_go, camera, other = threading.Event(), FedSource(), KeepingSink("other")
    sink = KeepingSink("hanging", capacity=2, before=lambda _: let_go.wait(PATIENCE_S))
    with Pipeline(session_with(lambda _: None), [camera], [sink, other]) as pipeline:
        for number in range(4):
            camera.feed(picture(number))
            eventually(lambda: len(other.kept) == number + 1)  # noqa: B023
        started = time.monotonic()
        pipeline.stop(timeout_s=0.1)
        assert time.monotonic() - started < 5
        assert sink.calls == ["open", "close"]
        assert other.calls == ["open", "close"]
        status = pipeline.status().sinks[0]
        assert (status.received, status.written, status.failed, status.waiting) == (4, 0, 1, 0)
        assert (status.state, status.problem) == ("stopped", "it did not finish in time")
        assert "sink hanging: did not finish in time; it is closed as it is" in caplog.text
        assert "thread 'gapcam sink hanging' hangs and is left to itself" in caplog.text
    let_go.set()
    eventually(lambda: sink.calls == ["open", "close", "close"])
    check_sums(pipeline.status())
    assert pipeline.status().sinks[0].failed == 1
    eventually(lambda: not any("gapcam" in thread.name for thread in threading.enumerate()))


def test_closing_from_outside_is_waited_for_as_long_as_it_takes_but_not_for_ever() -> None:
    let_go, closing = threading.Event(), threading.Event()

    class Slow(KeepingSink):
        def close(self) -> None:
            time.sleep(0.2)
            super().close()

    class Stuck(KeepingSink):
        def close(self) -> None:
            super().close()
            closing.wait(PATIENCE_S)

    sinks = [kind(name, before=lambda _: let_go.wait(PATIENCE_S)) for kind, name in ((Slow, "slow"), (Stuck, "stuck"))]
    camera = FedSource()
    with Pipeline(session_with(lambda _: None), [camera], sinks) as pipeline:
        camera.feed(picture())
        eventually(lambda: all(sink.received == 1 for sink in pipeline.status().sinks))
        started = time.monotonic()
        pipeline.stop(timeout_s=0.1)
        assert time.monotonic() - started < 10
        eventually(lambda: [sink.calls for sink in sinks] == [["open", "close"]] * 2)
    for sink, waited_s in zip(sinks, (PATIENCE_S, 0.1), strict=True):
        alone = SinkThread(sink, blocking=False, reopen=Reopen(), stop=lambda: None, ended=lambda: None)
        started = time.monotonic()
        alone.abandon(waited_s)
        assert time.monotonic() - started < 10
        assert sink.calls == ["open", "close", "close"]
    let_go.set()
    closing.set()
    eventually(lambda: not any("gapcam" in thread.name for thread in threading.enumerate()))


def test_a_sink_that_is_slow_but_alive_is_not_closed_during_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gapcam.camera.pipeline.CLOSING_S", PATIENCE_S)
    stuck, camera = Gate(), FedSource()
    sink = KeepingSink(capacity=2, before=stuck)
    with Pipeline(session_with(lambda _: None), [camera], [sink]) as pipeline:
        for number in range(3):
            camera.feed(picture(number))
            eventually(lambda: pipeline.status().sinks[0].received == number + 1)  # noqa: B023
        stuck.wait_for(1)
        stopper = threading.Thread(target=lambda: pipeline.stop(timeout_s=0.05))
        stopper.start()
        eventually(lambda: pipeline.status().sinks[0].dropped == 2)  # the time is over: no more frames
        assert sink.calls == ["open"]
        stuck.open()
        stopper.join(PATIENCE_S)
    assert sink.calls == ["open", "close"]
    assert len(sink.kept) == 1
    check_sums(pipeline.status())


def test_a_sink_that_hangs_where_nothing_may_be_dropped_does_not_hang_the_stop() -> None:
    let_go = threading.Event()
    sink = KeepingSink(capacity=1, before=lambda _: let_go.wait(PATIENCE_S))
    source = PlannedSource([picture()] * 50)
    with Pipeline(session_with(lambda _: None), [source], [sink], policy="all") as pipeline:
        eventually(lambda: source.given == 5)
        pipeline.stop(timeout_s=0.1)
        check_sums(pipeline.status())
        # A thread that is about to put a frame finds out in its own time.
        eventually(lambda: all(one.waiting == 0 for one in (*pipeline.status().sources, *pipeline.status().sinks)))
        check_sums(pipeline.status())
    let_go.set()
    eventually(lambda: not any("gapcam" in thread.name for thread in threading.enumerate()))


@pytest.mark.parametrize("policy", ["all", "newest"])
def test_a_sink_for_which_everything_waits_is_named_again_and_again(
    policy: Literal["all", "newest"], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_pace, "EVERY_S", 0)
    caplog.set_level(logging.INFO, "gapcam.camera")
    sink = KeepingSink(opens=[OSError("gone")] * 10_000)
    source = FedSource(live=False)
    with Pipeline(session_with(lambda _: None), [source], [sink], policy=policy, reopen=Reopen(**FAST)):
        eventually(lambda: sink.calls.count("open") > 4)
    first, *further = said(caplog)
    assert first == "sink sink: failed: OSError: gone; it is opened again"
    waits = "sink sink: still fails, and everything waits for it: OSError: gone"
    at_the_end = "sink sink: failed at the end: OSError: gone"
    assert [line for line in further if line != at_the_end][:3] == ([waits] * 3 if policy == "all" else [])


def test_a_sink_that_cannot_be_closed_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Sticky(KeepingSink):
        def close(self) -> None:
            super().close()
            raise OSError("no space left")

    status = run(Sticky())
    assert (status.state, status.written) == ("stopped", 10)
    assert "sink sink: closing it failed: OSError: no space left" in caplog.text


def test_there_may_be_no_sink_at_all() -> None:
    pipeline = Pipeline(session_with(lambda _: None), [PlannedSource([picture()] * 5)])
    pipeline.run()
    assert pipeline.status().sources[0].explained == 5
    assert pipeline.status().sinks == ()
