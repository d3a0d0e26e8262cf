"""Energy counters of x86 processors (RAPL), as the kernel's power capping framework shows them; AMD's Zen likewise.

What contains what (Intel SDM, volume 3B, "Platform Specific Power Management Support"; Documentation/power/powercap):
`psys` is the whole platform with its memory, `package-N` contains its `core` and `uncore` (the graphics), and `dram` is
not in the package. The zones of intel-rapl-mmio show the same packages a second time and are not read. Since
CVE-2020-8694 only root may read the counters.
"""

from __future__ import annotations

from pathlib import Path

from gapcam_bench.telemetry.kernel_file import in_order, number_of, read_number, read_text, why_not
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader

PSYS = "rapl/psys"

_ZONES = "sys/class/powercap/intel-rapl:*"
_MICRO = 1e-6
_PERMIT = "chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"


def rapl(root: Path = Path("/")) -> GaugeReader:
    """The counters of this machine, in joules."""
    gauges: list[Gauge] = []
    lacking: dict[str, str] = {}
    zones = {zone.name: zone for zone in sorted(root.glob(_ZONES), key=in_order)}
    kinds = {name: read_text(zone / "name") or name for name, zone in zones.items()}
    platforms = [name for name, kind in kinds.items() if kind.startswith("psys")]
    for name in platforms if len(platforms) > 1 else ():
        lacking[f"rapl/{kinds.pop(name)} ({name})"] = "one of several platforms: what it contains is unknown"
        del zones[name]
    names = {name: _name(name, kinds) for name in zones}
    seen: set[str] = set()
    for zone, at in zones.items():
        name = names[zone] if names[zone] not in seen else f"{names[zone]} ({zone})"
        seen.add(name)
        counter = at / "energy_uj"
        reason = why_not(counter)
        if reason is not None:
            lacking[name] = f"{reason}; as root: {_PERMIT}" if reason == "not permitted" else reason
            continue
        wraps_at = read_number(at / "max_energy_range_uj")
        channel = Channel(
            name=name,
            quantity="energy",
            source="rapl",
            counts=True,
            part_of=_part_of(zone, kinds, names),
            wraps_at=None if wraps_at is None else wraps_at * _MICRO,
        )
        gauges.append(Gauge(channel, number_of(counter, _MICRO)))
    if not zones:
        lacking["rapl"] = "no energy counters in /sys/class/powercap"
    return GaugeReader(gauges, lacking)


def _parent(zone: str) -> str | None:
    """intel-rapl:0:1 lies in intel-rapl:0."""
    above, _, _ = zone.rpartition(":")
    return above if above.count(":") else None


def _name(zone: str, kinds: dict[str, str]) -> str:
    parent = _parent(zone)
    return f"rapl/{kinds[parent]}/{kinds[zone]}" if parent in kinds else f"rapl/{kinds[zone]}"


def _part_of(zone: str, kinds: dict[str, str], names: dict[str, str]) -> str | None:
    parent = _parent(zone)
    if parent in kinds and kinds[zone] != "dram":
        return names[parent]
    return PSYS if PSYS in names.values() and names[zone] != PSYS else None
