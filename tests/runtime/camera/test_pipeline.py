"""Frames go from sources through the network to sinks; what becomes of each is told by its policy and is counted."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from planned_camera import (
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
from small_models import fake_red_and_blue, red_and_blue

import gapcam
from gapcam.camera import batching
from gapcam.camera.errors import StopRequestedError
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.inference_thread import PERSISTS
from gapcam.camera.pipeline import Pipeline
from gapcam.errors import BackendError, ClassNotFoundError, DataError, UsageError


@pytest.fixture
def session(tmp_path: Path) -> Iterator[gapcam.Session]:
    """A real engine."""
    with gapcam.load(red_and_blue(tmp_path / "model.onnx"), threads=1) as session:
        yield session


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield


def frames(count: int, name: str = "camera") -> PlannedSource:
    return PlannedSource([picture(number) for number in range(count)], name)


def test_all_frames_of_all_sources_reach_all_sinks_in_order(session: gapcam.Session) -> None:
    sinks = [KeepingSink("a", capacity=1), KeepingSink("b", capacity=3)]
    pipeline = Pipeline(session, [frames(30, "x"), frames(20, "y"), frames(0, "z")], sinks)
    pipeline.run()
    for sink in sinks:
        assert len(sink.kept) == 50
        assert [number for source, number in sink.kept if source == "x"] == list(range(30))
        assert [number for source, number in sink.kept if source == "y"] == list(range(20))
        assert sink.calls == ["open", "close"]
    status = pipeline.status()
    check_sums(status)
    assert [(s.captured, s.explained, s.waiting, s.state) for s in status.sources] == [
        (30, 30, 0, "ended"),
        (20, 20, 0, "ended"),
        (0, 0, 0, "ended"),
    ]
    assert [(s.received, s.written, s.state) for s in status.sinks] == [(50, 50, "stopped")] * 2
    assert not status.running


def test_a_frame_comes_out_with_what_the_session_says_of_it(session: gapcam.Session) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    sink, before = KeepingSink(), time.time()
    Pipeline(session, [PlannedSource([image], "door")], [sink], settings=ExplainSettings(smoothing_s=0)).run()
    (frame,) = sink.frames
    assert frame.top == session(image).top
    assert frame.captured.image is image
    assert (frame.captured.source, frame.captured.number) == ("door", 0)
    assert before <= frame.captured.time <= time.time()
    assert frame.captured.taken_at <= frame.explained_at <= time.monotonic()
    assert 0 <= frame.timings_ms["wait"] <= (frame.explained_at - frame.captured.taken_at) * 1e3


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    gate, camera, sink = Gate(), FedSource(), KeepingSink()
    with Pipeline(session_with(gate), [camera], [sink]) as pipeline:
        camera.feed(picture(0))
        gate.wait_for(1)  # frame 0 is in the network
        camera.feed(*(picture(number) for number in range(1, 6)))
        eventually(lambda: pipeline.status().sources[0].captured == 6)
        (source,) = pipeline.status().sources
        assert (source.explained, source.dropped, source.failed, source.waiting) == (0, 4, 0, 2)
        gate.open()
        eventually(lambda: len(sink.kept) == 2)
    assert sink.kept == [("camera", 0), ("camera", 5)]
    (source,) = pipeline.status().sources
    assert (source.captured, source.explained, source.dropped, source.waiting) == (6, 2, 4, 0)


def test_the_age_of_a_frame_is_counted_from_its_capture_until_it_is_handed_over() -> None:
    """Of the second of two frames: it waits for the first one, then for the network, then for the sink."""
    gate, camera, slow = Gate(), FedSource(), Gate()
    sink = KeepingSink(before=slow)
    with Pipeline(session_with(gate), [camera], [sink]) as pipeline:
        camera.feed(picture())
        gate.wait_for(1)
        camera.feed(picture())
        eventually(lambda: pipeline.status().sources[0].captured == 2)
        time.sleep(0.2)
        gate.let()
        gate.wait_for(2)
        time.sleep(0.05)
        gate.open()
        eventually(lambda: pipeline.status().sources[0].explained == 2)
        time.sleep(0.1)
        slow.open()
    status, (_, second) = pipeline.status(), sink.frames
    age, later, inference = status.sources[0].age, status.sinks[0].age, status.inference
    assert age is not None
    assert later is not None
    assert inference is not None
    assert age.count == later.count == inference.count == 2
    assert second.timings_ms["wait"] >= 200
    assert inference.p50_ms >= 50  # the lesser one
    assert inference.greatest_ms >= 200
    assert age.p50_ms >= 200  # the lesser one, too
    assert age.greatest_ms >= second.timings_ms["wait"] + 50
    assert later.greatest_ms >= age.greatest_ms + 100


def test_sources_have_their_turns() -> None:
    gate, busy, calm = Gate(), FedSource("busy"), FedSource("calm")
    sink = KeepingSink(capacity=20)
    with Pipeline(session_with(gate), [busy, calm], [sink], batch=False) as pipeline:
        for turn in range(4):
            busy.feed(picture())
            calm.feed(picture())
            eventually(lambda: all(s.captured == turn + 1 for s in pipeline.status().sources))  # noqa: B023
            if turn == 0:
                gate.wait_for(1)  # whichever was first
                first = sum(s.waiting for s in pipeline.status().sources)
                assert first == 2
            gate.let(2)
            gate.wait_for(2 * turn + 2)
            eventually(lambda: len(sink.kept) == 2 * turn + 2)  # noqa: B023
        gate.open()
    assert all({source for source, _ in sink.kept[turn : turn + 2]} == {"busy", "calm"} for turn in range(0, 8, 2))


def test_a_source_that_always_has_a_frame_does_not_keep_another_one_waiting() -> None:
    gate, sink = Gate(), KeepingSink()
    greedy, other = FedSource("greedy"), FedSource("other")
    with Pipeline(session_with(gate), [greedy, other], [sink], batch=False) as pipeline:
        greedy.feed(picture())
        gate.wait_for(1)
        greedy.feed(picture())
        other.feed(picture())
        eventually(lambda: [s.waiting for s in pipeline.status().sources] == [2, 1])
        gate.let(1)
        gate.wait_for(2)
        assert [s.explained for s in pipeline.status().sources] == [1, 0]
        gate.let(1)
        gate.wait_for(3)
        assert [s.explained for s in pipeline.status().sources] == [1, 1]  # the other one had its turn
        gate.open()


@pytest.mark.parametrize("batch", [True, False])
def test_frames_that_are_there_share_an_inference_only_where_that_is_wanted(batch: bool) -> None:
    gate, sizes = Gate(), list[int]()

    def during(image: np.ndarray) -> None:
        sizes.append(len(image))
        gate(image)

    sources, sink = [FedSource(name) for name in "abc"], KeepingSink(capacity=9)
    with Pipeline(session_with(during), sources, [sink], batch=batch) as pipeline:
        sources[0].feed(picture(1))
        gate.wait_for(1)
        for source in sources:
            source.feed(picture(2))
        eventually(lambda: [s.captured for s in pipeline.status().sources] == [2, 1, 1])
        gate.open()
        eventually(lambda: len(sink.kept) == 4)
        assert pipeline.status().batched is batch
    assert sizes == ([1, 3] if batch else [1, 1, 1, 1])
    assert sorted(sink.kept) == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]


class CostOfRuns:
    """A clock that only runs of the network move on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_what_several_sources_gain_by_a_batch_is_measured_at_the_start(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    runs, clock = list[int](), CostOfRuns()
    monkeypatch.setattr(batching, "time", clock)

    def during(image: np.ndarray) -> None:
        runs.append(len(image))
        clock.now += 0.002  # a run costs the same whatever it holds

    pipeline = Pipeline(session_with(during), [frames(3, "a"), frames(3, "b")], [KeepingSink()])
    pipeline.run()
    assert pipeline.status().batched
    assert "2 frames take" in caplog.text
    assert "share one" in caplog.text
    alone = Pipeline(session_with(during), [frames(3)], [KeepingSink()])
    del runs[:]
    alone.run()
    assert runs == [1, 1, 1]  # one source: nothing to measure


def test_no_source_is_opened_before_that_is_measured() -> None:
    gate, sources, sink = Gate(), [frames(3, "a"), frames(3, "b")], KeepingSink()
    with Pipeline(session_with(gate), sources, [sink]) as pipeline:
        gate.wait_for(1)
        time.sleep(0.05)
        assert [source.calls for source in sources] == [[], []]
        gate.open()
        assert pipeline.wait(PATIENCE_S)
    assert len(sink.kept) == 6


def test_stopping_while_that_is_measured_leaves_the_sources_closed() -> None:
    gate, sources, sink = Gate(), [frames(3, "a"), frames(3, "b")], KeepingSink()
    with Pipeline(session_with(gate), sources, [sink]) as pipeline:
        gate.wait_for(1)
        pipeline.request_stop()
        gate.open()
        assert pipeline.wait(PATIENCE_S)
    assert not any("open" in source.calls for source in sources)
    assert [source.state for source in pipeline.status().sources] == ["stopped", "stopped"]


def test_an_engine_that_fails_while_that_is_measured_ends_the_pipeline() -> None:
    def during(_: np.ndarray) -> None:
        raise BackendError("the device is gone")

    sink = KeepingSink()
    with pytest.raises(BackendError, match="the device is gone"):
        Pipeline(session_with(during), [frames(3, "a"), frames(3, "b")], [sink]).run()
    assert sink.calls == ["open", "close"]


def test_a_model_for_one_image_at_a_time_gets_no_batches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gapcam.camera")
    with gapcam.load(red_and_blue(tmp_path / "one.onnx", batch=1), threads=1) as session:
        sink = KeepingSink()
        pipeline = Pipeline(session, [frames(5, "a"), frames(5, "b")], [sink])
        pipeline.run()
    assert not pipeline.status().batched
    assert "frames take" not in caplog.text  # nothing to measure
    assert len(sink.kept) == 10


def test_a_slow_sink_slows_neither_the_camera_nor_another_sink() -> None:
    stuck = Gate()
    slow, quick, camera = KeepingSink("slow", capacity=2, before=stuck), KeepingSink("quick"), FedSource()
    with Pipeline(session_with(lambda _: None), [camera], [slow, quick]) as pipeline:
        for number in range(8):
            camera.feed(picture(number))
            eventually(lambda: len(quick.kept) == number + 1)  # noqa: B023
            if number == 0:
                stuck.wait_for(1)
        # It is counted after it was kept.
        eventually(lambda: pipeline.status().sources[0].explained == pipeline.status().sinks[1].written == 8)
        source, (slow_status, quick_status) = pipeline.status().sources[0], pipeline.status().sinks
        assert (source.explained, source.dropped) == (8, 0)
        assert (quick_status.written, quick_status.dropped) == (8, 0)
        assert (slow_status.received, slow_status.written, slow_status.dropped, slow_status.waiting) == (8, 0, 5, 3)
        stuck.open()
    assert [number for _, number in slow.kept] == [0, 6, 7]
    check_sums(pipeline.status())


def test_where_nothing_may_be_dropped_all_wait_for_the_slowest_sink() -> None:
    stuck = Gate()
    slow, quick, source = KeepingSink("slow", capacity=1, before=stuck), KeepingSink("quick"), frames(30)
    with Pipeline(session_with(lambda _: None), [source], [slow, quick], policy="all") as pipeline:
        stuck.wait_for(1)
        # One in the sink's hand, one in its mailbox, one with the network, one in the source's, one more read.
        eventually(lambda: pipeline.status().sources[0].captured == 5)
        time.sleep(0.05)
        assert source.given == 5
        assert pipeline.status().sources[0].captured == 5
        stuck.open()
        assert pipeline.wait(PATIENCE_S)
    assert [number for _, number in slow.kept] == list(range(30))
    assert [number for _, number in quick.kept] == list(range(30))


def test_the_thread_that_runs_the_network_shows_that_it_lives_while_it_waits() -> None:
    stuck = Gate()
    sink = KeepingSink(capacity=1, before=stuck)
    with Pipeline(session_with(lambda _: None), [frames(30)], [sink], policy="all") as pipeline:
        stuck.wait_for(1)
        time.sleep(1.2)
        eventually(lambda: pipeline.status().idle_s < 1)
        stuck.open()
    with Pipeline(session_with(lambda _: None), [FedSource()]) as pipeline:
        time.sleep(1.2)
        eventually(lambda: pipeline.status().idle_s < 1)


def test_a_network_that_hangs_is_seen_by_its_idle_time() -> None:
    gate, camera = Gate(), FedSource()
    with Pipeline(session_with(gate), [camera]) as pipeline:
        camera.feed(picture())
        gate.wait_for(1)
        eventually(lambda: pipeline.status().idle_s > 0.7)
        gate.open()
        eventually(lambda: pipeline.status().idle_s < 0.6)


@pytest.mark.parametrize(
    ("live", "paced", "policy", "waits"),
    [
        (False, False, None, True),
        (False, True, None, False),
        (True, True, None, False),
        (True, False, None, False),
        (False, True, "all", True),
        (False, False, "newest", False),
    ],
)
def test_who_waits_is_told_by_the_policy_or_by_the_source(
    live: bool, paced: bool, policy: str | None, waits: bool
) -> None:
    gate, source, sink = Gate(), FedSource(live=live, paced=paced), KeepingSink()
    with Pipeline(session_with(gate), [source], [sink], policy=policy) as pipeline:  # type: ignore[arg-type]
        source.feed(*(picture(number) for number in range(3)))
        gate.wait_for(1)
        source.feed(*(picture(number) for number in range(3)))
        eventually(lambda: source.given >= (3 if waits else 6))
        eventually(lambda: pipeline.status().sources[0].captured >= (3 if waits else 6))
        assert (pipeline.status().sources[0].dropped > 0) is not waits
        gate.open()
        if waits:
            eventually(lambda: len(sink.kept) == 6)


@pytest.mark.parametrize(("camera", "warned"), [(True, True), (False, False)])
def test_images_that_share_their_sinks_with_a_camera_are_warned_of(
    camera: bool, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    beside = PlannedSource([picture()], "camera", live=True) if camera else frames(1, "more")
    Pipeline(session_with(lambda _: None), [frames(3, "images"), beside], [KeepingSink()], batch=False).run()
    said = [record.message for record in caplog.records if "slow sinks may drop its frames" in record.message]
    assert [line.partition(":")[0] for line in said] == (["source images"] if warned else [])


def test_a_camera_beside_images_drops_its_frames_and_not_theirs() -> None:
    gate, camera, images, sink = Gate(), FedSource("camera"), frames(3, "images"), KeepingSink(capacity=50)
    with Pipeline(session_with(gate), [camera, images], [sink], batch=False) as pipeline:
        gate.wait_for(1)
        camera.feed(*(picture(number) for number in range(20)))
        eventually(lambda: pipeline.status().sources[0].captured == 20)
        gate.open()
        eventually(lambda: pipeline.status().sources[1].state == "ended")
        eventually(lambda: all(source.waiting == 0 for source in pipeline.status().sources))
    camera_status, images_status = pipeline.status().sources
    assert camera_status.dropped == 19
    assert (images_status.explained, images_status.dropped) == (3, 0)


def test_a_frame_that_is_none_is_counted_as_failed_and_the_next_ones_come(caplog: pytest.LogCaptureFixture) -> None:
    sink = KeepingSink()
    source = PlannedSource([picture(), *[np.zeros((4, 4, 3), np.float32)] * 20, picture()], "door")
    pipeline = Pipeline(session_with(lambda _: None), [source], [sink])
    pipeline.run()
    assert sink.kept == [("door", 0), ("door", 21)]
    (status,) = pipeline.status().sources
    assert (status.captured, status.explained, status.failed, status.waiting) == (22, 2, 20, 0)
    lines = [record for record in caplog.records if "could not be explained" in record.message]
    assert len(lines) == 1
    assert "source door: frame 1 could not be explained: got an array of shape (4, 4, 3)" in lines[0].message
    assert lines[0].source == "door"  # type: ignore[attr-defined]


def test_a_frame_of_a_batch_that_fails_does_not_take_the_others_with_it() -> None:
    gate, sink = Gate(), KeepingSink()
    sources = [FedSource(name) for name in "abc"]
    with Pipeline(session_with(gate), sources, [sink], batch=True) as pipeline:
        sources[0].feed(picture())
        gate.wait_for(1)
        for source, image in zip(sources, (picture(), np.zeros((4, 4, 3), np.float32), picture()), strict=True):
            source.feed(image)
        eventually(lambda: [s.captured for s in pipeline.status().sources] == [2, 1, 1])
        gate.open()
        eventually(lambda: len(sink.kept) == 3)
        eventually(lambda: [s.failed for s in pipeline.status().sources] == [0, 1, 0])
    check_sums(pipeline.status())


def test_logits_that_are_not_finite_fail_their_frame_only() -> None:
    def during(image: np.ndarray) -> dict[str, np.ndarray] | None:
        dark = image.max() == 0
        return {"logits": np.full((len(image), 2), np.nan, np.float32)} if dark else None

    sink = KeepingSink()
    source = PlannedSource([picture(1), *[picture(0)] * (PERSISTS + 3), picture(2)])
    pipeline = Pipeline(session_with(during), [source], [sink])
    pipeline.run()
    assert [number for _, number in sink.kept] == [0, PERSISTS + 4]
    assert pipeline.status().sources[0].failed == PERSISTS + 3


def test_an_engine_that_fails_now_and_then_does_not_end_the_pipeline() -> None:
    fails = iter(([True] * (PERSISTS - 1) + [False]) * 3)

    def during(_: np.ndarray) -> None:
        if next(fails):
            raise BackendError("out of memory")

    sink = KeepingSink()
    pipeline = Pipeline(session_with(during), [frames(3 * PERSISTS)], [sink])
    pipeline.run()
    assert len(sink.kept) == 3
    assert pipeline.status().sources[0].failed == 3 * (PERSISTS - 1)


def test_an_engine_that_keeps_failing_ends_the_pipeline_with_its_error() -> None:
    runs: list[int] = []

    def during(_: np.ndarray) -> None:
        runs.append(1)
        if len(runs) > 2:
            raise BackendError("the device is gone")

    sink, source = KeepingSink(), frames(100)
    pipeline = Pipeline(session_with(during), [source], [sink])
    with pytest.raises(BackendError, match="the device is gone"):
        pipeline.run()
    assert len(runs) == 2 + PERSISTS
    assert sink.calls == ["open", "close"]
    assert [number for _, number in sink.kept] == [0, 1]
    status = pipeline.status()
    check_sums(status)
    assert (status.sources[0].failed, status.sources[0].waiting) == (PERSISTS, 0)
    assert not status.running


@pytest.mark.parametrize("batch", [False, True])
def test_a_bug_ends_the_pipeline_and_is_raised(batch: bool) -> None:
    def during(_: np.ndarray) -> None:
        raise ZeroDivisionError("a bug")

    sink = KeepingSink()
    pipeline = Pipeline(session_with(during), [frames(100, "a"), frames(100, "b")], [sink], batch=batch)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        pipeline.run()
    check_sums(pipeline.status())
    assert sum(source.failed for source in pipeline.status().sources) >= 1
    assert all(source.waiting == 0 for source in pipeline.status().sources)


@pytest.mark.parametrize("batch", [False, True])
def test_a_closed_session_ends_the_pipeline_at_once(batch: bool) -> None:
    session = gapcam.Session(fake_red_and_blue())
    session.close()
    pipeline = Pipeline(session, [frames(1, "a"), frames(1, "b")], batch=batch)
    with pytest.raises(UsageError, match="closed"):
        pipeline.run()
    check_sums(pipeline.status())


def test_an_error_is_raised_at_the_end_of_a_with_block_but_not_over_another_one() -> None:
    def during(_: np.ndarray) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"), Pipeline(session_with(during), [frames(9)]) as pipeline:
        eventually(lambda: not pipeline.status().running)
    pipeline = Pipeline(session_with(during), [frames(9)])

    def fail() -> None:
        with pipeline:
            eventually(lambda: not pipeline.status().running)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()


def test_a_pipeline_whose_sources_all_failed_says_why() -> None:
    first, second = DataError("there is no such file: a.mp4"), DataError("there is no such file: b.mp4")
    sources = [PlannedSource(name="a", opens=[first]), PlannedSource(name="b", opens=[second])]
    pipeline = Pipeline(session_with(lambda _: None), sources)
    with pytest.raises(DataError, match=r"a\.mp4"):
        pipeline.run()
    assert [(s.state, s.problem) for s in pipeline.status().sources] == [
        ("failed", str(first)),
        ("failed", str(second)),
    ]


def test_one_source_that_failed_does_not_keep_the_others_from_working() -> None:
    sink = KeepingSink()
    sources = [PlannedSource(name="a", opens=[DataError("no such file")]), frames(5, "b")]
    pipeline = Pipeline(session_with(lambda _: None), sources, [sink])
    pipeline.run()
    assert len(sink.kept) == 5
    assert [s.state for s in pipeline.status().sources] == ["failed", "ended"]


def test_a_loop_of_ones_own_gets_every_frame_of_a_file() -> None:
    pipeline = Pipeline(session_with(lambda _: None), [frames(20)])
    assert [frame.captured.number for frame in pipeline.frames()] == list(range(20))
    assert not pipeline.status().running


def test_a_loop_of_ones_own_gets_the_newest_frame_of_a_camera() -> None:
    camera, seen = FedSource(), list[int]()
    with Pipeline(session_with(lambda _: None), [camera]) as pipeline:
        loop = pipeline.frames()
        for number in range(6):
            camera.feed(picture(number))
            eventually(lambda: pipeline.status().sources[0].explained == number + 1)  # noqa: B023
            if number in (1, 5):
                seen.append(next(loop).captured.number)
    assert seen == [1, 5]
    assert list(loop) == []


def test_an_iterator_that_nobody_goes_through_keeps_nobody_waiting_once_it_is_gone() -> None:
    sink = KeepingSink()
    with Pipeline(session_with(lambda _: None), [frames(20)], [sink]) as pipeline:
        loop = pipeline.frames()
        del loop
        assert pipeline.wait(PATIENCE_S)
    assert len(sink.kept) == 20


def test_leaving_a_loop_stops_the_pipeline_that_it_started() -> None:
    source = frames(1000)
    pipeline = Pipeline(session_with(lambda _: None), [source])
    for frame in pipeline.frames():
        if frame.captured.number == 3:
            break
    eventually(lambda: not pipeline.status().running)
    assert source.given < 20
    check_sums(pipeline.status())


def test_leaving_a_loop_lets_a_pipeline_go_on_that_was_started_before() -> None:
    gate, source = Gate(), frames(50)
    with Pipeline(session_with(gate), [source]) as pipeline:
        loop = pipeline.frames()
        gate.open()
        next(loop)
        eventually(lambda: source.given == 5)  # all wait for the loop
        loop.close()  # type: ignore[attr-defined]
        assert pipeline.wait(PATIENCE_S)
        assert pipeline.status().sources[0].explained == 50
        assert not pipeline._taps  # nothing is kept of it


def test_stopping_from_within_a_loop_ends_it() -> None:
    with Pipeline(session_with(lambda _: None), [frames(1000)]) as pipeline:
        seen = []
        for frame in pipeline.frames():
            seen.append(frame.captured.number)
            if len(seen) == 3:
                started = time.monotonic()
                pipeline.stop()
                assert time.monotonic() - started < 5
    assert len(seen) <= 5


def test_a_loop_raises_what_the_pipeline_ended_with() -> None:
    def during(image: np.ndarray) -> None:
        if image.max() > 0.9:
            raise ZeroDivisionError("a bug")

    loop = Pipeline(session_with(during), [PlannedSource([picture(0), picture(255)])]).frames()
    assert next(loop).captured.number == 0
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(loop)


def test_a_loop_after_the_end_is_empty() -> None:
    pipeline = Pipeline(session_with(lambda _: None), [frames(3)])
    pipeline.run()
    assert list(pipeline.frames()) == []


def test_the_user_at_a_sink_can_stop_everything() -> None:
    def closed_at_2(frame: ExplainedFrame) -> None:
        if frame.captured.number == 2:
            raise StopRequestedError

    camera, window, other = FedSource(), KeepingSink("window", before=closed_at_2), KeepingSink("other")
    with Pipeline(session_with(lambda _: None), [camera], [window, other]) as pipeline:
        for number in range(3):
            camera.feed(picture(number))
            eventually(lambda: len(other.kept) == number + 1)  # noqa: B023
        assert pipeline.wait(PATIENCE_S)
    assert camera.interrupted.is_set()
    assert [number for _, number in window.kept] == [0, 1]
    assert window.calls == other.calls == ["open", "close"]
    window_status, other_status = pipeline.status().sinks
    assert (window_status.state, other_status.state) == ("ended", "stopped")
    assert (window_status.written, window_status.dropped, window_status.failed) == (2, 1, 0)


def test_a_sink_that_calls_stop_does_not_wait_for_itself() -> None:
    pipelines: list[Pipeline] = []
    sink = KeepingSink(before=lambda _: pipelines[0].stop())
    camera = FedSource()
    pipelines.append(Pipeline(session_with(lambda _: None), [camera], [sink]))
    started = time.monotonic()
    pipelines[0].start()
    camera.feed(picture())
    assert pipelines[0].wait(PATIENCE_S)
    assert time.monotonic() - started < 5
    assert len(sink.kept) == 1


def test_what_waits_when_it_is_stopped_is_explained_and_written() -> None:
    network, writing = Gate(), Gate()
    camera, sink = FedSource(), KeepingSink(before=writing, capacity=3)
    pipeline = Pipeline(session_with(network), [camera], [sink])
    pipeline.start()
    camera.feed(picture(0))
    network.wait_for(1)
    camera.feed(picture(1))
    eventually(lambda: pipeline.status().sources[0].captured == 2)
    pipeline.request_stop()
    check_sums(pipeline.status())
    assert pipeline.status().sources[0].waiting == 2
    network.open()
    writing.open()
    pipeline.stop()
    assert [number for _, number in sink.kept] == [0, 1]
    (source,) = pipeline.status().sources
    assert (source.state, source.explained, source.dropped, source.waiting) == ("stopped", 2, 0, 0)


def test_run_ends_after_its_time() -> None:
    pipeline, started = Pipeline(session_with(lambda _: None), [FedSource()]), time.monotonic()
    pipeline.run(0.05)
    assert 0.05 <= time.monotonic() - started < 5
    assert pipeline.status().sources[0].state == "stopped"


def test_waiting_tells_whether_it_has_ended() -> None:
    with Pipeline(session_with(lambda _: None), [FedSource()]) as pipeline:
        assert not pipeline.wait(0.01)
        pipeline.stop()
        assert pipeline.wait(0)


def test_it_runs_once() -> None:
    pipeline = Pipeline(session_with(lambda _: None), [frames(1)])
    with pytest.raises(UsageError, match="was not started"):
        pipeline.wait(0)
    pipeline.start()
    with pytest.raises(UsageError, match="make a new one"):
        pipeline.start()
    pipeline.stop()
    pipeline.stop()
    with pytest.raises(UsageError, match="make a new one"):
        pipeline.start()


def test_stopping_before_the_start_is_for_good() -> None:
    source = frames(1)
    pipeline = Pipeline(session_with(lambda _: None), [source])
    pipeline.stop()
    assert pipeline.wait(0)
    assert list(pipeline.frames()) == []
    with pytest.raises(UsageError, match="make a new one"):
        pipeline.start()
    assert source.calls == []


def test_many_threads_may_stop_it_at_once() -> None:
    camera = FedSource()
    with Pipeline(session_with(lambda _: None), [camera]) as pipeline:
        stoppers = [threading.Thread(target=pipeline.stop) for _ in range(5)]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(PATIENCE_S)
        assert not pipeline.status().running


def test_wrong_arguments_are_one_line() -> None:
    session = session_with(lambda _: None)
    with pytest.raises(UsageError, match="there is no source; give at least one"):
        Pipeline(session, [])
    with pytest.raises(UsageError, match="two sources are called 'a'"):
        Pipeline(session, [frames(1, "a"), frames(1, "b"), frames(1, "a")])
    with pytest.raises(UsageError, match="two sinks are called 's'"):
        Pipeline(session, [frames(1)], [KeepingSink("s"), KeepingSink("s")])
    with pytest.raises(UsageError, match="sink 's' has a capacity of 0"):
        Pipeline(session, [frames(1)], [KeepingSink("s", capacity=0)])
    with pytest.raises(UsageError, match="policy is 'some'; give one of newest, all"):
        Pipeline(session, [frames(1)], policy="some")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="policy is 'all', and source 'b' is live"):
        Pipeline(session, [frames(1, "a"), FedSource("b")], policy="all")
    with pytest.raises(UsageError, match=r"got 'rtsp://\*\*\*@host/a'; make a source of it with source_from_uri"):
        Pipeline(session, ["rtsp://u:p@host/a"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"got 'a\.mp4'; make a sink of it with sink_from_uri"):
        Pipeline(session, [frames(1)]).add_sink(Path("a.mp4"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"got KeepingSink, which has no uri, live, paced, read\(\), interrupt\(\); a"):
        Pipeline(session, [KeepingSink()])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="got the class KeepingSink; give an object of it"):
        Pipeline(session, [frames(1)], [KeepingSink])  # type: ignore[list-item]
    unpaced = frames(1)
    del unpaced.paced
    with pytest.raises(
        UsageError, match=r"got PlannedSource, which has no paced; a source is what gapcam\.camera\.Source"
    ):
        Pipeline(session, [unpaced])
    with pytest.raises(ClassNotFoundError):
        Pipeline(session, [frames(1)], settings=ExplainSettings(classes=("no such class",)))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a.mp4", "got 'a.mp4'; make a sink of it with sink_from_uri, and put that into a list"),
        (Path("a.mp4"), "got 'a.mp4'; make a sink of it with sink_from_uri, and put that into a list"),
        (KeepingSink(), "got KeepingSink, not a list of sinks; put each sink into a list"),
        (KeepingSink, "got the class KeepingSink, not a list of sinks; put each sink into a list"),
        (None, "got NoneType, not a list of sinks; put each sink into a list"),
    ],
)
def test_one_in_place_of_a_list_is_refused(given: object, says: str) -> None:
    session = session_with(lambda _: None)
    with pytest.raises(UsageError, match=f"^{re.escape(says)}$"):
        Pipeline(session, [frames(1)], given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"not a list of sources|make a source of it"):
        Pipeline(session, given)  # type: ignore[arg-type]


