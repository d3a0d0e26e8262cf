"""Whose energy a row's is: that of the device that did its work, with that of the processor, which feeds every device.

A card that did not do the work is left out; where the energy of what did it cannot be read, there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gapcam_bench.result import Energy
from gapcam_bench.telemetry.energy import energy_gaps, energy_of
from gapcam_bench.telemetry.jetson_sysfs import WHOLE
from gapcam_bench.telemetry.rapl import PSYS
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series, Span

_PROCESSOR = "cpu"
_BOARD = tuple(f"jetson/{rail}" for rail in (*WHOLE, "VDD_MUX"))
_ENERGIES = ("power", "energy")


def energy_of_row(
    series: Series, spans: Sequence[Span], frames: int, idle: Sequence[Span] = (), *, device: str
) -> Energy | None:
    """As `energy_of`, of the channels that a row on that device has to do with.

    Args:
        series: telemetry.
        spans: of the row's blocks.
        frames: that were answered in them.
        idle: spans of the same series when nothing ran.
        device: of the row's cell, such as "cpu" or "tensorrt:1".

    Returns:
        None where no channel was read that contains what did the work.
    """
    found = energy_of(_without_other_cards(series, device), spans, frames, idle)
    if found is None or not _any_contains(series, found.channels, device):
        return None
    return found


def notes_on_energy(series: Series, spans: Sequence[Span], *, device: str) -> Iterator[str]:
    """What a reader should know of a row's energy: what is not in it, or why there is none. A sentence each.

    Where the machine shows no power at all, nothing is said of a single row.

    Args:
        series: telemetry.
        spans: of the row's blocks.
        device: of the row's cell.
    """
    seen = _without_other_cards(series, device)
    gaps = energy_gaps(seen, spans)
    yield from gaps
    if gaps or not any(channel.quantity in _ENERGIES for channel in series.channels):
        return
    found = energy_of(seen, spans, frames=1)
    names = () if found is None else found.channels
    if not _any_contains(series, names, device):
        whose = "the processor's" if device == _PROCESSOR else "the GPU's"
        yield f"no energy: {whose} cannot be read{_why(series, device)}"
    elif not _any_contains(series, names, _PROCESSOR):
        why = _why(series, _PROCESSOR)
        yield f"energy is of {', '.join(names)} alone; the processor's cannot be read{why}"


def _without_other_cards(series: Series, device: str) -> Series:
    """The same without the GPUs that are not the device."""
    number = _number(device)
    return replace(series, channels=tuple(one for one in series.channels if one.gpu in (None, number)))


def _number(device: str) -> int | None:
    """CUDA's, of a device; None for the processor."""
    kind, _, number = device.partition(":")
    return None if kind == _PROCESSOR else int(number or 0)


def _any_contains(series: Series, names: Sequence[str], device: str) -> bool:
    """Whether one of these channels contains the energy of a device."""
    channels = [channel for channel in series.channels if channel.name in names and channel.quantity in _ENERGIES]
    if _number(device) is None:
        return any(_contains_processor(channel) for channel in channels)
    within = {one.part_of for one in series.channels if one.gpu == _number(device)}
    return any(one.gpu == _number(device) or one.name in within or _is_board(one, "GPU") for one in channels)


def _contains_processor(channel: Channel) -> bool:
    """RAPL's platform and packages (not a part of one), and rails of a board."""
    if channel.source == "rapl":
        return channel.name == PSYS or (channel.name.startswith("rapl/package") and channel.name.count("/") == 1)
    return _is_board(channel, "CPU")


def _is_board(channel: Channel, part: str) -> bool:
    """Whether it is a rail of a whole board, or of a part of it that its name tells."""
    return channel.name in _BOARD or (channel.name.startswith("jetson/") and part in channel.name)


def _why(series: Series, device: str) -> str:
    sources = ("rapl", "jetson/", "jetson-stats") if device == _PROCESSOR else ("nvml", "jetson/", "jetson-stats")
    found = [
        f"{name}: {why}" for name, why in series.lacking.items() if name.startswith(sources) and "/gpu " not in name
    ]
    return f" ({found[0]})" if found else ""
