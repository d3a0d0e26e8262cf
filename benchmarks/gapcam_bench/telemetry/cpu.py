"""Clocks, utilisation, memory and throttling of the processors, by cpufreq, procfs and the kernel's counters.

Sources: Documentation/admin-guide/pm/cpufreq, proc_stat(5), Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gapcam_bench.telemetry.kernel_file import in_order, number_of, read_text, why_not
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader

MOST_CLOCKS = 16
"""Of a larger machine as many are read, evenly spread: reading is work, too."""

_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"


def cpu(root: Path = Path("/")) -> GaugeReader:
    """The host's processors and memory."""
    lacking: dict[str, str] = {}
    gauges = [
        *_clocks(root, lacking),
        *_throttle_counts(root, lacking),
        *_shares(root, lacking),
        *_memory(root, lacking),
    ]
    return GaugeReader(gauges, lacking)


def policies(root: Path) -> list[Path]:
    """cpufreq's folders: one for each group of processors that share a clock."""
    return sorted(root.glob(_POLICIES), key=in_order)


def _clocks(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    found = policies(root)
    if not found:
        lacking["cpu/clock"] = "no cpufreq: the system does not say how its processors are clocked"
    step = max(1, -(-len(found) // MOST_CLOCKS))
    if step > 1:
        lacking["cpu/other clocks"] = f"of {len(found)} clocks one in {step} is read"
    for at in found[::step]:
        name = f"cpu{at.name.removeprefix('policy')}/clock"
        if reason := why_not(at / "scaling_cur_freq"):
            lacking[name] = reason
        else:
            channel = Channel(name=name, quantity="clock", source="cpufreq")
            yield Gauge(channel, number_of(at / "scaling_cur_freq", 1e-3))


def _throttle_counts(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    """Intel's counters of thermal throttling: of one processor of each package, and of its cores where they are few."""
    packages: dict[str, Path] = {}
    cores: dict[tuple[str, str], Path] = {}
    for at in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*"), key=in_order):
        if not (at / "thermal_throttle").exists():
            continue
        package = read_text(at / "topology/physical_package_id") or "0"
        core = read_text(at / "topology/core_id") or at.name
        packages.setdefault(package, at / "thermal_throttle/package_throttle_count")
        cores.setdefault((package, core), at / "thermal_throttle/core_throttle_count")
    places = {f"package{package}/throttle": at for package, at in packages.items()}
    if len(cores) <= MOST_CLOCKS:
        places |= {f"package{package}/core{core}/throttle": at for (package, core), at in cores.items()}
    for name, at in places.items():
        if reason := why_not(at):
            lacking[name] = reason
        else:
            yield Gauge(Channel(name=name, quantity="throttle", source="procfs", counts=True), number_of(at))


def _shares(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    """Time spent working, and taken by the hypervisor ("steal"), of all processors since the reading before."""
    stat = root / "proc/stat"
    if _times(stat) is None:
        lacking["cpu/utilisation"] = why_not(stat) or "no times in /proc/stat"
        return
    yield Gauge(
        Channel(name="cpu/utilisation", quantity="utilisation", source="procfs"),
        _share(stat, lambda times: sum(times) - times[3] - times[4]),
    )
    yield Gauge(
        Channel(name="cpu/steal", quantity="utilisation", source="procfs"), _share(stat, lambda times: times[7])
    )


def _share(stat: Path, part: Callable[[list[float]], float]) -> Callable[[], float | None]:
    """Percent that a part of all times rose by since the last call; None at the first one."""
    before: tuple[float, float] | None = None

    def read() -> float | None:
        nonlocal before
        times = _times(stat)
        if times is None:
            return None
        now = part(times), sum(times)
        last, before = before, now
        if last is None or now[1] <= last[1]:
            return None
        return min(100.0, max(0.0, 100 * (now[0] - last[0]) / (now[1] - last[1])))

    return read


def _times(stat: Path) -> list[float] | None:
    """user, nice, system, idle, iowait, irq, softirq, steal of all processors; guests' time is in user's and nice's."""
    text = read_text(stat)
    match = re.match(r"cpu +((?:\d+ ?){8})", text or "")
    return [float(part) for part in match[1].split()] if match else None


def _memory(root: Path, lacking: dict[str, str]) -> Iterator[Gauge]:
    meminfo = root / "proc/meminfo"
    if used_memory(meminfo) is None:
        lacking["memory/used"] = why_not(meminfo) or "no MemAvailable in /proc/meminfo"
    else:
        channel = Channel(name="memory/used", quantity="memory", source="procfs")
        yield Gauge(channel, lambda: used_memory(meminfo))


def used_memory(meminfo: Path) -> float | None:
    """Bytes that are not available for new programs; None where it does not say."""
    text = read_text(meminfo)
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text or "", re.MULTILINE))
    return 1024.0 * (int(found["MemTotal"]) - int(found["MemAvailable"])) if len(found) == 2 else None