def test_sources_and_sinks_may_come_out_of_a_generator() -> None:
    sink = KeepingSink()
    Pipeline(session_with(lambda _: None), (frames(1, name) for name in "ab"), (one for one in [sink])).run(PATIENCE_S)
    assert sorted(sink.kept) == [("a", 0), ("b", 0)]


def test_sinks_are_added_before_the_start() -> None:
    late = KeepingSink("late")
    pipeline = Pipeline(session_with(lambda _: None), [frames(3)], [KeepingSink()])
    pipeline.add_sink(late)
    with pytest.raises(UsageError, match="two sinks are called 'late'"):
        pipeline.add_sink(KeepingSink("late"))
    pipeline.run()
    assert len(late.kept) == 3
    with pytest.raises(UsageError, match="'later' was added after the start"):
        pipeline.add_sink(KeepingSink("later"))


def test_a_status_names_model_and_engine(session: gapcam.Session) -> None:
    pipeline = Pipeline(session, [frames(2)])
    before = pipeline.status()
    assert (before.running, before.uptime_s, before.idle_s, before.inference) == (False, 0, 0, None)
    assert before.sources[0].state == "opening"
    pipeline.run()
    status = pipeline.status()
    assert status.model == "model.onnx"
    assert status.engine == session.engine
    assert status.uptime_s > 0
    assert (status.sources[0].width, status.sources[0].height, status.sources[0].uri) == (6, 4, "planned://camera")


def test_the_classes_that_somebody_picks_get_maps() -> None:
    camera, sink = FedSource(), KeepingSink()
    with Pipeline(session_with(lambda _: None), [camera], [sink]) as pipeline:
        camera.feed(picture())
        eventually(lambda: len(sink.frames) == 1)
        shown = sink.frames[0].shown
        assert shown is not None
        assert set(sink.frames[0].maps) == {shown}
        pipeline.demand.acquire(1 - shown)
        camera.feed(picture())
        eventually(lambda: len(sink.frames) == 2)
        assert set(sink.frames[1].maps) == {0, 1}
