"""What a report says in sentences: of the machine, of what a row was judged by, of what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from gapcam_bench.block import Parity
from gapcam_bench.machine import GpuFacts, Machine
from gapcam_bench.reports.formats import a_second, milliseconds, seconds, size
from gapcam_bench.result import BenchResult, Cold, Row


def machine_lines(machine: Machine) -> tuple[str, ...]:
    """The machine and its software, a line for each part. What the system does not say is not in it."""
    environment = machine.environment
    host = [environment.cpu, f"{environment.cores} cores"]
    host += [size(machine.memory_bytes)] if machine.memory_bytes is not None else []
    system = [machine.distribution or environment.system]
    system += [environment.system] if machine.distribution else []
    system += [f"in a container ({machine.container})"] if machine.container else []
    versions = [
        f"Python {environment.python}",
        *(f"{name} {version}" for name, version in environment.versions.items()),
    ]
    for name, version in (("driver", machine.driver), ("CUDA", machine.cuda), ("TensorRT", machine.tensorrt)):
        versions += [f"{name} {version}"] if version else []
    return (
        ", ".join(host),
        *(_jetson(machine)),
        *(_gpu(gpu) for gpu in machine.gpus),
        *(_clocks(machine)),
        ", ".join(system),
        ", ".join(versions),
    )


def run_line(result: BenchResult) -> str:
    """When it was run, how often, and whether all of it was."""
    rounds = f"{result.rounds} round{'' if result.rounds == 1 else 's'} of each row, each in a fresh process"
    return f"{result.created}, {rounds}{'' if result.complete else '; NOT COMPLETE'}"


def status_word(row: Row) -> str:
    """As tables show it: in capitals what is not valid."""
    return row.status if row.status == "valid" else row.status.upper()


def scenario_words(row: Row) -> str:
    """What the row's scenario is judged by, in a sentence; "" for a row without."""
    made = row.scenario
    if made is None:
        return ""
    value = milliseconds(made.value) if made.unit == "ms" else a_second(made.value)
    said = f"{made.metric}: {value} {made.unit}"
    if made.early_stopping is not None:
        said += f" (at most {milliseconds(made.early_stopping)} {made.unit}, at 99 % confidence)"
    if made.rate is not None:
        said += f"; frames arrive at {a_second(made.rate)}/s" if made.offered is not None else ""
    if made.bound_ms is not None:
        said += f"; the p99 may be {milliseconds(made.bound_ms)} ms"
    if made.offered is not None and made.dropped is not None:
        said += f"; {made.dropped} of {made.offered} frames dropped"
    return f"{said}; load by {made.generator}"


def cold_words(cold: Cold) -> str:
    """What a program pays before its first answer, in a sentence."""
    said = [
        f"import {seconds(cold.import_s.median)}",
        f"load {seconds(cold.load_s.median)}",
        f"first result {seconds(cold.first_result_s.median)}",
    ]
    said += [f"engine build {seconds(cold.build_s)}"] if cold.build_s is not None else []
    said += [f"host memory {size(cold.host_peak_bytes)}"] if cold.host_peak_bytes is not None else []
    said += [f"device memory {size(cold.device_peak_bytes)}"] if cold.device_peak_bytes is not None else []
    return ", ".join(said)


def remarks(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """What a reader must know of single rows: sentences, each after the numbers of the rows that it is about."""
    said: dict[str, list[str]] = {}

    def say(number: int, sentence: str) -> None:
        said.setdefault(sentence, []).append(str(number))

    measured = {row.energy.channels for row in rows if row.energy is not None}
    for number, row in enumerate(rows, 1):
        if row.status != "valid":
            say(number, f"{status_word(row)}: {'; '.join(row.reasons) or 'no reason is given'}")
        if row.parity is not None and not row.parity.holds:
            say(
                number,
                f"answers DIFFER from the reference backend's: {logits_words(row.parity)}{_maps_differ(row)}",
            )
        if row.fidelity is not None and not row.fidelity.holds:
            say(
                number,
                f"answers are not those of {row.fidelity.against}: {logits_words(row.fidelity)}",
            )
        if row.wall and row.parity is None:
            say(number, "UNCHECKED: answers were not compared with the reference backend's")
        if row.price is not None and row.price.doubts:
            say(number, f"the map's price is not to be relied on: {' and '.join(row.price.doubts)}")
        if row.energy is not None and len(measured) > 1:
            say(
                number,
                f"mJ/frame is the energy of {', '.join(row.energy.channels)}; other rows' is that of other channels",
            )
        for note in row.notes:
            say(number, note)
    return tuple((", ".join(numbers), sentence) for sentence, numbers in said.items())


def logits_words(found: Parity) -> str:
    """How far logits are from the reference's, and may be."""
    if not found.finite:
        return "its logits, or the reference's, are not finite"
    return f"logits differ by {found.logits_error:.3g}, may by {found.tolerance:.3g}"


def _maps_differ(row: Row) -> str:
    """What is known of the maps of a row whose answers differ."""
    if row.cell.emit == "plain" or row.parity is None:
        return ""
    if row.parity.map_correlation is None:
        return "; no map was compared"
    error = row.parity.map_error
    apart = "" if error is None else f" and differ by {error:.3g}, root mean square"
    if error is not None and error > 1e300:
        apart = ", and are not finite, or the reference's is zero"
    return f"; maps correlate by {row.parity.map_correlation:.4g}{apart}"


def _jetson(machine: Machine) -> tuple[str, ...]:
    jetson = machine.jetson
    if jetson is None:
        return ()
    said = [jetson.model]
    said += [f"JetPack {jetson.jetpack}"] if jetson.jetpack else []
    said += [f"L4T {jetson.l4t}"] if jetson.l4t else []
    said += [f"power mode {jetson.power_mode}"] if jetson.power_mode else []
    said += [_locked(jetson.jetson_clocks)] if jetson.jetson_clocks is not None else []
    return (", ".join(said),)


def _gpu(gpu: GpuFacts) -> str:
    said = [gpu.name]
    said += [size(gpu.memory_bytes)] if gpu.memory_bytes is not None else []
    said += [f"compute capability {gpu.capability}"] if gpu.capability else []
    said += [f"{name} clock {value:.0f} MHz" for name, value in (gpu.clocks_mhz or {}).items()]
    said += [f"power limit {gpu.power_limit_w:.0f} W"] if gpu.power_limit_w is not None else []
    said += [_locked(gpu.locked)] if gpu.locked is not None else []
    return ", ".join(said)


def _clocks(machine: Machine) -> tuple[str, ...]:
    clocks = machine.cpu
    said = [f"governor {clocks.governor}"] if clocks.governor else []
    for what, extent in (("now", clocks.now_mhz), ("allowed", clocks.range_mhz)):
        said += [f"processor clocks {what} {extent[0]:.0f} to {extent[1]:.0f} MHz"] if extent else []
    said += [_locked(clocks.locked)] if clocks.locked is not None else []
    said += [f"boost {'on' if clocks.boost else 'off'}"] if clocks.boost is not None else []
    return (", ".join(said),) if said else ()


def _locked(locked: bool) -> str:
    return "clocks locked" if locked else "clocks not locked"
