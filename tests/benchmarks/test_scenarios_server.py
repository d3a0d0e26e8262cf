"""The server scenario in simulated time, against the theory of queues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.lindley import latencies, predicted_rate
from gapcam_bench.scenarios.measured import Measured
from gapcam_bench.scenarios.metric import scenario_of, scenario_reasons
from gapcam_bench.scenarios.poisson import arrivals_ns, unit_gaps
from gapcam_bench.scenarios.rate_search import RateSearch
from gapcam_bench.scenarios.run import run_scenario
from gapcam_bench.scenarios.server import Outcome, Plan, late_allowed, own_trial
from gapcam_bench.scenarios.simulation import PlannedSubject, SimulatedClock, planned_pictures

MS = 1_000_000
NEVER = 10**18
LIMITS = Limits()


def trial(
    rate: float,
    queries: int,
    service_ns: Callable[[int, int], int],
    *,
    batch: int = 1,
    seed: int = 0,
    bound_ns: int = NEVER,
    allowed: int = 10**9,
) -> tuple[Outcome, PlannedSubject]:
    clock = SimulatedClock()
    subject = PlannedSubject(clock, service_ns)
    driver = Driver(
        subject,
        planned_pictures(7),
        Cell(model="planned", scenario="server", batch=batch),
        Limits(),
        ScenarioSettings(seed=seed),
        clock,
        lambda *_: None,
    )
    return own_trial(driver, Plan(rate, queries, bound_ns, allowed)), subject


def served(service_ns: Callable[[int, int], int], *, batch: int = 1, limits: Limits = LIMITS, **of: float) -> Measured:
    clock = SimulatedClock()
    _, measured = run_scenario(
        PlannedSubject(clock, service_ns),
        planned_pictures(7),
        Cell(model="planned", scenario="server", batch=batch),
        limits,
        ScenarioSettings(generator="own", **of),  # type: ignore[arg-type]
        progress=lambda *_: None,
        clock=clock,
    )
    return measured


def one_after_another(arrivals: NDArray[np.int64], services: list[int]) -> list[int]:
    """Lindley's recursion as it is written down."""
    answered, found = 0, []
    for arrival, service in zip(arrivals.tolist(), services, strict=True):
        answered = max(answered, arrival) + service
        found.append(answered - arrival)
    return found


def varying(at: int, _: int) -> int:
    return 5 * MS + (at * 7919 * 31) % (9 * MS)


@pytest.mark.parametrize("rate", [20.0, 80.0, 104.0, 150.0])
def test_each_latency_is_that_of_lindleys_recursion(rate: float) -> None:
    outcome, _ = trial(rate, 3000, varying, seed=3)
    arrivals = arrivals_ns(3000, rate, 3)
    services = [varying(at, 1) for at in range(3000)]
    expected = one_after_another(arrivals, services)
    np.testing.assert_array_equal(outcome.log.of("latency"), expected)
    np.testing.assert_array_equal(outcome.log.of("total"), services)
    np.testing.assert_allclose(latencies(arrivals.astype(float), np.array(services, float)), expected, rtol=1e-9)
    assert outcome.seconds == pytest.approx((arrivals[-1] + expected[-1]) * 1e-9, rel=1e-12)


@pytest.mark.parametrize("batch", [2, 8])
def test_a_batch_is_what_waits_when_the_subject_is_free_and_never_waits_for_more(batch: int) -> None:
    def service(_: int, count: int) -> int:
        return (6 + 2 * count) * MS

    outcome, subject = trial(250.0, 2000, service, batch=batch)
    arrivals = arrivals_ns(2000, 250.0, 0).tolist()
    expected, sizes, free_at, first = [], [], 0, 0
    while first < 2000:
        begins = max(free_at, arrivals[first])
        due = sum(arrival <= begins for arrival in arrivals[first : first + batch])
        free_at = begins + service(0, due)
        expected += [free_at - arrival for arrival in arrivals[first : first + due]]
        sizes.append(due)
        first += due
    np.testing.assert_array_equal(outcome.log.of("latency"), expected)
    assert [len(names) for names in subject.served] == sizes
    assert set(sizes) == set(range(1, batch + 1))


