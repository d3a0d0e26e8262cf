"""NVIDIA's management library (NVML): power, energy, temperature, clocks, utilisation, throttling, memory of its GPUs.

It comes with the desktop driver and with JetPack 7; `nvidia-ml-py` (the module `pynvml`) calls it. What a GPU does not
support, as most of it on a Jetson, is lacking field by field. Source: NVML API Reference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import msgspec

from gapcam.doctor.native import ask
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader, Quantity

CLOCKS = {"graphics": 0, "sm": 1, "memory": 2}
"""NVML's clock domains, by number."""

POWER_CAP = "throttle: power cap"
"""How the name of the channel ends that says whether a GPU runs at its power limit."""

THROTTLE_REASONS = {
    "power cap": 0x04,
    "hardware slowdown": 0x08,
    "thermal slowdown": 0x20,
    "hardware thermal slowdown": 0x40,
    "power brake": 0x80,
}
"""nvmlClocksEventReason...: those that hold back a GPU that has work to do. Not among them: idle, and what somebody set
(application clocks, sync boost, a display's clock)."""

_MISSING = "nvidia-ml-py is not installed: pip install 'gapcam[bench]'"
_SAME_MOMENT_S = 0.005
_DRIVER_TIMEOUT_S = 30.0
T = TypeVar("T")


class NvmlGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as NVML describes it; None for what it does not say.

    Attributes:
        index: NVML's, over all GPUs of the machine.
        name: such as "NVIDIA H100 80GB HBM3".
        driver: the driver's version.
        capability: compute capability, such as "9.0".
        memory_bytes: of it.
        clocks_mhz: now, by domain.
        most_clocks_mhz: the highest.
        power_limit_w: that is enforced.
        temperature_c: of the chip.
    """

    index: int
    name: str | None = None
    driver: str | None = None
    capability: str | None = None
    memory_bytes: int | None = None
    clocks_mhz: dict[str, int] | None = None
    most_clocks_mhz: dict[str, int] | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None


def nvml(inside: str | None = None) -> GaugeReader:
    """The GPUs that CUDA programs see.

    Args:
        inside: the channel that contains a GPU's power: a Jetson's rail; None for cards, which stand for themselves.
    """
    try:
        library = _opened()
    except NoNvmlError as error:
        return GaugeReader([], {"nvml": str(error)})
    lacking: dict[str, str] = {}
    gauges = [gauge for card in _visible(library, lacking) for gauge in _gauges(library, card, inside, lacking)]
    if not gauges:
        lacking.setdefault("nvml", "it shows no GPU")
    return GaugeReader(gauges, lacking, close=library.nvmlShutdown)


def nvml_gpus() -> tuple[NvmlGpu, ...]:
    """The GPUs that CUDA programs see, in CUDA's order; none where there is no NVML, or it cannot tell which."""
    try:
        library = _opened()
    except NoNvmlError:
        return ()
    try:
        return tuple(_described(library, card.place, card.handle) for card in _visible(library, {}))
    finally:
        library.nvmlShutdown()


def nvml_driver() -> str | None:
    """The version of NVIDIA's driver; None where there is no NVML."""
    try:
        library = _opened()
    except NoNvmlError:
        return None
    try:
        return _asked(library, library.nvmlSystemGetDriverVersion)
    finally:
        library.nvmlShutdown()


class NoNvmlError(Exception):
    """NVML cannot be used here; the message says why."""


def _opened() -> ModuleType:
    try:
        import pynvml
    except ModuleNotFoundError as error:
        raise NoNvmlError(_MISSING) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoNvmlError(f"NVML: {error}") from error
    library: ModuleType = pynvml
    return library


class _Card(NamedTuple):
    number: int  # CUDA's
    place: int  # NVML's number
    handle: Any
    uuid: str
    name: str | None


def _visible(library: ModuleType, lacking: dict[str, str]) -> list[_Card]:
    """Those that CUDA programs see, by CUDA's numbers; what cannot be told is said in `lacking`.

    CUDA numbers what CUDA_VISIBLE_DEVICES lets through, the fastest first, and NVML all by their place on the bus:
    where there are several, CUDA's driver is asked which are which, in a process of its own.
    """
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None and "MIG-" in wanted:
        lacking["nvml"] = "CUDA_VISIBLE_DEVICES names a part of a GPU (MIG): what one part takes is not measured"
        return []
    cards = list(_cards(library))
    if len(cards) > 1 and wanted not in ("", "-1"):
        uuids = [str(uuid) for uuid in _list(ask("driver", timeout_s=_DRIVER_TIMEOUT_S).values.get("uuids"))]
        if uuids and all(uuids):
            return list(_matched(cards, uuids, lacking))
    found = list(_listed(cards, wanted, lacking))
    whole = []
    for card in found:
        if (_asked(library, library.nvmlDeviceGetMigMode, card.handle) or [0])[0]:
            lacking[f"nvml{card.place}"] = "it is divided (MIG): what one part takes is not measured"
        else:
            whole.append(card)
    return whole


