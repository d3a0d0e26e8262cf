"""A source of the user's own that gives what is no frame ends with a clear error."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planned_camera import FAST, PATIENCE_S, KeepingSink, PlannedSource, no_thread_left, picture
from small_models import red_and_blue

import gapcam
from gapcam.camera.backoff import Reopen
from gapcam.camera.capture_thread import BEFORE_S, BROKEN_ROW
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError
from gapcam.camera.pipeline import Pipeline
from gapcam.errors import FrameError, UsageError


@pytest.fixture
def session(tmp_path: Path) -> Iterator[gapcam.Session]:
    with gapcam.load(red_and_blue(tmp_path / "model.onnx"), threads=1) as session:
        yield session


class BareSource(PlannedSource):
    """Gives arrays, as cv2.VideoCapture does, where a `SourceFrame` is expected."""

    def read(self) -> SourceFrame | None:
        frame = super().read()
        return None if frame is None else frame.image  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (PlannedSource, [1, 2], "got list"),
        (PlannedSource, np.zeros(48, np.uint8), "shape (48,)"),
        (BareSource, picture(), "gave ndarray; expected a SourceFrame"),
    ],
)
def test_what_is_no_frame_fails_the_source_for_good(
    session: gapcam.Session, kind: type[PlannedSource], given: object, says: str
) -> None:
    source = kind([given], live=True)
    other = PlannedSource([picture(number) for number in range(5)], "other", paced=False)
    with no_thread_left():
        pipeline = Pipeline(session, [source, other], [KeepingSink("sink", capacity=10)])
        pipeline.run(PATIENCE_S)
    failed, fine = pipeline.status().sources
    assert (failed.state, failed.captured, failed.reopened, fine.state) == ("failed", 0, 0, "ended")
    assert says in failed.problem
    assert source.calls == ["open", "close"]
    with no_thread_left(), pytest.raises((FrameError, UsageError), match=re.escape(says)):
        Pipeline(session, [kind([given], live=True)]).run(PATIENCE_S)


class TimedSource(PlannedSource):
    """A plan's item is what its frame has instead of the right times."""

    def read(self) -> SourceFrame | None:
        frame = super().read()
        return None if frame is None else replace(frame, **{"image": picture(), **frame.image})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ({"taken_at": time.time()}, "give time.monotonic() of the capture, not time.time()"),
        ({"taken_at": time.monotonic() - BEFORE_S - 1}, "give time.monotonic() of the capture"),
        ({"taken_at": math.nan}, "a taken_at of nan, and"),
        ({"taken_at": None}, "a taken_at of None, and"),
        ({"position_s": math.inf}, "a position_s of inf; give seconds"),
        ({"position_s": "0:05"}, "a position_s of '0:05'; give seconds"),
    ],
)
def test_times_of_another_clock_fail_the_source_for_good(
    session: gapcam.Session, times: dict[str, object], says: str
) -> None:
    source, sink = TimedSource([BrokenFrameError("half a frame"), times, {}]), KeepingSink("sink")
    pipeline = Pipeline(session, [source], [sink])
    with no_thread_left(), pytest.raises(UsageError, match=re.escape(says)):
        pipeline.run(PATIENCE_S)
    assert (sink.kept, source.calls) == ([], ["open", "close"])


@pytest.mark.parametrize("odd", [{"taken_at": time.time()}, {"taken_at": math.nan}, {"position_s": math.nan}])
def test_an_odd_time_in_mid_run_is_a_broken_frame(
    session: gapcam.Session, odd: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    source, sink = TimedSource([{}, odd, {}]), KeepingSink("sink")
    pipeline = Pipeline(session, [source], [sink])
    with no_thread_left():
        pipeline.run(PATIENCE_S)
    status = pipeline.status().sources[0]
    assert (status.state, status.captured, status.broken) == ("ended", 2, 1)
    assert sink.kept == [("camera", 0), ("camera", 1)]
    assert "broken frame: the source's SourceFrame has a " in caplog.text


def test_a_clock_that_goes_wrong_later_is_opened_again_until_it_is_right(session: gapcam.Session) -> None:
    wrong = {"taken_at": time.time()}
    source = TimedSource([{}, *[wrong] * BROKEN_ROW, wrong, {}], live=True)
    pipeline = Pipeline(session, [source], reopen=Reopen(**FAST))
    with no_thread_left():
        pipeline.run(PATIENCE_S)
    status = pipeline.status().sources[0]
    assert (status.captured, status.broken, status.reopened) == (2, BROKEN_ROW + 1, 1)


def test_a_frame_from_just_ahead_is_of_now_and_no_age_is_negative(session: gapcam.Session) -> None:
    sink, ahead = KeepingSink("sink"), lambda: {"taken_at": time.monotonic() + 0.9}
    pipeline = Pipeline(session, [TimedSource([ahead, ahead])], [sink])
    pipeline.run(PATIENCE_S)
    for frame in sink.frames:
        assert frame.captured.taken_at <= frame.explained_at
        assert frame.timings_ms["wait"] >= 0
    ages = pipeline.status().sources[0].age
    assert ages is not None
    assert ages.p50_ms >= 0


def test_times_may_be_rounded_and_wait_in_buffers_and_are_plain_numbers(session: gapcam.Session) -> None:
    sink, now = KeepingSink("sink"), time.monotonic()
    given = [
        {"taken_at": now - 30, "position_s": -0.5},
        {"taken_at": np.float32(now // 256 * 256), "position_s": np.float32(0.5)},
        {"taken_at": math.ceil(time.monotonic())},
    ]
    Pipeline(session, [TimedSource(given)], [sink]).run(PATIENCE_S)
    captured = [frame.captured for frame in sink.frames]
    assert [each.position_s for each in captured] == [-0.5, 0.5, None]
    assert all(type(each.taken_at) is type(each.time) is float for each in captured)
