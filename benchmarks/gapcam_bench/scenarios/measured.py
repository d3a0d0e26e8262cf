"""What a scenario measured: raw samples, one a query, and what is true of the run as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Of the server scenario: one rate that was tried.

    Attributes:
        rate: queries a second that arrived, on average.
        p99_ms: of the latency from a query's arrival to its answer.
        queries: that were answered.
        kept: whether the bound was kept: whether so few of the queries were late as MLPerf's early stopping allows of
            so many; of too few for that, none.
        certified: whether it was kept by enough queries: with 99 % confidence, at most 1 % of all queries are late.
    """

    rate: float
    p99_ms: float
    queries: int
    kept: bool
    certified: bool


class ScenarioFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What no sample says. A field that the scenario does not have is None.

    Attributes:
        generator: of the load: "gapcam", or "mlcommons-loadgen 6.0.17".
        frames_per_sample: pictures of one query.
        seconds: from the first query to the last answer.
        verdict: LoadGen's own on this run, "VALID" or "INVALID"; server: on the trial that the samples are of.
        rate: camera: frames a second that arrive; server: queries a second at which the samples were taken, the highest
            rate that kept the bound; 0 where none did, and then the samples are of the longest trial.
        bound_ms: server: what the p99 of the latency may be.
        trials: server: every rate that was tried, in that order.
        offered: camera: frames that arrived.
        dropped: camera: of these, those that a newer one replaced before anybody looked at them.
    """

    generator: str
    frames_per_sample: int
    seconds: float
    verdict: str | None = None
    rate: float | None = None
    bound_ms: float | None = None
    trials: tuple[Trial, ...] | None = None
    offered: int | None = None
    dropped: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The outcome of one block.

    Attributes:
        facts: of the run.
        wall: nanoseconds, int64, of each sample, by stage; always with "total", from the call to its return. "latency"
            is from a query's arrival to its answer (server), "age" from a frame's arrival to its result (camera). All
            have the same length; a stage that a sample did not have is 0.
        device: likewise, by the device's events.
        at: nanoseconds from the start of the measured part to each sample's: to its call; server: to its arrival;
            camera: to its frame's moment. With the total, latency or age it gives the moment of the answer.
        span: seconds since the epoch of the first call and of the last answer, without what a load generator does
            before and after; server: of all trials; camera: from where frames count. `run_scenario` notes it.
    """

    facts: ScenarioFacts
    wall: dict[str, NDArray[np.int64]]
    device: dict[str, NDArray[np.int64]]
    at: NDArray[np.int64]
    span: tuple[float, float] = (0.0, 0.0)
