"""Server: queries arrive at random, and the highest rate is found at which nearly all of them are answered in time.

As MLPerf Inference has it: one sample a query, Poisson arrivals, judged by the highest rate at which the 99th
percentile of the latency keeps a bound (inference_rules.adoc, "Scenarios"; LoadGen's `server_*` settings). Arrivals are
planned before the trial and wait for nothing (open loop), and the latency is from a query's planned arrival to its
answer: a slow answer makes all queries behind it late, and that counts (no coordinated omission).

A subject that is free takes the queries that wait, at most `cell.batch`, in the order of arrival, as one inference; it
does not wait for more. All of one inference are answered when it is.

How the rate is found:

1. The bound is `settings.bound_ms`, or four times the median of the warm-up's single queries.
2. The first rate is `settings.rate`, or what Lindley's recursion says of a queue with the warm-up's durations: the rate
   that a trial is likely to keep.
3. A trial at a rate keeps the bound if no more queries are late than MLPerf's early stopping allows of so many: with
   99 % confidence, at most 1 % of all queries would be. That takes 459 queries of which none is late, 662 with one,
   838 with two. A trial has 2500, and is at least `least_seconds` long, but at most a third of `most_seconds`; where
   that is not enough for 459, no query may be late, and the trial is not certified. It ends early when too many are
   late already. MLPerf takes latencies as independent, though those in a queue are not; so do we.
4. `rate_search.py` says which rate is next, as long as `most_seconds` has time for another trial; where no rate was
   kept yet, the last one has the time that is left. All trials have the same arrivals, only closer together, so that a
   higher rate is never easier by luck.

The samples are those of the trial with the highest rate that kept the bound. Where no rate did, they are those of the
trial with the most queries, and the rate is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gapcam.latency import NS_PER_MS
from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.lindley import LATE, predicted_rate
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts, Trial
from gapcam_bench.scenarios.poisson import arrivals_ns
from gapcam_bench.scenarios.rate_search import RateSearch
from gapcam_bench.scenarios.sample_log import SampleLog
from gapcam_bench.statistics.early_stopping import keeps_bound, least_queries

PERCENTILE = 0.99
QUERIES = 2500
"""Of a trial: 13 may be late. Of fewer, luck would decide more: of 1001 three may be late, though 1 % are ten."""

TIMES_THE_MEDIAN = 4
LIKELY = 0.9
"""How likely the first rate is to be kept, were queries late independently of one another."""

OVER = 1.1
"""How far the most time may be passed: so that three of the longest trials are tried, whose arrivals are random."""

REPORT_NS = 2_000_000
"""How long a pause must be for the progress to be told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial is to do.

    Attributes:
        rate: queries a second.
        queries: how many.
        bound_ns: of the latency.
        late_allowed: with more late ones it may end.
    """

    rate: float
    queries: int
    bound_ns: int
    late_allowed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial did.

    Attributes:
        log: its samples, with latencies.
        seconds: from the first arrival to the last answer.
        verdict: LoadGen's; None of ours.
    """

    log: SampleLog
    seconds: float
    verdict: str | None = None


