"""A source is read for as long as it lasts, opened again where it is lost, and never keeps anybody else waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import planned_camera
import pytest
from planned_camera import (
    FAST,
    PATIENCE_S,
    FedSource,
    KeepingSink,
    PlannedSource,
    check_sums,
    eventually,
    no_thread_left,
    picture,
    session_with,
)

from gapcam.camera import capture_thread
from gapcam.camera.backoff import Reopen
from gapcam.camera.capture_thread import BROKEN_ROW
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.status import SourceStatus
from gapcam.errors import DataError

LOST, BROKEN = SourceLostError("it was unplugged"), BrokenFrameError("half a frame")


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


class Clock:
    """That of sources and of who reads them. It stands still but for what the test lets pass: nothing is ever late."""

    AHEAD = 1.7e9
    """So far is the clock of the world."""

    def __init__(self) -> None:
        self.now = float(int(time.monotonic()))  # sums are exact

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.AHEAD


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(capture_thread, "time", clock)
    monkeypatch.setattr(planned_camera, "SourceFrame", lambda image, _: SourceFrame(image, clock.now))
    return clock


def run(source: PlannedSource, *, reopen: Reopen | None = None, live: bool = False) -> tuple[KeepingSink, SourceStatus]:
    """All of a source's frames, none dropped, and its status at the end."""
    source.live, sink = live, KeepingSink()
    pipeline = Pipeline(session_with(lambda _: None), [source], [sink], reopen=reopen or Reopen(**FAST))
    pipeline.run()
    check_sums(pipeline.status())
    return sink, pipeline.status().sources[0]


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= level and hasattr(record, "source")]


def test_a_lost_source_is_opened_again_and_its_frames_are_numbered_on(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    def later() -> object:
        clock.now += 0.4
        return picture()

    caplog.set_level(logging.INFO, "gapcam.camera")
    source = PlannedSource([picture(), picture(), LOST, later, LOST, later], "door")
    sink, status = run(source)
    assert sink.kept == [("door", number) for number in range(4)]
    assert source.calls == ["open", "close"] * 3
    assert (status.state, status.reopened, status.captured, status.broken) == ("ended", 2, 4, 0)
    said = lines(caplog)
    assert said[0] == "source door: running: 6 x 4 pixels"
    assert said[1] == "source door: lost: it was unplugged; it is opened again"
    assert said[2] == "source door: gives frames again after 0.4 s"
    assert said[3] == said[1]
    assert said[4] == said[2]
    assert said[5:] == ["source door: ended after 4 frames"]
    assert {record.source for record in caplog.records if hasattr(record, "source")} == {"door"}


def test_a_source_that_is_not_there_yet_is_tried_until_it_is(caplog: pytest.LogCaptureFixture) -> None:
    source = PlannedSource([picture()], opens=[LOST, LOST, LOST, None])
    _, status = run(source)
    assert source.calls == ["open", "close"] * 4
    assert (status.captured, status.reopened) == (1, 1)
    assert len(lines(caplog, logging.WARNING)) == 1  # one line for one change of state


def test_how_often_it_was_opened_again_counts_what_worked() -> None:
    source = PlannedSource([picture(), LOST, picture()], opens=[None, LOST, LOST, None])
    _, status = run(source)
    assert status.reopened == 1


def test_waits_grow_while_it_stays_lost() -> None:
    times: list[float] = []

    class Timed(PlannedSource):
        def open(self) -> None:
            times.append(time.monotonic())
            super().open()

    run(Timed([picture()], opens=[LOST] * 4), reopen=Reopen(first_s=0.02, greatest_s=0.1))
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 4
    assert all(wait >= 0.75 * least for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.1), strict=True))


def test_while_it_is_lost_the_status_says_why() -> None:
    source = PlannedSource([picture(), LOST, picture()])
    with Pipeline(session_with(lambda _: None), [source], reopen=Reopen(first_s=60, greatest_s=60)) as pipeline:
        eventually(lambda: pipeline.status().sources[0].state == "lost")
        assert pipeline.status().sources[0].problem == "it was unplugged"
        assert abs(pipeline.status().sources[0].since - time.time()) < PATIENCE_S
        started = time.monotonic()
    assert time.monotonic() - started < 30  # stopping does not wait until it would have been opened again
    assert (pipeline.status().sources[0].state, pipeline.status().sources[0].problem) == ("stopped", "")
    assert source.calls == ["open", "close", "close"]


