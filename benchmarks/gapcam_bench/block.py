"""What one fresh process found out about one cell, as two files: arrays in block.npz, and the rest in block.json."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts


class ScenarioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of the scenarios.

    Attributes:
        streams: multi-stream: pictures of one query; MLPerf has 8.
        bound_ms: server: what the p99 of the latency may be; None for four times the median of single queries.
        fps: camera: frames a second.
        rate: server: where the search begins, which an earlier block found; None for the machine's own guess.
        generator: "auto" for MLPerf's load generator where it is installed, "own", or "mlcommons".
        seed: of everything random.
    """

    streams: int = 8
    bound_ms: float | None = None
    fps: float = 15.0
    rate: float | None = None
    generator: str = "auto"
    seed: int = 0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a fresh process is to measure.

    Attributes:
        cell: the combination.
        file: the model that is loaded: the cell's own, or what was made of it (outputs taken away, precision, engine).
        reference: the model that answers are compared with, on the reference backend; None for no check.
        images: a folder of photographs; None for the installed ones.
        limits: how long.
        settings: of the scenario.
        round: the how manieth process of this cell, from 0.
    """

    cell: Cell
    file: str
    reference: str | None = None
    images: str | None = None
    limits: Limits = Limits()
    settings: ScenarioSettings = ScenarioSettings()
    round: int = 0


class ColdCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What a program pays before its first answer.

    Attributes:
        import_s: of gapcam and the engine's library, in a process that had imported neither.
        load_s: from the model's file to a session that was checked.
        first_result_s: the first answer.
        host_peak_bytes: the process's largest resident memory (VmHWM); None where the system does not say.
        device_peak_bytes: device memory that the process took; None where there is no device, or it does not say.
    """

    import_s: float
    load_s: float
    first_result_s: float
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None


class WarmUp(msgspec.Struct, frozen=True, kw_only=True):
    """What came before measuring.

    Attributes:
        seconds: it took.
        samples: that were thrown away.
        stable: whether it ended because the medians stood still, not because the time was over.
    """

    seconds: float
    samples: int
    stable: bool


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How alike the answers of a subject and of the reference are, on the same photographs.

    The reference is the same file on ONNX Runtime's CPU provider ("parity"), and the model that was named with
    --reference, or else the float32 model that the file was made of for the row's precision ("fidelity").

    Attributes:
        against: name of the reference's file; of one that was made of the user's model, that model's.
        pictures: that were compared.
        top1: share of pictures with the same best class, in [0, 1].
        logits_error: the greatest difference of a logit, in units of the greatest logit; the greatest float64 where a
            logit of either is NaN or infinity, which JSON does not have.
        map_correlation: the least Pearson correlation of two maps of the same class; None without maps.
        map_error: the greatest difference of such maps, root mean square, in units of the reference map's own; None
            without maps, and for a peer, whose library may scale a map as it likes.
        holds: whether the backend computes the same model: within the tolerance of the model's precision.
        tolerance: of `logits_error`.
    """

    against: str
    pictures: int
    top1: float
    logits_error: float
    map_correlation: float | None
    holds: bool
    tolerance: float
    map_error: float | None = None

    @property
    def finite(self) -> bool:
        """Whether the logits of both were numbers. Others are more than 1e300 apart, which no two of float32 can be."""
        return self.logits_error < 1e300


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The model as the file and the engine say.

    Attributes:
        name: of the model that the user gave, as rows call it.
        sha256: of the file that was loaded: the user's, or what was made of it (outputs, precision, engine).
        precision: as read from the model's metadata or the engine: "fp32", "fp16", "bf16", "int8"; None without.
        precision_source: where that was read.
        input_size: (H, W) of the network's input.
        head: the contract's kind of head; None for a model without a contract, which is measured as a plain classifier.
        source_sha256: of the file that the user gave; None in results of before this was written.
    """

    name: str
    sha256: str
    precision: str | None
    precision_source: str
    input_size: tuple[int, int]
    head: str | None
    source_sha256: str | None = None


class BlockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All but the arrays.

    Attributes:
        key: of the cell.
        round: of the request.
        began_at: of the measured part, seconds since the epoch: what telemetry is cut out by.
        ended_at: likewise.
        model: what was loaded.
        engine: what ran it.
        providers: how many nodes each execution provider of ONNX Runtime really ran; None where it does not say.
        cold: costs.
        warm_up: before.
        facts: of the scenario.
        parity: against the same model on the reference backend; None where it was not checked.
        fidelity: against the reference model; None where none was named.
        pictures: SHA-256 of the pictures that were shown, as JPEG and as frames.
        notes: what a reader should know, a sentence each: "has no contract: measured as a plain classifier".
    """

    key: str
    round: int
    began_at: float
    ended_at: float
    model: ModelFacts
    engine: str
    providers: dict[str, int] | None
    cold: ColdCosts
    warm_up: WarmUp
    facts: ScenarioFacts
    parity: Parity | None = None
    fidelity: Parity | None = None
    pictures: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One process's findings.

    Attributes:
        facts: all but the arrays.
        measured: the samples.
        yardstick: nanoseconds of a fixed piece of work before anything was loaded: how fast the machine was just then.
        yardstick_after: likewise, after measuring; the subject is still there.
    """

    facts: BlockFacts
    measured: Measured
    yardstick: NDArray[np.int64]
    yardstick_after: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