@pytest.mark.parametrize(
    "services",
    [(10, 10), (2, 18), (1, 55)],  # in ms: always the first, or in one of six cases the second; means 10, 4.67 and 10
    ids=["M/D/1", "M/G/1", "M/G/1, far apart"],
)
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_wait_is_pollaczeks_and_khinchines(services: tuple[int, int], load: float) -> None:
    """W = lambda E[S^2] / (2 (1 - rho)), for Poisson arrivals and any distribution of service times."""
    count = 200_000
    drawn = np.random.default_rng(1).choice(services, count, p=[5 / 6, 1 / 6]).astype(float)
    mean, square = drawn.mean(), (drawn**2).mean()
    rate = load / mean  # a millisecond
    waits = latencies(np.cumsum(unit_gaps(count, 5)) / rate, drawn) - drawn
    chunks = waits.reshape(40, -1).mean(axis=1)
    error = chunks.std(ddof=1) / np.sqrt(len(chunks))
    assert abs(waits.mean() - rate * square / (2 * (1 - load))) < 4 * error
    assert error < 0.1 * waits.mean()  # the check can fail


def test_a_pause_makes_every_query_late_that_arrives_in_it() -> None:
    """Coordinated omission would show one slow query: latencies count from the planned arrival, whatever happens."""
    outcome, _ = trial(100.0, 1000, lambda at, _: 1000 * MS if at == 300 else MS)
    arrivals, slow = arrivals_ns(1000, 100.0, 0), outcome.log.of("latency")
    in_pause = (arrivals > arrivals[300]) & (arrivals < arrivals[300] + 900 * MS)
    assert in_pause.sum() > 60
    assert (slow[in_pause] > 100 * MS).all()
    np.testing.assert_array_equal(outcome.log.of("total")[in_pause], MS)


def test_arrivals_are_poisson_and_start_at_once() -> None:
    arrivals = arrivals_ns(20_001, 50.0, 11)
    gaps = np.diff(arrivals) * 1e-9
    assert arrivals[0] == 0
    assert stats.kstest(gaps, stats.expon(scale=1 / 50).cdf).pvalue > 0.01
    assert stats.kstest(gaps, stats.expon(scale=1 / 48).cdf).pvalue < 0.01  # the check can fail
    seconds = np.floor(arrivals * 1e-9).astype(int)
    counts = np.bincount(seconds)[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.25)
    np.testing.assert_allclose(arrivals_ns(20_001, 100.0, 11) * 2, arrivals, atol=20_001)
    assert (arrivals_ns(5, 50.0, 12) != arrivals[:5]).any()


def test_so_many_may_be_late_as_mlperfs_early_stopping_allows() -> None:
    """MLPerf Inference Rules, "Early stopping": 459 queries without a late one, 662 with one, and so on."""
    for queries in (1, 458, 459, 661, 662, 837, 838, 1001, 5000):
        allowed = late_allowed(queries)
        if queries >= 459:
            assert stats.binom.cdf(allowed, queries, 0.01) <= 0.01 < stats.binom.cdf(allowed + 1, queries, 0.01)
        else:
            assert allowed == 0
    assert [late_allowed(queries) for queries in (459, 661, 662, 837, 838)] == [0, 0, 1, 1, 2]


def late_share(rate: float, service_ms: float, bound_ms: float) -> float:
    """P(latency > bound) of M/D/1, from Erlang's formula for the waiting time.

    P(W <= t) = (1 - rho) sum over k = 0 .. floor(t / D) of (lambda (k D - t))^k / k! exp(-lambda (k D - t)).
    """
    from math import exp, factorial

    left = bound_ms - service_ms
    terms = [rate * 1e-3 * (k * service_ms - left) for k in range(int(left / service_ms) + 1)]
    on_time = sum(term**k / factorial(k) * exp(-term) for k, term in enumerate(terms))
    return 1 - (1 - rate * 1e-3 * service_ms) * on_time


def test_the_predicted_rate_is_that_of_m_d_1() -> None:
    for bound_ms in (20, 40, 80):
        rate = predicted_rate(np.array([10 * MS]), bound_ms * MS, seed=0)
        assert late_share(rate * 0.93, 10, bound_ms) < 0.0025 < late_share(rate * 1.07, 10, bound_ms)


def rate_with_late_share(share: float, service_ms: float, bound_ms: float) -> float:
    """Queries a second at which M/D/1 has so many late ones."""
    return float(
        optimize.brentq(lambda rate: late_share(rate, service_ms, bound_ms) - share, 1, 1e3 / service_ms - 1e-3)
    )


