"""What one reader says at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

Quantity: TypeAlias = Literal["power", "energy", "temperature", "clock", "utilisation", "throttle", "memory"]

UNITS: dict[Quantity, str] = {
    "power": "W",
    "energy": "J",
    "temperature": "°C",
    "clock": "MHz",
    "utilisation": "%",
    "throttle": "events",
    "memory": "bytes",
}
"""Energy counts up, and throttles that are events do; the others are of the moment. A throttle that is a state is 0
where nothing is held back, and above 0 where something is."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be read again and again.

    Attributes:
        name: unique among all readers, such as "jetson/VDD_GPU_SOC", "cpu0/clock", "nvml0/power".
        quantity: what it is; the unit is that of `UNITS`.
        source: where it is read: "rapl", "ina3221", "nvml", "jetson-stats", "cpufreq", "thermal", "hwmon", "devfreq",
            "procfs".
        counts: whether it counts up, so that only differences say something.
        part_of: the channel that this one is contained in, such as the whole board's rail or the CPU package; None for
            one that stands for itself. Energy is summed over those that are part of nothing.
        wraps_at: of a counter that begins anew: the value, in its unit, at which it does; None for one that never does.
        gpu: CUDA's number of the GPU that it is of; None for what is of no single GPU.
    """

    name: str
    quantity: Quantity
    source: str
    counts: bool = False
    part_of: str | None = None
    wraps_at: float | None = None
    gpu: int | None = None


class Reader(Protocol):
    """Reads channels. What cannot be read (not there, not permitted) is not among them, and `lacking` says why."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What `read` gives, in this order."""

    @property
    def lacking(self) -> dict[str, str]:
        """What could not be read, and why, by name."""

    def read(self) -> tuple[float | None, ...]:
        """The values now; None for one that failed this time."""

    def close(self) -> None:
        """Give everything back."""


class Gauge(NamedTuple):
    """A channel with what reads it.

    Attributes:
        channel: what it is.
        read: its value now, in its unit; None where it cannot be read this time. It never raises.
    """

    channel: Channel
    read: Callable[[], float | None]


class GaugeReader:
    """The reader of some gauges.

    Args:
        gauges: in the order of the channels; of those of the same name the second is called "NAME (2)", and so on.
        lacking: what could not be read, and why.
        close: called once at the end.
    """

    def __init__(
        self, gauges: Sequence[Gauge], lacking: dict[str, str], *, close: Callable[[], None] = lambda: None
    ) -> None:
        self._gauges = tuple(_numbered(gauges))
        self._lacking = lacking
        self._close = close

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What `read` gives, in this order."""
        return tuple(gauge.channel for gauge in self._gauges)

    @property
    def lacking(self) -> dict[str, str]:
        """What could not be read, and why, by name."""
        return dict(self._lacking)

    def read(self) -> tuple[float | None, ...]:
        """The values now; None for one that failed this time."""
        return tuple(gauge.read() for gauge in self._gauges)

    def close(self) -> None:
        """Give everything back."""
        self._close()


def _numbered(gauges: Sequence[Gauge]) -> Iterator[Gauge]:
    seen: set[str] = set()
    for gauge in gauges:
        name, number = gauge.channel.name, 1
        while name in seen:
            number += 1
            name = f"{gauge.channel.name} ({number})"
        seen.add(name)
        yield gauge._replace(channel=msgspec.structs.replace(gauge.channel, name=name))