def test_it_is_given_up_after_the_time_that_was_asked_for(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    def later() -> object:
        clock.now += 0.125
        return LOST

    source = PlannedSource([picture()] + [later] * 10_000)
    started = clock.now
    with pytest.raises(SourceLostError, match="unplugged"):
        run(source, reopen=Reopen(**FAST, give_up_s=1))
    assert clock.now - started == 1
    assert source.calls.count("open") == 8
    assert lines(caplog, logging.ERROR) == ["source camera: failed: it was unplugged"]


def test_it_is_given_up_in_time_however_long_the_waits_are(clock: Clock) -> None:
    def waited() -> object:
        clock.now += 1
        return LOST

    source, started = PlannedSource([picture(), LOST, waited]), time.monotonic()
    with pytest.raises(SourceLostError, match="unplugged"):
        run(source, reopen=Reopen(first_s=60, greatest_s=60, give_up_s=1))
    assert 1 <= time.monotonic() - started < 30
    assert source.calls.count("open") == 2  # it was tried once more at the end of the time


def test_giving_up_counts_from_the_last_frame(clock: Clock) -> None:
    def later() -> object:
        clock.now += 1
        return picture()

    source = PlannedSource([step for _ in range(6) for step in (later, LOST)])
    sink, status = run(source, reopen=Reopen(**FAST, give_up_s=1.5))
    assert len(sink.kept) == 6
    assert status.state == "ended"


def test_giving_up_at_once_is_possible() -> None:
    source = PlannedSource([picture(), LOST, picture()])
    with pytest.raises(SourceLostError):
        run(source, reopen=Reopen(give_up_s=0))
    assert source.calls == ["open", "close", "close"]


def test_what_can_never_work_is_not_tried_again() -> None:
    source = PlannedSource([picture()], opens=[DataError("there is no such file")])
    with pytest.raises(DataError, match="there is no such file"):
        run(source)
    assert source.calls == ["open", "close"]


def test_an_error_that_no_source_should_raise_makes_it_lost(caplog: pytest.LogCaptureFixture) -> None:
    sink, status = run(PlannedSource([picture(), RuntimeError("from\na library"), picture()]))
    assert len(sink.kept) == 2
    assert status.reopened == 1
    assert lines(caplog, logging.WARNING) == [
        "source camera: lost: RuntimeError: from a library; it is opened again",
    ]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_source_that_raises_what_ends_programs_has_failed_and_the_others_go_on(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = PlannedSource([picture(), error], "bad"), PlannedSource([picture()] * 5, "good")
    pipeline = Pipeline(session_with(lambda _: None), [bad, good], reopen=Reopen(**FAST))
    pipeline.run()
    status, other = pipeline.status().sources
    assert (status.state, status.problem) == ("failed", f"{type(error).__name__}: {error}".strip())
    assert (status.explained, other.explained, other.state) == (1, 5, "ended")
    assert bad.calls == ["open", "close"]
    assert lines(caplog, logging.ERROR) == [f"source bad: failed: {status.problem}"]
    with pytest.raises(SourceLostError):
        Pipeline(session_with(lambda _: None), [PlannedSource([error])]).run()


def test_broken_frames_are_counted_and_logged_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    source = PlannedSource([picture(), *[BROKEN] * 30, picture(), BROKEN, picture()])
    sink, status = run(source, live=True)
    assert len(sink.kept) + status.dropped == 3
    assert (status.captured, status.broken, status.reopened) == (3, 31, 0)
    assert lines(caplog, logging.WARNING) == ["source camera: broken frame: half a frame"]


@pytest.mark.parametrize(("live", "reopened"), [(True, 1), (False, 0)])
def test_a_long_row_of_broken_frames_is_a_lost_camera_but_only_a_damaged_file(live: bool, reopened: int) -> None:
    nearly = [BROKEN] * (BROKEN_ROW - 1)
    source = PlannedSource([*nearly, picture(), *nearly, picture(), *nearly, BROKEN, picture()])
    _, status = run(source, live=live)
    assert (status.captured, status.broken, status.reopened) == (3, 3 * BROKEN_ROW - 2, reopened)


def test_the_moment_of_a_frame_is_that_of_its_capture_by_the_clock_of_the_world_too(clock: Clock) -> None:
    class Late(PlannedSource):
        def read(self) -> SourceFrame | None:
            frame = super().read()
            return frame and SourceFrame(frame.image, frame.taken_at - 100)

    sink, status = run(Late([picture()]))
    captured = sink.frames[0].captured
    assert captured.taken_at == clock.now - 100
    assert captured.time - captured.taken_at == pytest.approx(clock.AHEAD, abs=1e-3)
    assert status.age is not None
    assert status.age.p50_ms > 100_000


def test_another_resolution_is_just_another_frame(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    sink, status = run(PlannedSource([picture(), picture(), picture(size=(8, 10)), picture(size=(8, 10))]))
    assert [frame.captured.image.shape for frame in sink.frames] == [(4, 6, 3), (4, 6, 3), (8, 10, 3), (8, 10, 3)]
    assert (status.width, status.height) == (10, 8)
    assert [line for line in lines(caplog) if "pixels now" in line] == [
        "source camera: frames are 10 x 8 pixels now; they were 6 x 4"
    ]


class HangingSource(PlannedSource):
    """Its reads do not return in spite of everything, until the test lets them."""

    def __init__(self, *before: object, live: bool = True) -> None:
        self.hangs, self.let_go = threading.Event(), threading.Event()
        super().__init__([*before, self._hang, picture()], live=live)

    def _hang(self) -> object:
        self.hangs.set()
        assert self.let_go.wait(PATIENCE_S)
        return picture()


def test_a_source_that_hangs_is_shown_as_stalled_until_it_comes_back(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    source, other, sink = HangingSource(picture()), FedSource("other"), KeepingSink()
    reopen = Reopen(stall_s=0.2)
    with Pipeline(session_with(lambda _: None), [source, other], [sink], reopen=reopen, batch=False) as pipeline:
        assert source.hangs.wait(PATIENCE_S)
        eventually(lambda: sink.kept)
        assert pipeline.status().sources[0].state == "running"
        clock.now += 0.3
        status = pipeline.status().sources[0]
        assert (status.state, status.problem) == ("stalled", "no frame and no error for 0.3 s")
        assert clock.time() - status.since == pytest.approx(0.3, abs=1e-3)
        other.feed(picture())
        eventually(lambda: ("other", 0) in sink.kept)  # nobody else waits
        eventually(lambda: any("stalled: no frame and no error for 0.2 s" in line for line in lines(caplog)))
        source.let_go.set()
        eventually(lambda: pipeline.status().sources[0].state == "ended")
        eventually(lambda: any("no longer stalled after" in line for line in lines(caplog)))
    assert sum("source camera: stalled: no frame" in line for line in lines(caplog)) == 1


def test_stopping_does_not_wait_for_a_source_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    source, sink = HangingSource(picture()), KeepingSink()
    with Pipeline(session_with(lambda _: None), [source], [sink]) as pipeline:
        eventually(lambda: pipeline.status().sources[0].explained == len(sink.kept) == 1)
        started = time.monotonic()
        pipeline.stop(timeout_s=0.1)
        assert time.monotonic() - started < 15
        assert sink.calls == ["open", "close"]
        assert pipeline.wait(0)
        status = pipeline.status().sources[0]
        assert (status.state, status.problem) == ("stopped", "it did not end in time")
        assert "thread 'gapcam capture camera' hangs and is left to itself" in caplog.text
        assert not pipeline.status().running
    source.let_go.set()
    eventually(lambda: source.calls == ["open", "close"])
    status = pipeline.status().sources[0]
    assert (status.captured, status.explained, status.dropped, status.waiting) == (2, 1, 1, 0)
    eventually(lambda: not any("gapcam" in thread.name for thread in threading.enumerate()))


def test_who_is_not_live_and_slow_is_not_stalled() -> None:
    source = HangingSource(live=False)
    with Pipeline(session_with(lambda _: None), [source], reopen=Reopen(stall_s=0.01)) as pipeline:
        time.sleep(0.1)
        assert pipeline.status().sources[0].state == "opening"
        source.let_go.set()


def test_a_source_that_raises_when_it_is_interrupted_or_closed_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(FedSource):
        def interrupt(self) -> None:
            super().interrupt()
            raise RuntimeError("not now")

        def close(self) -> None:
            super().close()
            raise OSError("again")

    first, second = Clumsy("first"), FedSource("second")
    with Pipeline(session_with(lambda _: None), [first, second], batch=False) as pipeline:
        eventually(lambda: first.calls == second.calls == ["open"])
    assert second.interrupted.is_set()
    assert [s.state for s in pipeline.status().sources] == ["stopped", "stopped"]
    assert "interrupting the source failed" in caplog.text
    assert "closing the source failed" in caplog.text


def test_a_source_that_ends_with_an_error_because_it_is_stopped_has_not_failed() -> None:
    class Loud(FedSource):
        def interrupt(self) -> None:
            self.interrupted.set()
            self.feed(DataError("interrupted"))

    with Pipeline(session_with(lambda _: None), [Loud()]) as pipeline:
        eventually(lambda: pipeline.status().running)
    assert pipeline.status().sources[0].state == "stopped"


def test_the_rate_of_frames_is_shown() -> None:
    camera = FedSource()
    with Pipeline(session_with(lambda _: None), [camera]) as pipeline:
        for number in range(10):
            camera.feed(picture(number))
            eventually(lambda: pipeline.status().sources[0].captured == number + 1)  # noqa: B023
            time.sleep(0.02)
        assert 1 < pipeline.status().sources[0].fps < 51
