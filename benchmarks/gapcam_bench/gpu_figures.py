"""The outcome of the GPU's benchmark: figures with their raw samples, the checks beside them, what was lacking."""

from __future__ import annotations

from typing import Literal

import msgspec

from gapcam.environment import Environment
from gapcam.latency import Latency
from gapcam_bench.gpu_environment import Gpu

NS_PER_US = 1e3


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A result compared with the NumPy reference in the same run.

    Attributes:
        what: the largest difference of what.
        found: that difference.
        allowed: what it may be.
        counted: elements that differ by more and were expected to: levels on a tie, which float32 may round the other
            way.
        counted_allowed: how many of them there may be.
    """

    what: str
    found: float
    allowed: float
    counted: int = 0
    counted_allowed: int = 0

    @property
    def holds(self) -> bool:
        """Whether the result is right."""
        return self.found <= self.allowed and self.counted <= self.counted_allowed


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One measured thing.

    Attributes:
        name: such as "overlay bgr 1080p".
        driver: the library that queued it, or the engine that ran it.
        how: "graph" or "stream" for the device's time of work in a row, "alone" for one run at a time, "wall" for the
            host's time from a frame to its result.
        in_a_row: runs that a sample is the mean of.
        samples_ns: raw, in nanoseconds, in their order.
        median_us: microseconds.
        p99_us: microseconds, by nearest rank.
        bytes_moved: read and written by one run at the least; None where that is not counted.
        gb_per_s: bytes moved in the median, 1e9 bytes a second.
        of_copy: that in units of the device copy's; None where bytes are not counted.
        checks: of what it computed.
    """

    name: str
    driver: str
    how: Literal["graph", "stream", "alone", "wall"]
    in_a_row: int
    samples_ns: list[int]
    median_us: float
    p99_us: float
    bytes_moved: int | None
    gb_per_s: float | None
    of_copy: float | None
    checks: list[Check]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What was hoped for.

    Attributes:
        what: such as "overlay bgr 1080p / device copy".
        measured: the figure.
        limit: what it should be at least, or at most.
        verdict: "PASS" or "MISS".
    """

    what: str
    measured: float
    limit: str
    verdict: Literal["PASS", "MISS"]


class GpuBench(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        gpu: what was measured.
        environment: the machine and its software.
        date: of the run, UTC.
        quick: whether fewer samples were taken than the targets are stated for.
        copy_gb_per_s: of a device copy of 128 MiB, reading and writing counted: the yardstick.
        figures: in the order in which they were measured.
        targets: those that could be measured here.
        lacking: what could not be measured, and why, by name.
    """

    gpu: Gpu
    environment: Environment
    date: str
    quick: bool
    copy_gb_per_s: float
    figures: list[Figures]
    targets: list[Target]
    lacking: dict[str, str]


def figures_of(
    name: str,
    latency: Latency,
    *,
    driver: str,
    how: Literal["graph", "stream", "alone", "wall"],
    in_a_row: int = 1,
    bytes_moved: int | None = None,
    copy_gb_per_s: float | None = None,
    checks: list[Check] | None = None,
) -> Figures:
    """Figures from raw samples."""
    seconds = latency.median_ms / 1e3
    rate = None if bytes_moved is None else bytes_moved / seconds / 1e9
    return Figures(
        name=name,
        driver=driver,
        how=how,
        in_a_row=in_a_row,
        samples_ns=[int(sample) for sample in latency.samples_ns],
        median_us=latency.median_ms * 1e3,
        p99_us=latency.p99_ms * 1e3,
        bytes_moved=bytes_moved,
        gb_per_s=rate,
        of_copy=None if rate is None or not copy_gb_per_s else rate / copy_gb_per_s,
        checks=checks or [],
    )
