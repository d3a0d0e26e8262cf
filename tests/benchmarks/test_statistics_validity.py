"""What is valid, when a warm-up is over, and the yardstick."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gapcam_bench.limits import Limits
from gapcam_bench.statistics.validity import notes_on_noise, reasons_invalid
from gapcam_bench.statistics.warm_up import WarmUpWatch, stands_still
from gapcam_bench.statistics.yardstick import measure_yardstick

LIMITS = Limits()


def quiet(blocks=5, count=200, *, within=0.03, seed=0):
    random = np.random.default_rng(seed)
    samples = (10e6 * np.exp(within * random.standard_normal((blocks, count)))).astype(np.int64)
    at = np.cumsum(samples, axis=1) - samples
    return samples, np.repeat(np.arange(blocks, dtype=np.int32), count), at


def reasons(samples, blocks, at, stable=None):
    count = len(np.unique(blocks))
    return reasons_invalid(
        samples.ravel().astype(np.int64),
        blocks,
        at.ravel(),
        LIMITS,
        stable=[True] * count if stable is None else stable,
    )


def test_a_quiet_row_is_valid_and_needs_no_note():
    samples, blocks, at = quiet()
    assert reasons(samples, blocks, at) == ()
    assert notes_on_noise(samples.ravel(), LIMITS) == ()


def test_one_pause_in_a_thousand_samples_is_a_note_and_no_reason():
    samples, blocks, at = quiet()
    samples[2, 17] = 500 * samples[2, 17]
    assert samples.std() / samples.mean() > 10 * LIMITS.most_variation
    assert reasons(samples, blocks, at) == ()
    (note,) = notes_on_noise(samples.ravel(), LIMITS)
    assert note.startswith("1 of 1000 samples") or "of 1000 samples are far off" in note
    assert "0.03 without" in note


def test_noise_throughout_is_a_reason_that_names_both_figures():
    samples, blocks, at = quiet(count=2000, within=0.4)
    (reason,) = reasons(samples, blocks, at)
    assert reason.startswith("too noisy: the coefficient of variation is 0.3")
    assert "at most 0.25 is valid" in reason
    assert notes_on_noise(samples.ravel(), LIMITS) == ()


def test_a_twentieth_of_slow_samples_is_noise():
    samples, blocks, at = quiet()
    samples[:, ::20] *= 10
    (reason,) = reasons(samples, blocks, at)
    assert reason.startswith("too noisy")


@pytest.mark.parametrize(("every", "noisy"), [(100, False), (50, True)])
def test_one_slow_sample_in_a_hundred_is_left_out_and_two_are_not(every, noisy):
    samples, blocks, at = quiet()
    samples[:, ::every] *= 10
    assert [each.split(":")[0] for each in reasons(samples, blocks, at)] == ["too noisy"] * noisy


def test_few_samples_are_too_few():
    samples, blocks, at = quiet(3, 33)
    assert reasons(samples, blocks, at) == ("too few samples: 99, at least 100 are needed",)
    samples, blocks, at = quiet(4, 25)
    assert reasons(samples, blocks, at) == ()


@pytest.mark.parametrize(("factor", "invalid"), [(1.05, False), (1.2, True), (0.8, True)])
def test_a_block_that_is_slower_or_faster_is_drift_between_blocks(factor, invalid):
    samples, blocks, at = quiet()
    samples = samples.astype(float)
    samples[3] *= factor
    found = reasons(samples, blocks, at)
    assert [each.split(":")[0] for each in found] == ["drift between blocks"] * invalid
    if factor == 1.2:
        assert "from 9.9" in found[0] or "from 10" in found[0]
        assert "% apart; at most 10% is valid" in found[0]


@pytest.mark.parametrize(("slope", "words"), [(0.05, None), (0.4, "slower"), (-0.3, "faster")])
def test_blocks_that_all_slow_down_or_speed_up_drift_within(slope, words):
    samples, blocks, at = quiet()
    samples = samples * np.linspace(1, 1 + slope, samples.shape[1])
    found = reasons(samples, blocks, at)
    assert [each.split(":")[0] for each in found] == ["drift within blocks"] * (words is not None)
    if words:
        assert words in found[0]


def test_drift_is_looked_for_in_time_and_not_in_the_order_of_the_samples():
    samples, blocks, at = quiet()
    samples = samples * np.linspace(1, 1.4, samples.shape[1])
    shuffled = np.random.default_rng(0).permutation(samples.size)
    found = reasons_invalid(
        samples.ravel().astype(np.int64)[shuffled], blocks[shuffled], at.ravel()[shuffled], LIMITS, stable=[True] * 5
    )
    assert len(found) == 1
    assert found[0].startswith("drift within blocks")


def test_a_warm_up_that_never_stood_still_is_a_reason():
    samples, blocks, at = quiet()
    found = reasons(samples, blocks, at, stable=[True, False, True, False, True])
    assert found == ("not warm: in 2 of 5 blocks the warm-up never stood still",)


def test_no_samples_are_too_few_and_nothing_else():
    nothing = np.empty(0, np.int64)
    assert reasons_invalid(nothing, nothing.astype(np.int32), nothing, LIMITS, stable=[]) == (
        "too few samples: 0, at least 100 are needed",
    )


class Ticks:
    """A clock that stands where the samples have moved it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def warmed(durations_s, limits=LIMITS):
    clock = Ticks()
    watch = WarmUpWatch(limits, clock)
    for seconds in durations_s:
        assert not watch.done
        clock.now += seconds
        watch.add(int(seconds * 1e9))
        if watch.done:
            break
    return watch


