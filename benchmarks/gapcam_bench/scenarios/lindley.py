"""A queue with one server that takes queries in the order of arrival, computed from arrivals and service times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.scenarios.poisson import unit_gaps

QUERIES = 20_000
LATE = 0.0025
"""Share of late queries at the predicted rate: so few that a trial of 1000 queries is likely to keep the bound."""


def latencies(arrivals: NDArray[np.float64], services: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each query's arrival to its answer.

    Lindley's recursion: a query is answered its service time after it arrived and the one before it was answered,
    whichever comes later, D_i = max(A_i, D_(i-1)) + S_i. Unrolled, D_i = C_i + max over j <= i of (A_j - C_(j-1)),
    where C are the service times' sums. D. V. Lindley, "The theory of queues with a single server", 1952.

    Args:
        arrivals: [n], ascending.
        services: [n], in the same unit.
    """
    sums = np.cumsum(services)
    answered = sums + np.maximum.accumulate(arrivals - (sums - services))
    return np.asarray(answered - arrivals)


def predicted_rate(services_ns: NDArray[np.int64], bound_ns: float, seed: int, *, late: float = LATE) -> float:
    """Queries a second at which a share of the queries would be late, were their service times like these.

    Args:
        services_ns: at least one, such as the warm-up's; they are drawn from, with replacement.
        bound_ns: of the latency.
        seed: of what is drawn.
        late: the share.
    """
    drawn = np.random.default_rng(seed).choice(services_ns, QUERIES).astype(np.float64)
    arrivals = np.cumsum(unit_gaps(QUERIES, seed)) * drawn.mean()  # as at a load of 1
    low, high = 0.02, 1.0  # of the server's time that is busy
    for _ in range(12):
        load = (low + high) / 2
        found = (latencies(arrivals / load, drawn) > bound_ns).mean()
        low, high = (load, high) if found <= late else (low, load)
    return float(low * 1e9 / drawn.mean())