def test_the_rate_found_is_at_most_that_at_which_one_query_in_a_hundred_is_late() -> None:
    most = rate_with_late_share(0.01, 10, 40)
    found = []
    for seed in range(5):
        measured = served(lambda _at, _n: 10 * MS, seed=seed, limits=Limits(least_seconds=2, most_seconds=600))
        facts = measured.facts
        assert facts.bound_ms == pytest.approx(40)  # four medians
        assert facts.rate is not None
        assert facts.trials is not None
        found.append(facts.rate)
        best = max((trial for trial in facts.trials if trial.kept), key=lambda trial: trial.rate)
        worst = min((trial for trial in facts.trials if not trial.kept), key=lambda trial: trial.rate)
        assert best.rate == facts.rate
        assert best.rate < worst.rate <= best.rate * 1.05
        assert best.certified
        assert not worst.certified
        assert len(measured.at) == best.queries == 2500
        assert float(np.percentile(measured.wall["latency"], 99, method="inverted_cdf")) / MS == best.p99_ms <= 40
        np.testing.assert_array_equal(measured.at, arrivals_ns(2500, best.rate, seed))
        blocks = np.zeros(2500, np.int32)
        assert scenario_reasons("server", measured.wall, blocks, [facts]) == ()
        assert scenario_of("server", measured.wall, blocks, [facts]).value == facts.rate
    assert max(found) <= most
    assert np.median(found) > 0.75 * most  # what 99 % confidence takes of 2500 queries


def test_the_search_begins_where_it_is_told_and_takes_the_bound_that_it_is_given() -> None:
    facts = served(lambda _at, _n: 10 * MS, rate=12.0, bound_ms=30.0, limits=Limits(most_seconds=6000)).facts
    assert facts.bound_ms == 30
    assert facts.trials is not None
    assert facts.trials[0].rate == 12
    assert facts.rate is not None
    assert 0.6 < facts.rate / rate_with_late_share(0.01, 10, 30) <= 1


def test_a_hopeless_trial_ends_early() -> None:
    facts = served(lambda _at, _n: 10 * MS, rate=200.0, limits=Limits(most_seconds=120)).facts
    assert facts.trials is not None
    assert not facts.trials[0].kept
    assert facts.trials[0].queries < 50


@pytest.mark.parametrize("most_seconds", [1.0, 5.0, 20.0, 60.0])
def test_it_stays_within_its_time(most_seconds: float) -> None:
    clock = SimulatedClock()
    subject = PlannedSubject(clock, lambda _at, _n: 30 * MS)
    limits = Limits(least_seconds=min(2.0, most_seconds), most_seconds=most_seconds)
    warm_up, measured = run_scenario(
        subject,
        planned_pictures(3),
        Cell(model="planned", scenario="server"),
        limits,
        ScenarioSettings(generator="own"),
        progress=lambda *_: None,
        clock=clock,
    )
    assert clock.now_ns() * 1e-9 - warm_up.seconds < most_seconds * 1.35 + 1
    assert len(measured.at) >= limits.least_samples
    assert measured.facts.trials is not None
    for each in measured.facts.trials:  # no trial takes what others need
        assert each.queries <= max(limits.least_samples, each.rate * most_seconds / 3)


def test_the_slow_beginning_of_a_warm_up_decides_nothing() -> None:
    limits = Limits(most_seconds=60)
    usual = served(lambda _at, _n: 10 * MS, limits=limits).facts
    slow_first = served(lambda at, _: (80 if at < 5 else 10) * MS, limits=limits).facts
    assert slow_first.trials is not None
    assert usual.trials is not None
    assert slow_first.bound_ms == usual.bound_ms
    assert slow_first.trials[0].rate == pytest.approx(usual.trials[0].rate, rel=1e-9)


@pytest.mark.parametrize("service_ms", [1, 10, 20, 40])
def test_the_usual_blocks_give_a_rate_to_be_relied_on(service_ms: int) -> None:
    """Five rounds as the command runs them: the search goes on from what the last one found."""
    blocks: list[Measured] = []
    for seed in range(5):
        rate = blocks[-1].facts.rate if blocks else None
        limits = LIMITS.of("server")
        blocks.append(served(lambda _at, _n: service_ms * MS, limits=limits, seed=seed, rate=rate))  # type: ignore[arg-type]
    facts = [block.facts for block in blocks]
    owner = np.repeat(np.arange(5, dtype=np.int32), [len(block.at) for block in blocks])
    wall = {name: np.concatenate([block.wall[name] for block in blocks]) for name in ("total", "latency")}
    assert scenario_reasons("server", wall, owner, facts) == ()
    found = scenario_of("server", wall, owner, facts).value
    assert 0.5 < found / rate_with_late_share(0.01, service_ms, 4 * service_ms) < 1