def test_a_steady_subject_is_warm_after_the_least_time():
    result = warmed([0.01] * 1000).result()
    assert result.stable
    assert LIMITS.warm_up_least_seconds <= result.seconds < 0.6
    assert result.samples == pytest.approx(result.seconds / 0.01)


def test_one_that_becomes_faster_is_waited_for():
    falling = [0.01 * (1 + 2 * np.exp(-number / 60)) for number in range(2000)]
    result = warmed(falling).result()
    assert result.stable
    assert falling[result.samples // 2] < 1.1 * 0.01  # the half that was looked at has come down
    assert result.samples > 150


def test_one_that_never_stands_still_is_measured_when_the_time_is_over():
    result = warmed([0.01 * 1.01**number for number in range(1000)]).result()
    assert not result.stable
    assert LIMITS.warm_up_most_seconds <= result.seconds < LIMITS.warm_up_most_seconds * 1.2


def test_one_that_takes_seconds_can_be_warm_too():
    watch = warmed([5.0, 2.0, 2.0, 2.0, 2.0])
    assert watch.done
    assert watch.result().stable
    assert not warmed([60.0]).result().stable  # one duration tells nothing


def test_noisy_samples_are_warm_when_their_medians_lie_as_near_as_noise_lets_them():
    random = np.random.default_rng(0)
    results = [warmed(0.01 * np.exp(0.25 * random.standard_normal(2000))).result() for _ in range(20)]
    assert all(result.stable for result in results)


def test_what_stands_still():
    random = np.random.default_rng(0)
    steady = (1e7 * np.exp(0.02 * random.standard_normal(90))).astype(np.int64)
    assert stands_still(steady)
    assert not stands_still((steady * np.linspace(1.3, 1, 90)).astype(np.int64))
    assert not stands_still(steady[:2])


def test_the_yardstick_gives_as_many_durations_as_asked_for():
    found = measure_yardstick(3)
    assert found.dtype == np.int64
    assert found.shape == (3,)
    assert (found > 20_000).all()  # hashing 0.8 MB and copying 4 MB in 0.02 ms is beyond any machine


def test_the_yardstick_is_work_of_one_thread_whatever_the_settings():
    program = (
        "import time\n"
        "from gapcam_bench.statistics.yardstick import measure_yardstick\n"
        "time.sleep(0.5)\n"  # NumPy's libraries start their threads
        "whole, own = time.process_time(), time.thread_time()\n"
        "measure_yardstick(200)\n"
        "print((time.process_time() - whole) / (time.thread_time() - own))"
    )
    for threads in ("1", "4"):
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(run.stdout) == pytest.approx(1, abs=0.1)
