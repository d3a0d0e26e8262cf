"""A row's arrays, from the blocks that its processes wrote, and the blocks' facts from the arrays again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam_bench.block import Block
from gapcam_bench.result import BLOCK_FACTS, TRIAL_FACTS
from gapcam_bench.scenarios.measured import ScenarioFacts, Trial
from gapcam_bench.subjects.protocol import STAGES
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series, Span

VERDICTS = {1.0: "VALID", 0.0: "INVALID"}
"""LoadGen's, as numbers."""

LATENCY = "latency"

_ORDER = (*STAGES, "total", "latency", "age")


def row_arrays(row: str, blocks: Sequence[Block]) -> dict[str, NDArray[Any]]:
    """The arrays of one row, by the names of `gapcam_bench.result`.

    Args:
        row: its id.
        blocks: at least one, each with at least one sample and a round of its own, in the order of the rounds.
    """
    rounds = np.array([block.facts.round for block in blocks], np.int32)
    arrays: dict[str, NDArray[Any]] = {
        **{f"wall/{stage}": values for stage, values in _joined(blocks, lambda block: block.measured.wall).items()},
        **{f"device/{stage}": values for stage, values in _joined(blocks, lambda block: block.measured.device).items()},
        "at": np.concatenate([block.measured.at for block in blocks]).astype(np.int64),
        "block": np.repeat(rounds, [len(block.measured.at) for block in blocks]),
        "span": np.array([(block.facts.began_at, block.facts.ended_at) for block in blocks], np.float64),
    }
    for name, of in (
        ("yardstick", [block.yardstick for block in blocks]),
        ("yardstick_after", [block.yardstick_after for block in blocks]),
    ):
        arrays |= {name: np.concatenate(of).astype(np.int64), f"{name}_block": np.repeat(rounds, [*map(len, of)])}
    facts = [_facts(block) for block in blocks]
    arrays |= {f"blocks/{name}": _numbers(each[name] for each in facts) for name in BLOCK_FACTS}
    trials = [(block.facts.round, trial) for block in blocks for trial in block.measured.facts.trials or ()]
    if trials:
        tried = [{"round": number, **msgspec.structs.asdict(trial)} for number, trial in trials]
        arrays |= {f"trials/{name}": _numbers(each[name] for each in tried) for name in TRIAL_FACTS}
    return {f"{row}/{name}": values for name, values in arrays.items()}


def untraced(blocks: Sequence[Block]) -> list[int]:
    """Rounds without a latency, where others have one: LoadGen writes down latencies of short enough runs only.

    Such a row has no latency at all, and is judged by the totals: LoadGen's contain its own calls, and the two together
    would be a mixture of both.
    """
    without = [block.facts.round for block in blocks if LATENCY not in block.measured.wall]
    return without if len(without) < len(blocks) else []


def stages_in(row: str, arrays: Mapping[str, NDArray[Any]], clock: str) -> dict[str, NDArray[np.int64]]:
    """Samples by stage, those of the data in its order first, by the clock "wall" or "device"."""
    prefix = f"{row}/{clock}/"
    found = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
    known = [stage for stage in _ORDER if stage in found]
    return {stage: found[stage] for stage in (*(stage for stage in found if stage not in known), *known)}


def block_indices(row: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """Of each sample, the how manieth of the row's blocks it is of, from 0."""
    return np.searchsorted(arrays[f"{row}/blocks/round"], arrays[f"{row}/block"]).astype(np.int32)


def scenario_facts(row: str, arrays: Mapping[str, NDArray[Any]], generator: str, frames: int) -> list[ScenarioFacts]:
    """What each block's scenario said, in the order of the blocks.

    Args:
        row: its id.
        arrays: with the row's.
        generator: of the load, which no array holds.
        frames: of one sample, likewise.
    """
    of = {name: arrays[f"{row}/blocks/{name}"] for name in BLOCK_FACTS}
    trials = {name: arrays.get(f"{row}/trials/{name}", np.empty(0)) for name in TRIAL_FACTS}
    facts = []
    for at, number in enumerate(of["round"]):
        mine = [
            Trial(
                rate=float(trials["rate"][nth]),
                p99_ms=float(trials["p99_ms"][nth]),
                queries=int(trials["queries"][nth]),
                kept=bool(trials["kept"][nth]),
                certified=bool(trials["certified"][nth]),
            )
            for nth in np.flatnonzero(trials["round"] == number)
        ]
        facts.append(
            ScenarioFacts(
                generator=generator,
                frames_per_sample=frames,
                seconds=float(of["seconds"][at]),
                verdict=VERDICTS.get(of["verdict"][at]),
                rate=_known(of["rate"][at]),
                bound_ms=_known(of["bound_ms"][at]),
                trials=tuple(mine) or None,
                offered=_whole(of["offered"][at]),
                dropped=_whole(of["dropped"][at]),
            )
        )
    return facts


def telemetry_arrays(series: Series, idle: Sequence[Span] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of the telemetry, which all rows share."""
    arrays: dict[str, NDArray[Any]] = {"telemetry/time": series.time}
    arrays |= {f"telemetry/value/{name}": values for name, values in series.values.items()}
    return arrays | ({"telemetry/idle": np.array(idle, np.float64)} if idle else {})


def telemetry_in(
    arrays: Mapping[str, NDArray[Any]], channels: Iterable[Channel]
) -> tuple[Series | None, tuple[Span, ...]]:
    """The telemetry of a result, and the spans in which nothing ran; None where there is none."""
    if "telemetry/time" not in arrays:
        return None, ()
    channels = tuple(channels)
    values = {channel.name: arrays[f"telemetry/value/{channel.name}"] for channel in channels}
    series = Series(time=arrays["telemetry/time"], values=values, channels=channels, lacking={})
    return series, spans_of(arrays.get("telemetry/idle", np.empty((0, 2))))


def spans_of(array: NDArray[np.float64]) -> tuple[Span, ...]:
    """As pairs of numbers."""
    return tuple((float(began), float(ended)) for began, ended in array)


def _joined(
    blocks: Sequence[Block], of: Callable[[Block], dict[str, NDArray[np.int64]]]
) -> dict[str, NDArray[np.int64]]:
    """Stage by stage, 0 for the samples of a block that did not have it; but see `untraced`."""
    stages = {stage: None for block in blocks for stage in of(block)}
    if untraced(blocks):
        stages.pop(LATENCY, None)
    return {
        stage: np.concatenate(
            [of(block).get(stage, np.zeros(len(block.measured.at), np.int64)) for block in blocks]
        ).astype(np.int64)
        for stage in stages
    }


def _facts(block: Block) -> dict[str, float | None]:
    cold, warm_up, scenario = block.facts.cold, block.facts.warm_up, block.measured.facts
    return {
        "round": block.facts.round,
        "seconds": scenario.seconds,
        "verdict": next((number for number, word in VERDICTS.items() if word == scenario.verdict), None),
        "import_s": cold.import_s,
        "load_s": cold.load_s,
        "first_result_s": cold.first_result_s,
        "host_peak_bytes": cold.host_peak_bytes,
        "device_peak_bytes": cold.device_peak_bytes,
        "warm_up_s": warm_up.seconds,
        "warm_up_samples": warm_up.samples,
        "warm_up_stable": warm_up.stable,
        "rate": scenario.rate,
        "bound_ms": scenario.bound_ms,
        "offered": scenario.offered,
        "dropped": scenario.dropped,
    }


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _whole(value: float) -> int | None:
    return None if np.isnan(value) else int(value)
