"""Jetson's power rails, GPU and over-current events as its kernel shows them.

Power: INA3221 monitors on I2C, by hwmon (L4T 34 and newer: in*_label, in*_input in mV, curr*_input in mA; `in7`, the
sum of shunt voltages, is no rail) or by NVIDIA's older driver (L4T 32: iio, rail_name_*, in_power*_input in mW), and on
Thor's carrier board an INA238 (power1_input in uW) that sees its whole input. Sources: NVIDIA Jetson Linux Developer
Guide, "Platform Power and Performance", of 32.7, 35.6 and 36.4, which says what each rail supplies; the kernel's
tegra234-p3701.dtsi; for Thor's INA238 rbonghi/jetson_stats #900.

What contains what: VDD_IN and POM_5V_IN are the whole module; on AGX Orin three rails stand beside each other and
VIN_SYS_5V0 contains VDDQ_VDD2_1V8AO; AGX Xavier's six stand beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gapcam_bench.telemetry.kernel_file import in_order, number_of, read_number, read_text, why_not
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader

WHOLE = ("VIN", "VDD_IN", "POM_5V_IN")
"""Rails that contain the module's others; VIN contains the carrier board, too."""

_PART_OF = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
_BESIDE = (
    "VDD_MUX",
    "VDD_5V0_IO_SYS",
    "VDD_5V_IO_SYS",
    "VDD_3V3_SYS",
    "VDD_3V3_IO_SLP",
    "VDD_1V8_IO",
    "VDD_3V3_SYS_M2",
)
"""Of TX1's and TX2's carrier boards: not within VDD_IN. VDD_MUX contains the others (NVIDIA's forum, "TX2 power rail
relationships")."""
_GPUS = ("gv11b", "gp10b", "ga10b", "gpu", "gpu-gpc-0")
_SUM = "sum of shunt voltages"
_UNUSED = ("NC", "")


class Rail(NamedTuple):
    """A power rail.

    Attributes:
        name: such as "VDD_IN".
        watts: reads it.
    """

    name: str
    watts: Callable[[], float | None]


def jetson_sysfs(root: Path = Path("/")) -> GaugeReader:
    """The rails in watts, the GPU's clock and load, and the over-current counters of this machine."""
    lacking: dict[str, str] = {}
    rails = list(_rails(root, lacking))
    if not rails:
        lacking.setdefault("jetson/power", "this board has no power monitor that the kernel shows")
    gauges = rail_gauges(rails, "ina3221")
    gauges += _gpu(root, lacking)
    gauges += over_current(root, lacking)
    return GaugeReader(gauges, lacking)


def rail_gauges(rails: list[Rail], source: str) -> list[Gauge]:
    """Channels of a board's rails, each with what it is part of."""
    names = [rail.name for rail in rails]
    return [
        Gauge(
            Channel(name=_channel(rail.name), quantity="power", source=source, part_of=part_of(rail.name, names)),
            rail.watts,
        )
        for rail in rails
    ]


def part_of(rail: str, rails: list[str]) -> str | None:
    """The channel of the rail that contains it, of those that a board has."""
    within = _PART_OF.get(rail)
    if within in rails:
        return _channel(within)
    if rail in _BESIDE:
        return _channel("VDD_MUX") if rail != "VDD_MUX" and "VDD_MUX" in rails else None
    for whole in WHOLE:
        if whole in rails:
            return None if whole == rail else _channel(whole)
    return None


def gpu_devfreq(root: Path) -> Path | None:
    """The GPU's folder of devfreq, such as /sys/class/devfreq/17000000.gpu."""
    for at in sorted((root / "sys/class/devfreq").glob("*"), key=in_order):
        node = read_text(at / "device/of_node/name")
        if (node or at.name.rpartition(".")[2]) in _GPUS or at.name in _GPUS:
            return at
    return None


def _channel(rail: str) -> str:
    return f"jetson/{rail}"


def _rails(root: Path, lacking: dict[str, str]) -> Iterator[Rail]:
    for at in sorted(root.glob("sys/class/hwmon/hwmon*"), key=in_order):
        chip = read_text(at / "name")
        if chip == "ina3221":
            yield from _hwmon_rails(at, lacking)
        elif chip == "ina238":
            yield from _whole_input(at, lacking)
    for at in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*"), key=in_order):
        yield from _iio_rails(at, lacking)


def _hwmon_rails(at: Path, lacking: dict[str, str]) -> Iterator[Rail]:
    for label in sorted(at.glob("in*_label"), key=in_order):
        name = read_text(label)
        number = label.name.removeprefix("in").removesuffix("_label")
        if name is None or name in _UNUSED or name == _SUM:
            continue
        volts, amperes = at / f"in{number}_input", at / f"curr{number}_input"
        if reason := why_not(volts) or why_not(amperes):
            lacking[_channel(name)] = reason
            continue
        yield Rail(name, _product(volts, amperes))


def _product(millivolts: Path, milliamperes: Path) -> Callable[[], float | None]:
    voltage, current = number_of(millivolts, 1e-3), number_of(milliamperes, 1e-3)

    def watts() -> float | None:
        volts, amperes = voltage(), current()
        return None if volts is None or amperes is None else volts * amperes

    return watts


def _whole_input(at: Path, lacking: dict[str, str]) -> Iterator[Rail]:
    name = read_text(at / "label") or read_text(at / "in1_label") or WHOLE[0]
    if reason := why_not(at / "power1_input"):
        lacking[_channel(name)] = reason
    else:
        yield Rail(name, number_of(at / "power1_input", 1e-6))


def _iio_rails(at: Path, lacking: dict[str, str]) -> Iterator[Rail]:
    for label in sorted(at.glob("rail_name_*"), key=in_order):
        name, number = read_text(label), label.name.rpartition("_")[2]
        if name is None or name in _UNUSED:
            continue
        power = at / f"in_power{number}_input"
        if reason := why_not(power):
            lacking[_channel(name)] = reason
        else:
            yield Rail(name, number_of(power, 1e-3))


def _gpu(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    at = gpu_devfreq(root)
    if at is None:
        lacking["jetson/gpu clock"] = "no GPU in /sys/class/devfreq"
    elif reason := why_not(at / "cur_freq"):
        lacking["jetson/gpu clock"] = reason
    else:
        channel = Channel(name="jetson/gpu clock", quantity="clock", source="devfreq")
        yield Gauge(channel, number_of(at / "cur_freq", 1e-6))
    places = [] if at is None else [at / "device/load"]
    places += [root / "sys/devices/platform/gpu.0/load", root / "sys/devices/gpu.0/load"]
    load = next((place for place in places if read_number(place) is not None), None)
    if load is None:
        lacking["jetson/gpu utilisation"] = why_not(places[0]) or "no number in it"
    else:
        channel = Channel(name="jetson/gpu utilisation", quantity="utilisation", source="devfreq")
        yield Gauge(channel, number_of(load, 0.1))


def over_current(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    """Counters of how often the firmware lowered clocks because of too much current (L4T 34 and newer)."""
    for at in sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"), key=in_order):
        name = f"jetson/{at.name.removesuffix('_event_cnt')} over-current"
        if reason := why_not(at):
            lacking[name] = reason
        else:
            yield Gauge(Channel(name=name, quantity="throttle", source="hwmon", counts=True), number_of(at))
