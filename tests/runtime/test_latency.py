"""Every figure of a latency follows from its raw samples."""

from __future__ import annotations

import numpy as np
import pytest

from gapcam.latency import Latency


def test_figures_of_a_hundred_known_samples() -> None:
    latency = Latency([n * 1_000_000 for n in range(100, 0, -1)])
    assert latency.count == 100
    assert latency.median_ms == 50.5
    assert latency.p99_ms == 99.0


def test_p99_of_few_samples_is_the_greatest() -> None:
    assert Latency([3_000_000, 9_000_000, 1_000_000]).p99_ms == 9.0


def test_figures_equal_numpys() -> None:
    samples = np.random.default_rng(0).integers(1, 10**9, 1001)
    latency = Latency(samples.tolist())
    assert latency.median_ms == pytest.approx(np.median(samples) / 1e6)
    assert latency.p99_ms == pytest.approx(np.sort(samples)[990] / 1e6)


def test_samples_are_kept_as_they_came() -> None:
    assert Latency([5, 3, 4]).samples_ns.tolist() == [5, 3, 4]


def test_a_ratio_is_taken_sample_by_sample_so_that_a_slow_round_cancels_out() -> None:
    slow = [1, 10, 100]
    assert Latency([2 * n for n in slow]).ratio_to(Latency(slow)) == 2.0
    # The medians are 4 and 2; sample by sample it is 6, 2 and 0.5.
    assert Latency([6, 4, 4]).ratio_to(Latency([1, 2, 8])) == 2.0
    assert Latency([6, 4, 4]).ratio_to(Latency([2, 1, 8])) == 3.0


def test_a_ratio_of_different_numbers_of_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3 samples"):
        Latency([1, 2]).ratio_to(Latency([1, 2, 3]))


@pytest.mark.parametrize("samples", [[], [0], [5, -1]])
def test_samples_that_cannot_be_durations_are_refused(samples: list[int]) -> None:
    with pytest.raises(ValueError, match="positive duration"):
        Latency(samples)
