"""Whatever sources and sinks do, and whenever it is looked: every frame is somewhere, and each once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planned_camera import (
    FAST,
    PATIENCE_S,
    KeepingSink,
    PlannedSource,
    check_sums,
    no_thread_left,
    picture,
    session_with,
)

from gapcam.camera.backoff import Reopen
from gapcam.camera.errors import BrokenFrameError, SinkEndedError, SourceLostError
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.pipeline import Pipeline
from gapcam.camera.status import PipelineStatus
from gapcam.errors import BackendError

STEP = Literal["frame", "bad frame", "broken", "lost", "bug", "pause"]


def step_of(name: STEP) -> object:
    if name == "frame":
        return picture(1)
    if name == "bad frame":
        return np.zeros((4, 4), np.float32)
    if name == "pause":
        return paused
    return {"broken": BrokenFrameError("x"), "lost": SourceLostError("x"), "bug": RuntimeError("x")}[name]


def paused() -> object:
    time.sleep(0.002)
    return picture(2)


@dataclass
class Plan:
    """Of one source."""

    steps: list[STEP]
    live: bool
    paced: bool
    opens: list[bool]

    def source(self, name: str) -> PlannedSource:
        opens = [None if works else SourceLostError("x") for works in self.opens]
        return PlannedSource(map(step_of, self.steps), name, live=self.live, paced=self.paced, opens=opens)


@dataclass
class SinkPlan:
    """Of one sink: what each of its writes does."""

    writes: list[Literal["fine", "fails", "slow", "ends"]]
    capacity: int
    opens: list[bool]
    _writes: list[str] = field(default_factory=list)

    def sink(self, name: str) -> KeepingSink:
        writes = iter(self.writes)

        def before(_: ExplainedFrame) -> None:
            what = next(writes, "fine")
            if what == "fails":
                raise OSError("x")
            if what == "ends":
                raise SinkEndedError("x")
            if what == "slow":
                time.sleep(0.003)

        opens = [None if works else OSError("x") for works in self.opens]
        return KeepingSink(name, capacity=self.capacity, before=before, opens=opens)


STEPS = st.sampled_from(["frame", "frame", "frame", "pause", "bad frame", "broken", "lost", "bug"])
PLANS = st.builds(
    Plan,
    st.lists(STEPS, max_size=25),
    live=st.booleans(),
    paced=st.booleans(),
    opens=st.lists(st.booleans(), max_size=4),
)
SINKS = st.builds(
    SinkPlan,
    st.lists(st.sampled_from(["fine", "fine", "slow", "fails", "ends"]), max_size=12),
    capacity=st.integers(1, 3),
    opens=st.lists(st.booleans(), max_size=4),
)


class Watcher:
    """Looks at a status over and over, from another thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.looks, self.problems = 0, list[str]()
        self._pipeline, self._over = pipeline, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)
        assert not self.problems
        assert self.looks

    def _look(self) -> None:
        before: PipelineStatus | None = None
        while not self._over.is_set() or not self.looks:
            status = self._pipeline.status()
            try:
                check_sums(status)
                if before is not None:
                    assert all(
                        getattr(new, name) >= getattr(old, name)
                        for new, old in zip(status.sources, before.sources, strict=True)
                        for name in ("captured", "explained", "dropped", "failed", "broken", "reopened")
                    ), "a count fell"
                assert all(source.waiting <= 3 for source in status.sources), "too many wait"
            except AssertionError as error:
                self.problems.append(str(error))
            before, self.looks = status, self.looks + 1
            self._over.wait(0.0005)