def server(
    driver: Driver,
    generator: str,
    services_ns: NDArray[np.int64],
    trial: Callable[[Driver, Plan], Outcome] | None = None,
) -> Measured:
    """Find the rate.

    Args:
        driver: of the subject, warmed up.
        generator: the name of the load generator.
        services_ns: durations of single queries, from the warm-up.
        trial: another generator's way to run one; None for ours.
    """
    settings, limits, clock = driver.settings, driver.limits, driver.clock
    bound_ns = round(
        settings.bound_ms * NS_PER_MS if settings.bound_ms else TIMES_THE_MEDIAN * float(np.median(services_ns))
    )
    search = RateSearch(settings.rate or _first_rate(services_ns, bound_ns, driver))
    best: tuple[float, Outcome] | None = None
    longest = Outcome(SampleLog(), 0.0)
    trials: list[Trial] = []
    start = clock.now_ns()
    while search.rate is not None:
        plan = _plan(search.rate, bound_ns, driver)
        spent = (clock.now_ns() - start) * 1e-9
        if trials and spent + plan.queries / plan.rate > OVER * limits.most_seconds:
            left = int(plan.rate * (limits.most_seconds - spent))
            if best is not None or left < limits.least_samples:
                break
            plan = replace(plan, queries=left, late_allowed=late_allowed(left))
        outcome = (trial or own_trial)(driver, plan)
        trials.append(_judged(plan, outcome))
        search.judged(kept=trials[-1].kept)
        if trials[-1].kept and (best is None or plan.rate > best[0]):
            best = plan.rate, outcome
        if len(outcome.log) > len(longest.log):
            longest = outcome
    rate, outcome = best or (0.0, longest)
    facts = ScenarioFacts(
        generator=generator,
        frames_per_sample=1,
        seconds=outcome.seconds,
        verdict=outcome.verdict,
        rate=rate,
        bound_ms=bound_ns / NS_PER_MS,
        trials=tuple(trials),
    )
    return outcome.log.measured(facts)


def own_trial(driver: Driver, plan: Plan) -> Outcome:
    """Queries at one rate; nothing of ours runs beside the subject, so that no thread is needed."""
    log, clock, batch = SampleLog(), driver.clock, driver.cell.batch
    start = clock.now_ns()
    arrivals = (start + arrivals_ns(plan.queries, plan.rate, driver.settings.seed)).tolist()
    answered = late = 0
    while answered < plan.queries and late <= plan.late_allowed:
        if arrivals[answered] - clock.now_ns() > REPORT_NS:
            driver.report(f"{plan.rate:.3g} queries a second", answered / plan.queries)
        clock.sleep_until_ns(arrivals[answered])
        now, count = clock.now_ns(), 1
        while count < batch and answered + count < plan.queries and arrivals[answered + count] <= now:
            count += 1
        inference = driver.infer(count)
        for arrival in arrivals[answered : answered + count]:
            latency = inference.ended - arrival
            late += latency > plan.bound_ns
            log.add(arrival - start, inference, latency=latency)
        answered += count
    return Outcome(log, (clock.now_ns() - start) * 1e-9)


def late_allowed(queries: int) -> int:
    """How many of so many queries may be late: as early stopping has it, and none where they are too few for it."""
    allowed = 0
    while least_queries(PERCENTILE * 100, over=allowed + 1) <= queries:
        allowed += 1
    return allowed


def _first_rate(services_ns: NDArray[np.int64], bound_ns: int, driver: Driver) -> float:
    """That a trial of as many queries as it can have is likely to keep: of few queries none may be late."""
    from scipy.stats import beta

    seed = driver.settings.seed
    plan = _plan(predicted_rate(services_ns, bound_ns, seed), bound_ns, driver)
    late = float(beta.ppf(1 - LIKELY, plan.late_allowed + 1, plan.queries - plan.late_allowed))
    return predicted_rate(services_ns, bound_ns, seed, late=min(late, LATE))


def _plan(rate: float, bound_ns: int, driver: Driver) -> Plan:
    limits = driver.limits
    wanted = max(QUERIES, math.ceil(rate * limits.least_seconds))
    queries = max(1, limits.least_samples, min(wanted, int(rate * limits.most_seconds / 3)))
    return Plan(rate, queries, bound_ns, late_allowed(queries))


def _judged(plan: Plan, outcome: Outcome) -> Trial:
    latencies = outcome.log.of("latency")
    late = int((latencies > plan.bound_ns).sum())
    kept = len(latencies) == plan.queries and late <= plan.late_allowed
    return Trial(
        rate=plan.rate,
        p99_ms=float(np.percentile(latencies, 100 * PERCENTILE, method="inverted_cdf")) / NS_PER_MS,
        queries=len(latencies),
        kept=kept,
        certified=kept and keeps_bound(latencies, plan.bound_ns),
    )
