"""A sink that is too slow for every frame gets every event all the same, once and in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from camera_frames import FrameMaker, noise
from hypothesis import given
from hypothesis import strategies as st
from planned_camera import FedSource, Gate, KeepingSink, check_sums, eventually, no_thread_left, picture, session_with

from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.kept_events import GREATEST_EVENTS, KeptEvents
from gapcam.camera.mailbox import Mailbox
from gapcam.camera.pipeline import Pipeline

EACH_FRAME = ExplainSettings(
    smoothing_s=0, rules=(EventRule("red", enter=0.8, leave=0.8, enter_s=0, leave_s=0),), gap_s=1000
)
"""With `red` and `blue` in turn, something happens on each frame."""

SHARED = FrameMaker()
"""One for all of a property's examples."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


def labels(frame: ExplainedFrame) -> list[str]:
    return [event.label for event in frame.events]


def mailbox(capacity: int) -> Mailbox[ExplainedFrame]:
    return Mailbox(capacity, drop=KeptEvents("sink a").drop_one)


def taken(box: Mailbox[ExplainedFrame], at_most: int = 1000) -> list[tuple[str, int, list[str]]]:
    found = []
    while len(found) < at_most and (frame := box.take_now()) is not None:
        box.finish("done")
        found.append((frame.captured.source, frame.captured.number, labels(frame)))
    return found


def test_a_slow_sink_gets_every_event_once_and_in_order_with_fewer_frames() -> None:
    gate, other = Gate(), KeepingSink("other")
    camera, slow = FedSource(), KeepingSink("slow", capacity=1, before=gate)
    session = session_with(lambda _: None)
    red, blue = picture(), picture()
    red[..., 2] = blue[..., 0] = 255
    with Pipeline(session, [camera], [slow, other], settings=EACH_FRAME) as pipeline:
        for number in range(20):
            camera.feed((blue if number % 2 else red).copy())
            eventually(lambda: len(other.frames) == number + 1)  # noqa: B023
            if number == 0:
                gate.wait_for(1)
        gate.open()
    told = [event for frame in other.frames for event in frame.events]
    assert [event.kind for event in told] == ["enters", "leaves"] * 10
    assert [event.number for event in told] == list(range(20))
    assert [frame.captured.number for frame in slow.frames] == [0, 19]
    assert [event for frame in slow.frames for event in frame.events] == told
    check_sums(pipeline.status())
    assert pipeline.status().sinks[0].dropped == 18


def test_the_next_frame_of_the_same_source_gets_them(frames: FrameMaker) -> None:
    box = mailbox(2)
    box.put(frames(number=0, source="a", events=("a0",)))
    box.put(frames(number=1, source="b"))
    box.put(frames(number=2, source="a", events=("a2",)))
    assert taken(box) == [("b", 1, []), ("a", 2, ["a0", "a2"])]
    assert (box.counts().received, box.counts().dropped) == (3, 1)


def test_where_none_of_its_source_waits_another_one_goes(frames: FrameMaker) -> None:
    box = mailbox(2)
    box.put(frames(number=0, source="a", events=("a0",)))
    box.put(frames(number=1, source="b"))
    box.put(frames(number=2, source="b"))
    assert taken(box) == [("a", 0, ["a0"]), ("b", 2, [])]


def test_of_each_source_one_frame_with_events_waits_whatever_the_capacity(frames: FrameMaker) -> None:
    box = mailbox(1)
    for number in range(9):
        box.put(frames(number=number, source="abc"[number % 3], events=(str(number),)))
    assert box.counts().waiting == 3
    assert taken(box) == [("a", 6, ["0", "3", "6"]), ("b", 7, ["1", "4", "7"]), ("c", 8, ["2", "5", "8"])]


def test_what_takes_their_place_is_otherwise_the_frame_that_it_was(frames: FrameMaker) -> None:
    box = mailbox(1)
    first, second = frames(number=0, events=("one",)), frames(noise(1), number=1, events=("two",))
    box.put(first)
    box.put(second)
    got = box.take()
    assert got is not None
    assert got.events == first.events + second.events
    assert (got.captured, got.scores, got.timings_ms) == (second.captured, second.scores, second.timings_ms)
    assert (got.picture() == second.picture()).all()
    assert (labels(first), labels(second)) == (["one"], ["two"])  # as the other sinks have them


@pytest.mark.parametrize("first_was_dropped", [True, False])
def test_a_frame_that_comes_once_more_is_the_first_where_the_first_was_dropped(
    frames: FrameMaker, first_was_dropped: bool
) -> None:
    box = mailbox(1)
    first = frames(number=0, events=("enters",))
    leaves = frames(number=0, events=("leaves",)).events
    box.put(first)
    if not first_was_dropped:
        assert box.take() is first
    box.put(replace(first, events=leaves, again=True))
    got = box.take()
    assert got is not None
    assert got.again is not first_was_dropped
    assert labels(got) == (["enters", "leaves"] if first_was_dropped else ["leaves"])


def test_they_do_not_pile_up_for_ever_and_that_is_said(frames: FrameMaker, caplog: pytest.LogCaptureFixture) -> None:
    box = mailbox(1)
    box.put(frames(number=0, events=tuple(map(str, range(GREATEST_EVENTS - 1)))))
    box.put(frames(number=1, events=("last but one",)))
    assert not caplog.records
    box.put(frames(number=2, events=("last",)))
    ((_, number, told),) = taken(box)
    assert number == 2
    assert told == [*map(str, range(1, GREATEST_EVENTS - 1)), "last but one", "last"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"sink a: more than {GREATEST_EVENTS} events wait; the oldest are lost"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=30), st.integers(1, 4))
def test_each_event_comes_once_and_in_its_sources_order(steps: list[tuple[str, int, bool]], capacity: int) -> None:
    maker, box = SHARED, mailbox(capacity)
    put: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    got: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for number, (source, events, takes) in enumerate(steps):
        names = tuple(f"{number}.{count}" for count in range(events))
        put[source] += names
        box.put(maker(source=source, number=number, events=names))
        assert box.counts().waiting <= max(capacity, 3)
        for name, _, told in taken(box, at_most=int(takes)):
            got[name] += told
    for name, _, told in taken(box):
        got[name] += told
    assert got == put
    counts = box.counts()
    assert counts.received == counts.done + counts.dropped == len(steps)


def test_a_loop_of_ones_own_that_is_slow_gets_every_event() -> None:
    camera, red, blue = FedSource(), picture(), picture()
    red[..., 2] = blue[..., 0] = 255
    with Pipeline(session_with(lambda _: None), [camera], settings=EACH_FRAME) as pipeline:
        loop = pipeline.frames()
        for number in range(6):
            camera.feed((blue if number % 2 else red).copy())
            # the loop gets each after the sinks
            eventually(lambda: pipeline.status().sources[0].explained == number + 1)  # noqa: B023
        frame = next(loop)
        assert frame.captured.number == 5
        assert [event.number for event in frame.events] == list(range(6))
