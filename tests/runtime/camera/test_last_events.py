"""A class that is there when its source ends or goes away leaves: the last frame comes once more and says so."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from planned_camera import (
    FedSource,
    KeepingSink,
    PlannedSource,
    check_sums,
    eventually,
    no_thread_left,
    picture,
    session_with,
)

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.pipeline import Pipeline

ALWAYS_THERE = EventRule("red", enter=0.01, leave=0.005, enter_s=0)
BRIEF = ExplainSettings(rules=(ALWAYS_THERE,), gap_s=0.3)
LONG = ExplainSettings(rules=(ALWAYS_THERE,), gap_s=1000)
"""No pause of a busy machine is a gap."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


def told(sink: KeepingSink) -> list[tuple[int, list[str]]]:
    return [(frame.captured.number, [event.kind for event in frame.events]) for frame in sink.frames]


def again(sink: KeepingSink) -> list[bool]:
    return [frame.again for frame in sink.frames]


def test_what_was_there_leaves_when_its_source_ends() -> None:
    sink = KeepingSink()
    pipeline = Pipeline(
        session_with(lambda _: None), [PlannedSource([picture()] * 3, "door")], [sink], settings=LONG, batch=False
    )
    pipeline.run()
    assert told(sink) == [(0, ["enters"]), (1, []), (2, []), (2, ["leaves"])]
    assert again(sink) == [False, False, False, True]
    (event,) = sink.frames[-1].events
    assert (event.source, event.number, event.label) == ("door", 2, "red")
    assert event.time == sink.frames[2].captured.time
    status = pipeline.status()
    check_sums(status)
    assert (status.sources[0].explained, status.sinks[0].written) == (3, 4)
    assert status.sinks[0].age is not None
    assert status.sinks[0].age.count == 3  # what comes once more has no age


def test_what_was_there_leaves_when_its_camera_is_silent_and_enters_when_it_is_back() -> None:
    camera, other, sink = FedSource("camera"), FedSource("other"), KeepingSink(capacity=20)
    with Pipeline(session_with(lambda _: None), [camera, other], [sink], settings=BRIEF, batch=False) as pipeline:
        camera.feed(picture())
        eventually(lambda: len(sink.frames) == 2)
        assert told(sink) == [(0, ["enters"]), (0, ["leaves"])]
        time.sleep(0.7)  # it is said once
        assert len(sink.frames) == 2
        camera.feed(picture())
        eventually(lambda: len(sink.frames) >= 3)
        assert told(sink)[2] == (1, ["enters"])
        eventually(lambda: pipeline.status().sources[0].explained == 2)


def test_what_was_there_leaves_with_the_last_frame_before_a_file_begins_anew() -> None:
    class Loop(PlannedSource):
        def read(self) -> SourceFrame | None:
            frame = super().read()
            return frame and SourceFrame(frame.image, frame.taken_at, position_s=(self.given - 1) % 2 * 0.1)

    sink = KeepingSink()
    pipeline = Pipeline(session_with(lambda _: None), [Loop([picture()] * 4)], [sink], settings=BRIEF)
    pipeline.run()
    assert told(sink) == [(0, ["enters"]), (1, []), (1, ["leaves"]), (2, ["enters"]), (3, []), (3, ["leaves"])]
    assert again(sink) == [False, False, True, False, False, True]
    assert all(event.number == frame.captured.number for frame in sink.frames for event in frame.events)
    check_sums(pipeline.status())
    assert pipeline.status().sources[0].explained == 4


def test_where_there_are_no_events_no_frame_comes_twice() -> None:
    sink = KeepingSink()
    Pipeline(
        session_with(lambda _: None), [PlannedSource([picture()] * 3)], [sink], settings=ExplainSettings(gap_s=0.01)
    ).run()
    assert [frame.captured.number for frame in sink.frames] == [0, 1, 2]


def test_a_file_that_is_read_slowly_is_not_away() -> None:
    class File(PlannedSource):
        def read(self) -> SourceFrame | None:
            if self.given:
                time.sleep(0.8)
            frame = super().read()
            return frame and SourceFrame(frame.image, frame.taken_at, position_s=self.given * 0.1)

    sink = KeepingSink()
    Pipeline(session_with(lambda _: None), [File([picture()] * 3)], [sink], settings=BRIEF).run()
    assert told(sink) == [(0, ["enters"]), (1, []), (2, []), (2, ["leaves"])]
