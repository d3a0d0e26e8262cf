"""Several steps measured in one run, in turn, so that whatever disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import cv2

from gapcam.latency import Latency

Step = Callable[[], object]

WARM_UP = 10
UNMEASURED = 2
MEASURED = 4


def measure(
    steps: Mapping[str, Step],
    *,
    rounds: int,
    seconds: float,
    after_round: Callable[[int], None] = lambda _: None,
) -> dict[str, Latency]:
    """The latency of each step.

    In a round every step has one turn: `UNMEASURED` runs, then `MEASURED` ones. So each finds the caches as it leaves
    them itself, as in a loop of its own. (One run after another in turn makes a step's duration depend on what came
    before it: a classifier by a tenth, a copy of a frame by a factor of two, for two runs.) The order of the turns is
    another one in each round, so that what is left of that effect does not always fall on the same step.

    Args:
        steps: what to run, by name. All are run a few times first.
        rounds: how many at most.
        seconds: when to stop before that; one round is always measured.
        after_round: called with the number of measured rounds, for a progress display.
    """
    samples_ns: dict[str, list[int]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    turns, order = list(steps.items()), random.Random(0)  # noqa: S311  # no secret
    stop_ns = time.perf_counter_ns() + seconds * 1e9
    with no_garbage_collection():
        for done in range(rounds):
            order.shuffle(turns)
            for name, step in turns:
                for _ in range(UNMEASURED):
                    step()
                for _ in range(MEASURED):
                    start_ns = time.perf_counter_ns()
                    step()
                    samples_ns[name].append(time.perf_counter_ns() - start_ns)
            after_round(done + 1)
            if time.perf_counter_ns() >= stop_ns:
                break
    return {name: Latency(samples) for name, samples in samples_ns.items()}


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV with one thread; afterwards with as many as before."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Nothing is collected in the middle of a sample. Reference counts still free everything that is not in a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
