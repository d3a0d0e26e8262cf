"""Jetson's power, temperatures and GPU by the service of jetson-stats (`jtop`), where it is installed and runs.

It runs as root, so it sees what users may not, and renews what it says about once a second. jetson-stats is under the
AGPL and no dependency: a user who has it installed it. Source: its documentation, `jtop.power`, `jtop.temperature`,
`jtop.gpu`.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gapcam_bench.telemetry.jetson_sysfs import Rail, over_current, rail_gauges
from gapcam_bench.telemetry.reading import Channel, Gauge, GaugeReader

_SOURCE = "jetson-stats"
_LONGEST_SILENCE_S = 3.0
"""After which what it said last is no longer taken for what is."""
_RAIL = re.compile(r"[A-Z][A-Z0-9_]+")
"""Among the rails it also lists USB ports that give or take power, such as "1-00081"."""


def jetson_stats(root: Path = Path("/")) -> GaugeReader | None:
    """What its service says, with the over-current counters, which it does not have; None where it is not installed.
    One that does not run, or is of another version, gives no channel and says so in `lacking`.

    Args:
        root: the folder in which /sys lies.
    """
    try:
        module: Any = importlib.import_module("jtop")
    except ImportError:
        return None
    client: Any = None
    try:
        client = module.jtop()
        client.start()
        gauges = jtop_gauges(client) if client.ok(spin=True) and client.power["rail"] else []
    except Exception as error:  # noqa: BLE001 - it is no part of gapcam: of any version, and its service in any state
        _close(client)
        return GaugeReader([], {_SOURCE: f"its service cannot be read: {' '.join(str(error).split()) or repr(error)}"})
    if not gauges:
        _close(client)
        return GaugeReader([], {_SOURCE: "its service shows no power"})
    lacking: dict[str, str] = {}
    return GaugeReader([*gauges, *over_current(root, lacking)], lacking, close=lambda: _close(client))


def jtop_gauges(client: Any, now: Callable[[], float] = time.monotonic) -> list[Gauge]:
    """Channels of what a client of its service says at that moment.

    Args:
        client: with the properties `power`, `temperature` and `gpu`, each a mapping that is renewed. When its thread
            has ended, or `power` was the same object for 3 s, it keeps what it said last, which is then not read.
        now: the time in seconds, by a clock that is never set back.
    """
    power, temperature, gpu = client.power, client.temperature, client.gpu
    names = [name for name in power.get("rail", {}) if _RAIL.fullmatch(name)]
    whole = str(power.get("tot", {}).get("name") or "")
    if whole and whole not in names:  # it takes the rail that contains the others out of them
        names.append(whole)
    gauges = rail_gauges([Rail(name, _watts(client, name)) for name in names], _SOURCE)
    for name in temperature:
        channel = Channel(name=f"jetson/{name} temperature", quantity="temperature", source=_SOURCE)
        gauges.append(Gauge(channel, _degrees(client, name)))
    for name in gpu:
        load = Channel(name="jetson/gpu utilisation", quantity="utilisation", source=_SOURCE)
        clock = Channel(name="jetson/gpu clock", quantity="clock", source=_SOURCE)
        gauges.append(Gauge(load, _of_gpu(client, name, "status", "load", 1.0)))
        gauges.append(Gauge(clock, _of_gpu(client, name, "freq", "cur", 1e-3)))
    is_renewed = _renewed(client, now)
    return [Gauge(gauge.channel, _while(is_renewed, gauge.read)) for gauge in gauges]


def _renewed(client: Any, now: Callable[[], float]) -> Callable[[], bool]:
    seen: list[tuple[object, float]] = [(client.power, now())]

    def ask() -> bool:
        power, at = client.power, now()
        if power is not seen[0][0]:
            seen[0] = power, at
        is_alive = getattr(client, "is_alive", lambda: True)
        return bool(is_alive()) and at - seen[0][1] <= _LONGEST_SILENCE_S

    return ask


def _while(holds: Callable[[], bool], read: Callable[[], float | None]) -> Callable[[], float | None]:
    def ask() -> float | None:
        try:
            return read() if holds() else None
        except (AttributeError, KeyError, TypeError, ValueError):  # an answer of another form
            return None

    return ask


def _close(client: Any) -> None:
    if client is not None:
        with suppress(Exception):  # it has nothing that would have to be given back
            client.close()


def _watts(client: Any, rail: str) -> Callable[[], float | None]:
    def read() -> float | None:
        power: Mapping[str, Any] = client.power
        found = power.get("rail", {}).get(rail)
        if found is None and power.get("tot", {}).get("name") == rail:
            found = power["tot"]
        return None if found is None or "power" not in found else float(found["power"]) / 1000

    return read


def _degrees(client: Any, name: str) -> Callable[[], float | None]:
    def read() -> float | None:
        found = client.temperature.get(name, {})
        return float(found["temp"]) if found.get("online", True) and "temp" in found else None

    return read


def _of_gpu(client: Any, name: str, part: str, field: str, scale: float) -> Callable[[], float | None]:
    def read() -> float | None:
        value = client.gpu.get(name, {}).get(part, {}).get(field)
        return None if value is None else float(value) * scale

    return read
