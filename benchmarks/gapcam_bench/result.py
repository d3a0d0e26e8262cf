"""The outcome of a benchmark as it is written: RESULT.json, with the raw samples in RESULT.npz beside it.

Every figure in the JSON is computed from the arrays in the .npz (`gapcam_bench.rows.row_again` does it again). Their
names, where ROW is a row's `id`:

| name                      | dtype   | what                                                                         |
| ------------------------- | ------- | ---------------------------------------------------------------------------- |
| `ROW/wall/STAGE`          | int64   | nanoseconds by the host's clock, one a sample; `total`, `latency`, `age` too |
| `ROW/device/STAGE`        | int64   | likewise, by the device's events                                             |
| `ROW/at`                  | int64   | nanoseconds from the start of the sample's block to its own                  |
| `ROW/block`               | int32   | the round of the block (a process of its own) that each sample is of         |
| `ROW/span`                | float64 | [blocks, 2]: seconds since the epoch from and to which each was measured     |
| `ROW/yardstick`           | int64   | nanoseconds of a fixed piece of work, before each block loaded its subject   |
| `ROW/yardstick_block`     | int32   | the round of the block that each of these is of                              |
| `ROW/yardstick_after`     | int64   | likewise, after each block was measured; with `ROW/yardstick_after_block`    |
| `ROW/blocks/FACT`         | float64 | one a block, NaN for what it has not: see `BLOCK_FACTS`                      |
| `ROW/trials/FACT`         | float64 | server: one a rate that was tried: see `TRIAL_FACTS`                         |
| `telemetry/time`          | float64 | seconds since the epoch                                                      |
| `telemetry/value/CHANNEL` | float64 | in the channel's unit, NaN where it could not be read                        |
| `telemetry/idle`          | float64 | [n, 2]: seconds since the epoch from and to which nothing ran; may be absent |

Blocks of the same round were measured one after another, those of all rows in turn. What is no stage is in `BESIDES`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from gapcam_bench.block import ModelFacts, Parity, ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.machine import Machine
from gapcam_bench.scenarios.measured import Trial
from gapcam_bench.statistics.figures import Figures
from gapcam_bench.telemetry.reading import Channel

SCHEMA = "gapcam-bench"
VERSION: Final = 1

AtLeast0: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
AtLeast1: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Status: TypeAlias = Literal["valid", "invalid", "failed", "skipped", "interrupted"]

BESIDES = ("total", "latency", "age", "unexplained")
"""Keys of `Row.wall` that are no stages: the whole call, what came before it and the call, and the total without its
stages, which is computed of the others and has no array.
"""

BLOCK_FACTS = (
    "round",
    "seconds",
    "import_s",
    "load_s",
    "first_result_s",
    "host_peak_bytes",
    "device_peak_bytes",
    "warm_up_s",
    "warm_up_samples",
    "warm_up_stable",
    "rate",
    "bound_ms",
    "offered",
    "dropped",
    "verdict",
)
"""What there is of each block: see `gapcam_bench.block` and `gapcam_bench.scenarios.measured.ScenarioFacts`. LoadGen's
verdict is 1 for VALID, 0 for INVALID.
"""

TRIAL_FACTS = ("round", "rate", "p99_ms", "queries", "kept", "certified")
"""What there is of each rate that the server scenario tried: the block's round, and a `Trial`'s fields."""


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """The file of raw samples.

    Attributes:
        file: its name, in the folder of the JSON.
        sha256: of it.
    """

    file: str
    sha256: str


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A cost that each block had once.

    Attributes:
        median: over the blocks.
        least: of them.
        greatest: of them.
    """

    median: float
    least: float
    greatest: float


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """What a program pays before its first answer: see `gapcam_bench.block.ColdCosts`.

    Attributes:
        import_s: seconds.
        load_s: seconds.
        first_result_s: seconds.
        build_s: of an engine, where one was built for this row; None elsewhere.
        host_peak_bytes: the greatest of all blocks.
        device_peak_bytes: likewise.
    """

    import_s: Spread
    load_s: Spread
    first_result_s: Spread
    build_s: float | None = None
    host_peak_bytes: AtLeast0 | None = None
    device_peak_bytes: AtLeast0 | None = None


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What the map costs: this row's time over that of the `plain` row that is like it in everything else.

    See `gapcam_bench.price`.

    Attributes:
        plain: id of that row.
        inference: ratio of the medians of inference, cam and device-to-host together, to the plain row's inference;
            round by round.
        inference_ci: its confidence interval at 95 %.
        total: the same of the totals: of the whole frame, with all that is drawn.
        total_ci: its confidence interval at 95 %.
        between_processes: whether the intervals know how processes differ; not with fewer than three rounds.
        doubts: why the ratio of inferences should not be relied on, a phrase each; empty where it may be.
    """

    plain: str
    inference: float
    inference_ci: tuple[float, float]
    total: float
    total_ci: tuple[float, float]
    between_processes: bool
    doubts: tuple[str, ...] = ()


class ChannelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A telemetry channel while one row was measured, in its unit; of one that counts: what it rose by, in `rise`.

    Attributes:
        mean: over the time.
        least: of all readings.
        greatest: of all readings.
        rise: over all blocks; None for a channel that does not count.
        readings: how many.
    """

    mean: float | None
    least: float | None
    greatest: float | None
    rise: float | None
    readings: AtLeast1


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """What a frame costs.

    Attributes:
        millijoules_a_frame: of all `channels` together.
        above_idle: the same without what the machine took before anything ran; None where that was not measured.
        channels: that it is the sum of.
        watts: on average.
        frames: that it is shared among.
    """

    millijoules_a_frame: float
    above_idle: float | None
    channels: tuple[str, ...]
    watts: float
    frames: AtLeast1


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What the row's scenario is judged by. A field that it does not have is None.

    Attributes:
        metric: what MLPerf reports: "p90 of the latency", "p99 of the latency", "frames a second", "queries a second".
        value: of the metric.
        unit: "ms" or "1/s".
        early_stopping: the metric's estimate with MLPerf's early stopping, an upper bound at 99 % confidence; None
            where there are too few samples, or the metric is no percentile.
        generator: of the load.
        frames_per_sample: pictures of one sample; a row's figures are of whole samples.
        frames_a_second: that were answered; the median of the blocks.
        rate: camera: frames a second that arrive; server: the highest rate that kept the bound; the median of the
            blocks.
        bound_ms: server: what the p99 of the latency may be; the median of the blocks.
        trials: server: every rate that was tried, of all blocks.
        offered: camera: frames that arrived, of all blocks.
        dropped: camera: of these, those that a newer one replaced before anybody looked at them.
    """

    metric: str
    value: float
    unit: str
    early_stopping: float | None
    generator: str
    frames_per_sample: AtLeast1
    frames_a_second: float
    rate: float | None = None
    bound_ms: float | None = None
    trials: tuple[Trial, ...] | None = None
    offered: AtLeast0 | None = None
    dropped: AtLeast0 | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One cell. Of a row that was skipped, or failed before its first block, only the first five fields are there.

    Attributes:
        id: of the cell; the arrays' prefix.
        cell: the combination.
        status: "valid", "invalid" (measured, and too noisy or too short: see `reasons`), "failed", "skipped" (this
            combination does not work here) or "interrupted" (fewer rounds than asked for).
        reasons: for any status but "valid", a sentence each.
        notes: what else a reader should know.
        blocks: that were measured.
        model: that was loaded.
        pictures: SHA-256 of the pictures that were shown; None in results of before it was noted.
        engine: that ran it.
        providers: nodes by the execution provider that really ran them.
        wall: figures by stage; "unexplained" is the total without its stages.
        device: likewise, of the stages that a device's events measured.
        scenario: what it is judged by.
        price: of the map; None for `plain` rows, and where there is none to compare with.
        cold: costs.
        yardstick: of the fixed piece of work, before each block.
        energy: a frame; None where no power can be read.
        telemetry: by channel.
        parity: with the reference backend; None where this row was not checked.
        fidelity: to the reference model, or, of a precision that was made, to the model that it was made of.
    """

    id: str
    cell: Cell
    status: Status
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    blocks: AtLeast0 = 0
    model: ModelFacts | None = None
    pictures: str | None = None
    engine: str | None = None
    providers: dict[str, int] | None = None
    wall: dict[str, Figures] = {}
    device: dict[str, Figures] = {}
    scenario: Scenario | None = None
    price: Price | None = None
    cold: Cold | None = None
    yardstick: Figures | None = None
    energy: Energy | None = None
    telemetry: dict[str, ChannelFigures] = {}
    parity: Parity | None = None
    fidelity: Parity | None = None


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run of `gapcam bench`.

    Attributes:
        schema: "gapcam-bench".
        version: of the schema. A reader refuses another one.
        created: when the run began, ISO 8601 in UTC.
        command: what was run, without paths outside the working folder.
        complete: whether every row has all its rounds.
        rounds: of each row that were asked for.
        limits: that were asked for.
        settings: of the scenarios.
        machine: that it ran on.
        channels: of the telemetry.
        lacking: what could not be read or measured, and why, by name.
        samples: the raw ones; None where they were not kept.
        rows: in the order of the plan.
    """

    schema: Literal["gapcam-bench"] = "gapcam-bench"
    version: Literal[1] = VERSION
    created: str
    command: str
    complete: bool
    rounds: AtLeast0
    limits: Limits
    settings: ScenarioSettings
    machine: Machine
    channels: tuple[Channel, ...] = ()
    lacking: dict[str, str] = {}
    samples: Samples | None = None
    rows: tuple[Row, ...] = ()