@given(
    plans=st.lists(PLANS, min_size=1, max_size=3),
    sinks=st.lists(SINKS, max_size=2),
    batch=st.booleans(),
    engine_fails=st.lists(st.booleans(), max_size=6),
    stop_after_s=st.none() | st.floats(0, 0.02),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_lost_without_account(
    plans: list[Plan], sinks: list[SinkPlan], batch: bool, engine_fails: list[bool], stop_after_s: float | None
) -> None:
    fails = iter(engine_fails)
    handed_over: list[tuple[str, int]] = []

    def during(_: np.ndarray) -> None:
        if next(fails, False):
            raise BackendError("x")

    class Seen(KeepingSink):
        """Never fails, and has a place for all."""

        def write(self, frame: ExplainedFrame) -> None:
            handed_over.append((frame.captured.source, frame.captured.number))

    sources = [plan.source(f"source {number}") for number, plan in enumerate(plans)]
    planned = [plan.sink(f"sink {number}") for number, plan in enumerate(sinks)]
    pipeline = Pipeline(
        session_with(during), sources, [*planned, Seen("seen", capacity=1000)], batch=batch, reopen=Reopen(**FAST)
    )
    with no_thread_left():
        with Watcher(pipeline):
            pipeline.start()
            pipeline.wait(stop_after_s if stop_after_s is not None else PATIENCE_S)
            pipeline.stop()
        status = pipeline.status()
        check_sums(status)
        assert not status.running
    for source, entry, plan in zip(sources, status.sources, plans, strict=True):
        numbers = [number for name, number in handed_over if name == source.name]
        assert numbers == sorted(set(numbers))
        assert entry.captured == source.given
        assert entry.explained == len(numbers)
        assert entry.waiting == 0
        assert source.calls.count("close") >= source.calls.count("open")
        if not plan.paced and not plan.live:
            assert entry.dropped <= (stop_after_s is not None)  # one that is read while everything stops
        if stop_after_s is None:
            assert entry.state == "ended"
            assert entry.broken == plan.steps.count("broken")
            assert source.given == len([step for step in plan.steps if step in ("frame", "bad frame", "pause")])
    for sink, entry in zip(planned, status.sinks, strict=False):
        assert entry.received == len(handed_over)
        assert entry.written == len(sink.kept)
        assert entry.waiting == 0
        assert len(set(sink.kept)) == len(sink.kept)
        assert [frame for frame in handed_over if frame in set(sink.kept)] == sink.kept  # in order
        assert sink.calls[-1] == "close"


@given(
    lengths=st.lists(st.integers(0, 15), min_size=1, max_size=3),
    capacity=st.integers(1, 3),
    slow=st.lists(st.booleans(), max_size=10),
    batch=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_where_nothing_may_be_dropped_nothing_is(
    lengths: list[int], capacity: int, slow: list[bool], batch: bool
) -> None:
    naps = iter(slow)
    sinks = [
        KeepingSink("slow", capacity=capacity, before=lambda _: time.sleep(0.002 if next(naps, False) else 0)),
        KeepingSink("quick", capacity=capacity),
    ]
    sources = [
        PlannedSource([picture()] * length, str(number), paced=bool(number % 2))
        for number, length in enumerate(lengths)
    ]
    pipeline = Pipeline(session_with(lambda _: None), sources, sinks, policy="all", batch=batch)
    looped = list(pipeline.frames())
    expected = {(str(number), frame) for number, length in enumerate(lengths) for frame in range(length)}
    for kept in (*(sink.kept for sink in sinks), [(f.captured.source, f.captured.number) for f in looped]):
        assert len(kept) == len(expected)
        assert set(kept) == expected
    assert all(source.dropped == source.waiting == 0 for source in pipeline.status().sources)


@pytest.mark.parametrize("moment", range(6))
def test_stopping_at_any_moment_leaves_no_thread_and_no_frame_without_account(moment: int) -> None:
    """Before the start, at once after it, in the midst of it, and when it is over."""
    source, sink = PlannedSource([paused] * 40, live=True), KeepingSink()
    pipeline = Pipeline(session_with(lambda _: time.sleep(0.002)), [source], [sink])
    with no_thread_left():
        if moment:
            pipeline.start()
            time.sleep((0, 0, 0.004, 0.02, 0.06, 0.5)[moment])
        pipeline.stop()
    status = pipeline.status()
    check_sums(status)
    assert status.sources[0].waiting == status.sinks[0].waiting == 0
    assert status.sources[0].captured == source.given
    assert len(sink.kept) == status.sources[0].explained