def _cards(library: ModuleType) -> Iterator[_Card]:
    """All of the machine, by NVML's numbers."""
    for index in range(_asked(library, library.nvmlDeviceGetCount) or 0):
        handle = _asked(library, library.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            uuid = _asked(library, library.nvmlDeviceGetUUID, handle) or ""
            yield _Card(index, index, handle, uuid, _asked(library, library.nvmlDeviceGetName, handle))


def _matched(cards: Sequence[_Card], uuids: Sequence[str], lacking: dict[str, str]) -> Iterator[_Card]:
    by_uuid = {card.uuid: card for card in cards}
    for number, uuid in enumerate(uuids):
        if uuid in by_uuid:
            yield by_uuid[uuid]._replace(number=number)
        else:
            lacking[f"nvml of cuda:{number}"] = "it is none of NVML's GPUs: a part of one (MIG), perhaps"


def _listed(cards: Sequence[_Card], wanted: str | None, lacking: dict[str, str]) -> Iterator[_Card]:
    """By what CUDA_VISIBLE_DEVICES says alone. CUDA sees none from the first entry on that is no GPU."""
    alike = len({card.name for card in cards}) < 2 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    entries = [str(card.place) for card in cards] if wanted is None else [one.strip() for one in wanted.split(",")]
    for number, entry in enumerate(entries):
        card = next((card for card in cards if _names(entry, card)), None)
        if card is None:
            return
        if entry.isdecimal() and not alike:
            lacking["nvml"] = (
                "the GPUs differ, and which of them is CUDA's first cannot be told: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
            return
        yield card._replace(number=number)


def _names(wanted: str, card: _Card) -> bool:
    """A number is whole; a UUID may be cut short."""
    return wanted == str(card.place) or (wanted.startswith("GPU-") and card.uuid.startswith(wanted))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _gauges(library: ModuleType, card: _Card, inside: str | None, lacking: dict[str, str]) -> Iterator[Gauge]:
    handle, prefix = card.handle, f"nvml{card.place}"
    energy = f"{prefix}/energy"

    def gauge(
        name: str, quantity: Quantity, read: Callable[[], float], *, counts: bool = False, part_of: str | None = None
    ) -> Iterator[Gauge]:
        try:
            read()
        except library.NVMLError as error:
            lacking[f"{prefix}/{name}"] = str(error)
            return
        channel = Channel(
            name=f"{prefix}/{name}", quantity=quantity, source="nvml", counts=counts, part_of=part_of, gpu=card.number
        )
        yield Gauge(channel, lambda: _asked(library, read))

    counters = list(
        gauge(
            "energy",
            "energy",
            lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
            counts=True,
            part_of=inside,
        )
    )
    yield from counters
    # The same joules: the power is only counted where the counter cannot be.
    yield from gauge(
        "power",
        "power",
        lambda: library.nvmlDeviceGetPowerUsage(handle) / 1000,
        part_of=energy if counters else inside,
    )
    yield from gauge("temperature", "temperature", lambda: float(_temperature(library, handle)))
    for domain, number in CLOCKS.items():
        yield from gauge(f"{domain} clock", "clock", partial(_clock, library, handle, number))
    yield from gauge("utilisation", "utilisation", lambda: float(library.nvmlDeviceGetUtilizationRates(handle).gpu))
    reasons = _once_a_moment(lambda: _reasons(library, handle))
    for name, bit in THROTTLE_REASONS.items():
        yield from gauge(f"throttle: {name}", "throttle", _bit_of(reasons, bit))
    yield from gauge("memory", "memory", lambda: float(library.nvmlDeviceGetMemoryInfo(handle).used))


def _clock(library: ModuleType, handle: Any, domain: int) -> float:
    return float(library.nvmlDeviceGetClockInfo(handle, domain))


def _bit_of(reasons: Callable[[], int], bit: int) -> Callable[[], float]:
    return lambda: float(bool(reasons() & bit))


def _reasons(library: ModuleType, handle: Any) -> int:
    """What holds the clocks down, as bits. Older drivers have the older name only."""
    try:
        return int(library.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except library.NVMLError_FunctionNotFound:
        return int(library.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _temperature(library: ModuleType, handle: Any) -> int:
    """Degrees Celsius; CUDA 14 is to drop the older function."""
    try:
        return int(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
    except library.NVMLError_FunctionNotFound:
        return int(library.nvmlDeviceGetTemperatureV(handle, library.NVML_TEMPERATURE_GPU))


def _once_a_moment(ask: Callable[[], T]) -> Callable[[], T]:
    """One call for channels that are read together."""
    kept: list[tuple[float, T]] = []

    def read() -> T:
        now = time.monotonic()
        if not kept or now - kept[0][0] > _SAME_MOMENT_S:
            kept[:] = [(now, ask())]
        return kept[0][1]

    return read


def _described(library: ModuleType, index: int, handle: Any) -> NvmlGpu:
    def ask(function: Callable[..., T], *arguments: Any) -> T | None:
        return _asked(library, function, handle, *arguments)

    def clocks(function: Callable[..., int]) -> dict[str, int] | None:
        found = {name: ask(function, number) for name, number in CLOCKS.items()}
        return {name: clock for name, clock in found.items() if clock is not None} or None

    capability, memory = ask(library.nvmlDeviceGetCudaComputeCapability), ask(library.nvmlDeviceGetMemoryInfo)
    limit = ask(library.nvmlDeviceGetEnforcedPowerLimit)
    return NvmlGpu(
        index=index,
        name=ask(library.nvmlDeviceGetName),
        driver=_asked(library, library.nvmlSystemGetDriverVersion),
        capability=None if capability is None else ".".join(map(str, capability)),
        memory_bytes=None if memory is None else int(memory.total),
        clocks_mhz=clocks(library.nvmlDeviceGetClockInfo),
        most_clocks_mhz=clocks(library.nvmlDeviceGetMaxClockInfo),
        power_limit_w=None if limit is None else limit / 1000,
        temperature_c=_asked(library, _temperature, library, handle),
    )


def _asked(library: ModuleType, function: Callable[..., T], *arguments: Any) -> T | None:
    """What a function of NVML says; None where it refuses."""
    try:
        return function(*arguments)
    except library.NVMLError:
        return None
