"""A batch is used where measuring says that it is faster, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from planned_camera import session_with
from small_models import red_and_blue

import gapcam
from gapcam.camera import batching
from gapcam.camera.batching import ROUNDS, WORTH, BatchMeasurement, measure_batch, takes_batches
from gapcam.errors import BackendError


class Clock:
    """Stands still but for what a network takes: no other program makes it later."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def session(self, seconds: Callable[[int], float]) -> gapcam.Session:
        """A network whose duration is known, by how many images it gets."""

        def run(image: np.ndarray) -> None:
            self.now += seconds(len(image))

        return session_with(run)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batching, "time", clock)
    return clock


def test_a_batch_is_worth_it_where_a_run_has_a_price_of_its_own(clock: Clock) -> None:
    measured = measure_batch(clock.session(lambda images: 0.004 + 0.0005 * images), 4)
    assert measured.worth_it
    assert measured.frames == 4
    assert measured.single_ms == pytest.approx(4 * 4.5)
    assert measured.batch_ms == pytest.approx(6)
    assert measured.ratio == pytest.approx(1 / 3)


def test_a_batch_is_not_worth_it_where_large_inputs_are_dear(clock: Clock) -> None:
    measured = measure_batch(clock.session(lambda images: 0.001 * images**2), 3)
    assert not measured.worth_it
    assert measured.ratio == pytest.approx(3)


@pytest.mark.parametrize(("ratio", "worth_it"), [(WORTH - 0.001, True), (WORTH + 0.001, False), (float("nan"), False)])
def test_a_draw_is_not_worth_it(ratio: float, worth_it: bool) -> None:
    assert BatchMeasurement(2, 1.0, ratio, ratio, 3).worth_it is worth_it


def test_both_have_their_turn_first() -> None:
    sizes: list[int] = []
    measured = measure_batch(session_with(lambda image: sizes.append(len(image))), 2, seconds=60)
    assert measured.rounds == ROUNDS
    turns = "".join(map(str, sizes))
    assert turns == "112" + "112211" * (ROUNDS // 2)


def test_it_stops_after_its_time_but_not_before_one_round(clock: Clock) -> None:
    session = clock.session(lambda _: 0.02)
    assert measure_batch(session, 2, seconds=0.2).rounds == 3  # of three runs each, as is the warm-up
    assert clock.now == pytest.approx(0.24)
    assert measure_batch(session, 2, seconds=0).rounds == 1


def test_a_model_says_whether_it_takes_batches(tmp_path: Path) -> None:
    for batch, expected in (("N", True), (1, False)):
        with gapcam.load(red_and_blue(tmp_path / "model.onnx", batch=batch), threads=1) as session:
            assert takes_batches(session) is expected


def test_an_engine_that_fails_says_so() -> None:
    def fail(_: np.ndarray) -> None:
        raise BackendError("gone")

    with pytest.raises(BackendError, match="gone"):
        measure_batch(session_with(fail), 2)