def test_the_first_rate_is_one_that_its_trial_is_likely_to_keep() -> None:
    """Of few queries none may be late, so that they have to come more slowly."""
    kept = 0
    for seed in range(20):
        trials = served(lambda _at, _n: 20 * MS, limits=LIMITS.of("server"), seed=seed).facts.trials
        assert trials is not None
        kept += trials[0].kept
    assert kept >= 15


def test_where_nothing_was_kept_the_last_trial_has_the_time_that_is_left() -> None:
    facts = served(lambda _at, _n: 20 * MS, rate=17.7, seed=2, limits=LIMITS.of("server")).facts
    assert facts.trials is not None
    assert not any(trial.kept for trial in facts.trials[:-1])
    last = facts.trials[-1]
    assert last.kept
    assert facts.rate == last.rate
    assert last.queries < int(last.rate * LIMITS.of("server").most_seconds / 3)


def test_too_few_queries_for_early_stopping_are_said_to_be_too_few() -> None:
    measured = served(lambda _at, _n: 30 * MS, limits=Limits(most_seconds=20))
    facts = measured.facts
    assert facts.rate
    assert facts.trials is not None
    assert not any(trial.certified for trial in facts.trials)
    latest = measured.wall["latency"].max() * 1e-6
    assert latest <= (facts.bound_ms or 0)  # not one of so few may be late
    (reason,) = scenario_reasons("server", measured.wall, np.zeros(len(measured.at), np.int32), [facts])
    assert reason.startswith(f"{len(measured.at)} queries with 0 late are too few")
    # of blocks enough, all of them together are enough
    times = -(-459 // len(measured.at))
    wall = {name: np.tile(values, times) for name, values in measured.wall.items()}
    blocks = np.repeat(np.arange(times, dtype=np.int32), len(measured.at))
    assert scenario_reasons("server", wall, blocks, [facts] * times) == ()


def test_where_no_rate_keeps_the_bound_the_rate_is_0_and_a_sentence_says_why() -> None:
    measured = served(lambda _at, _n: 10 * MS, bound_ms=9.0, limits=Limits(most_seconds=60))
    facts = measured.facts
    assert facts.rate == 0
    assert facts.trials is not None
    assert not any(trial.kept for trial in facts.trials)
    assert len(measured.at) == max(trial.queries for trial in facts.trials) > 0
    blocks = np.zeros(len(measured.at), np.int32)
    assert scenario_of("server", measured.wall, blocks, [facts]).value == 0
    (reason,) = scenario_reasons("server", measured.wall, blocks, [facts])
    assert "no rate kept the bound in 1 of 1 blocks" in reason
    assert "the bound is 9 ms" in reason


def test_a_larger_batch_keeps_a_higher_rate() -> None:
    def service(_: int, count: int) -> int:
        return (8 + count) * MS

    limits = Limits(most_seconds=300)
    alone = served(service, bound_ms=45.0, limits=limits).facts.rate
    together = served(service, bound_ms=45.0, limits=limits, batch=8).facts.rate
    assert alone is not None
    assert together is not None
    assert together > 2 * alone


@pytest.mark.parametrize("highest", [0.4, 3.0, 10.0, 11.0, 37.0, 1000.0])
def test_the_search_halves_what_lies_between_a_kept_and_a_broken_rate(highest: float) -> None:
    search, tried = RateSearch(10.0), []
    while search.rate is not None:
        tried.append(search.rate)
        search.judged(kept=search.rate <= highest)
    kept = max(rate for rate in tried if rate <= highest)
    assert kept <= highest < kept * 1.05
    assert len(tried) <= 14
    assert len(set(tried)) == len(tried)


def test_the_search_gives_up_below_a_thirtieth_of_where_it_began() -> None:
    search, tried = RateSearch(30.0), []
    while search.rate is not None:
        tried.append(search.rate)
        search.judged(kept=False)
    assert min(tried) == pytest.approx(1)
    search.judged(kept=True)  # it is over
    assert search.rate is None
