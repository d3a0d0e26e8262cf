"""Temperatures, and what the kernel or the firmware holds back because of them.

Thermal zones (millidegrees), processors' own sensors by hwmon, cooling devices that lower clocks: a state above 0 is
throttling. Source: Documentation/driver-api/thermal/sysfs-api, Documentation/hwmon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gapcam_bench.telemetry.kernel_file import in_order, is_switched_off, number_of, read_text, why_not
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader

_PROCESSOR_SENSORS = {"coretemp": ("Package id",), "k10temp": ("Tctl", "Tdie", "Tccd"), "zenpower": ("Tdie", "Tctl")}
"""hwmon's chips and how the labels begin that are read: of Intel the package, which is the hottest of its cores."""

_FIXED = ("PMIC-Die",)
"""Older Jetsons show 100 degrees there whatever happens."""
_OFF = -256.0

_CLOCK_LIMITERS = ("cpufreq-", "thermal-cpufreq-", "devfreq-", "thermal-devfreq-", "Processor")
_ALERTS = ("throttle-alert",)
"""Not among them: `hot-surface-alert` of Orins, a warning of the heat sink at 70 degrees that holds nothing back."""


def thermal(root: Path = Path("/")) -> GaugeReader:
    """Temperatures in degrees Celsius, and throttles as states."""
    lacking: dict[str, str] = {}
    gauges = [
        *_zones(root, lacking),
        *_sensors(root, lacking),
        *_limiters(root, lacking),
        *_under_voltage(root, lacking),
    ]
    if not any(gauge.channel.quantity == "temperature" for gauge in gauges):
        lacking.setdefault("thermal", "the system shows no temperature")
    return GaugeReader(gauges, lacking)


def _zones(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    seen: set[str] = set()
    for at in sorted(root.glob("sys/class/thermal/thermal_zone*"), key=in_order):
        kind = read_text(at / "type") or at.name
        name = f"thermal/{kind}" if f"thermal/{kind}" not in seen else f"thermal/{kind} ({at.name})"
        seen.add(name)
        reason = "always shows the same" if kind in _FIXED else why_not(at / "temp")
        if reason is not None and (kind in _FIXED or not is_switched_off(at / "temp")):  # a gated unit's answers later
            lacking[name] = reason
            continue
        yield Gauge(Channel(name=name, quantity="temperature", source="thermal"), _degrees(at / "temp"))


def _degrees(path: Path) -> Callable[[], float | None]:
    """Jetsons show -256 for a unit that is off."""
    number = number_of(path, 1e-3)

    def read() -> float | None:
        value = number()
        return None if value is None or value <= _OFF else value

    return read


def _sensors(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    for at in sorted(root.glob("sys/class/hwmon/hwmon*"), key=in_order):
        chip = read_text(at / "name") or ""
        wanted = _PROCESSOR_SENSORS.get(chip, ())
        for label in sorted(at.glob("temp*_label"), key=in_order) if wanted else ():
            title = read_text(label) or ""
            if not title.startswith(wanted):
                continue
            name = f"{chip}/{title}"
            value = label.with_name(label.name.replace("_label", "_input"))
            if reason := why_not(value):
                lacking[name] = reason
            else:
                yield Gauge(Channel(name=name, quantity="temperature", source="hwmon"), number_of(value, 1e-3))


def _limiters(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    seen: dict[str, int] = {}
    for at in sorted(root.glob("sys/class/thermal/cooling_device*"), key=in_order):
        kind = read_text(at / "type") or ""
        if not kind.startswith(_CLOCK_LIMITERS) and not kind.endswith(_ALERTS):
            continue
        number = seen[kind] = seen.get(kind, 0) + 1
        if kind == "Processor" and number > 1:  # ACPI has one for each processor; the zones hold them back together
            continue
        name = f"cooling/{kind}" if number == 1 else f"cooling/{kind} ({at.name})"
        if reason := why_not(at / "cur_state"):
            lacking[name] = reason
        else:
            yield Gauge(Channel(name=name, quantity="throttle", source="thermal"), number_of(at / "cur_state"))


def _under_voltage(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    """The Raspberry Pi's firmware lowers the clocks when the supply sags."""
    for at in sorted(root.glob("sys/class/hwmon/hwmon*/in0_lcrit_alarm"), key=in_order):
        if read_text(at.with_name("name")) != "rpi_volt":
            continue
        if reason := why_not(at):
            lacking["rpi_volt/under-voltage"] = reason
        else:
            channel = Channel(name="rpi_volt/under-voltage", quantity="throttle", source="hwmon")
            yield Gauge(channel, number_of(at))
