"""What was read while a row was measured, as figures: means, energy a frame, and whether anything was throttled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.result import ChannelFigures, Energy
from gapcam_bench.telemetry.nvml import POWER_CAP
from gapcam_bench.telemetry.reading import Channel
from gapcam_bench.telemetry.series import Series, Span

LONGEST_GAP_S = 2.0
"""Between two readings, or a span's edge and the nearest one: what lies further apart is not known."""

LEAST_OF_PARTS = 0.95
"""A channel that shows less than this share of what it should contain is not believed: counters of the whole platform
(psys) stand still on many machines. The rest is for monitors that are not read at the same moment."""

MOST_WATTS = 3000.0
"""More than a counter can rise by: it was set anew (suspended, its driver loaded again), and did not wrap."""

_BURST_S = 0.5
"""Counters are renewed in steps, some ten times a second or less: that much of them may come in one reading."""


def channel_figures(series: Series, spans: Sequence[Span]) -> dict[str, ChannelFigures]:
    """Of every channel that was read within the spans; one without a single reading there is left out.

    Args:
        series: telemetry.
        spans: of the blocks.
    """
    found = {}
    inside = _inside(series.time, spans)
    for channel in series.channels:
        values = series.values[channel.name][inside]
        values = values[np.isfinite(values)]
        if len(values) == 0:
            continue
        found[channel.name] = ChannelFigures(
            mean=None if channel.counts else float(np.mean(values)),
            least=None if channel.counts else float(np.min(values)),
            greatest=None if channel.counts else float(np.max(values)),
            rise=_rise_of(series, channel, spans) if channel.counts else None,
            readings=len(values),
        )
    return found


def energy_of(series: Series, spans: Sequence[Span], frames: int, idle: Sequence[Span] = ()) -> Energy | None:
    """What a frame costs: the energy of all channels that are part of nothing, over the spans, by their frames.

    A counter's energy is its difference, a power's its integral (trapezoid), both with values interpolated at the
    spans' edges. Where a channel was not read throughout, or cannot be believed, what it contains is summed in its
    place. Where a channel was read now and then, and nothing can stand in for it, there is no energy: a sum without it
    would be that of another machine.

    Args:
        series: telemetry.
        spans: of the blocks, in seconds since the epoch.
        frames: that were answered in them, at least 1.
        idle: spans of the same series when nothing ran.

    Returns:
        None where no power and no energy was read throughout, or `energy_gaps` has a channel.
    """
    seconds = sum(ended - began for began, ended in spans)
    if frames < 1 or seconds <= 0:
        return None
    found, lost = _joules(series, spans)
    joules = dict(found)
    if lost or not joules:
        return None
    total = sum(joules.values())
    return Energy(
        millijoules_a_frame=1000 * total / frames,
        above_idle=_above_idle(series, idle, tuple(joules), total, seconds, frames),
        channels=tuple(joules),
        watts=total / seconds,
        frames=frames,
    )


def energy_gaps(series: Series, spans: Sequence[Span]) -> tuple[str, ...]:
    """Why there is no energy of these spans though power was read, in a sentence; empty where there is, or none was."""
    _, lost = _joules(series, spans)
    if not lost or not spans:
        return ()
    by_name = {channel.name: channel for channel in series.channels}
    longest = f"was not read throughout (for more than {LONGEST_GAP_S:g} s it gave no reading while this was measured)"
    anew = "was set anew while this was measured (the machine slept, or its driver was loaded again)"
    return tuple(
        f"no energy: {name} {anew if _reset_alone(series, by_name[name], spans) else longest}" for name in lost
    )


def throttled(series: Series, spans: Sequence[Span]) -> tuple[str, ...]:
    """What held clocks down while the spans were measured, a sentence each; empty where nothing did.

    A GPU at its power limit is not among them: see `power_capped`.
    """
    return tuple(_held_down(series, spans, [one for one in series.channels if not one.name.endswith(POWER_CAP)]))


def power_capped(series: Series, spans: Sequence[Span]) -> tuple[str, ...]:
    """Which GPUs ran at their power limit, a sentence each: how cards are meant to run when they have enough to do."""
    return tuple(_held_down(series, spans, [one for one in series.channels if one.name.endswith(POWER_CAP)]))


def _held_down(series: Series, spans: Sequence[Span], channels: Sequence[Channel]) -> Iterator[str]:
    inside = _inside(series.time, spans)
    for channel in channels:
        if channel.quantity != "throttle":
            continue
        if channel.counts:
            rise = _events(series, channel, spans)
            if rise is not None and rise > 0:
                yield f"clocks were held down: {channel.name} rose by {rise:.0f} while this was measured"
            continue
        values = series.values[channel.name][inside]
        values = values[np.isfinite(values)]
        if np.any(values > 0):
            share = float(np.mean(values > 0))
            yield f"clocks were held down: {channel.name} in {share:.0%} of {len(values)} readings"


def _above_idle(
    series: Series, idle: Sequence[Span], names: tuple[str, ...], total: float, seconds: float, frames: int
) -> float | None:
    """Millijoules a frame without what the same channels took when nothing ran."""
    idle_seconds = sum(ended - began for began, ended in idle)
    if idle_seconds <= 0:
        return None
    by_name = {channel.name: channel for channel in series.channels}
    rises = [_joules_of(series, by_name[name], idle) for name in names]
    known = [rise for rise in rises if rise is not None]
    if len(known) < len(rises):
        return None
    return 1000 * (total - seconds * sum(known) / idle_seconds) / frames


def _joules(series: Series, spans: Sequence[Span]) -> tuple[list[tuple[str, float]], list[str]]:
    """Name and energy of channels of which none contains another, and the names of those that are missing in the sum.

    A channel that never gave a reading is not missing: it is not there.
    """
    channels = {one.name: one for one in series.channels if one.quantity in ("power", "energy")}
    parts: dict[str | None, list[Channel]] = {}
    for channel in channels.values():
        parts.setdefault(channel.part_of if channel.part_of in channels else None, []).append(channel)

    def together(several: Sequence[Channel]) -> tuple[list[tuple[str, float]], list[str]]:
        each = [of(channel) for channel in several]
        return [one for found, _ in each for one in found], [name for _, lost in each for name in lost]

    def of(channel: Channel) -> tuple[list[tuple[str, float]], list[str]]:
        found, lost = together(parts.get(channel.name, ()))
        own = _joules_of(series, channel, spans)
        if own is not None and own >= LEAST_OF_PARTS * sum(joules for _, joules in found) and (own > 0 or not lost):
            return [(channel.name, own)], []
        if own is None and not found and np.isfinite(series.values[channel.name]).any():
            return [], [channel.name]
        return found, lost

    return together(parts.get(None, ()))


def _joules_of(series: Series, channel: Channel, spans: Sequence[Span]) -> float | None:
    if channel.quantity == "energy":
        return _rise_over(series, channel, spans)
    at, values = _readings(series, channel)
    if not _covered(at, spans):
        return None
    return sum(_integral(at, values, span) for span in spans)


def _rise_over(series: Series, channel: Channel, spans: Sequence[Span]) -> float | None:
    """What a counter rose by; None where it was not read throughout."""
    at, values = _readings(series, channel)
    if not _covered(at, spans):
        return None
    total = _unwrapped(values, channel.wraps_at)
    if channel.quantity == "energy" and _was_reset(series, channel, spans):
        return None
    return sum(float(np.diff(np.interp(span, at, total))[0]) for span in spans)


def _rise_of(series: Series, channel: Channel, spans: Sequence[Span]) -> float | None:
    return _events(series, channel, spans) if channel.quantity == "throttle" else _rise_over(series, channel, spans)


def _events(series: Series, channel: Channel, spans: Sequence[Span]) -> float | None:
    """What a counter of events rose by between the last reading before each span and the first one after it.

    An event shows in the next reading, so nothing is interpolated. A reading that lies further from the span than
    `LONGEST_GAP_S` says nothing of it: the nearest one within is taken.
    """
    at, values = _readings(series, channel)
    total = _unwrapped(values, channel.wraps_at)
    rises = []
    for began, ended in spans:
        near = np.flatnonzero((at >= began - LONGEST_GAP_S) & (at <= ended + LONGEST_GAP_S))
        if len(near) < 2:
            continue
        first = max(int(np.searchsorted(at, began, "right")) - 1, int(near[0]))
        last = min(int(np.searchsorted(at, ended, "left")), int(near[-1]))
        rises.append(float(total[last] - total[first]) if last > first else 0.0)
    return sum(rises) if rises else None


def _reset_alone(series: Series, channel: Channel, spans: Sequence[Span]) -> bool:
    at, _ = _readings(series, channel)
    return channel.quantity == "energy" and _covered(at, spans) and _was_reset(series, channel, spans)


def _was_reset(series: Series, channel: Channel, spans: Sequence[Span]) -> bool:
    """Whether a counter of energy rose by more than any machine takes within one of the spans."""
    at, values = _readings(series, channel)
    total = _unwrapped(values, channel.wraps_at)
    for began, ended in spans:
        first = max(int(np.searchsorted(at, began, "right")) - 1, 0)
        last = int(np.searchsorted(at, ended, "left")) + 1
        if np.any(np.diff(total[first:last]) > MOST_WATTS * (np.diff(at[first:last]) + _BURST_S)):
            return True
    return False


def _unwrapped(values: NDArray[np.float64], wraps_at: float | None) -> NDArray[np.float64]:
    """A counter that never falls. One that fell without a known end began anew at 0, when its driver was loaded."""
    steps = np.diff(values)
    fell = steps < 0
    steps[fell] = steps[fell] + wraps_at if wraps_at is not None else values[1:][fell]
    return np.concatenate([values[:1], values[0] + np.cumsum(steps)])


def _integral(at: NDArray[np.float64], values: NDArray[np.float64], span: Span) -> float:
    inner = (at > span[0]) & (at < span[1])
    times = np.concatenate([[span[0]], at[inner], [span[1]]])
    heights = np.concatenate([np.interp(span[:1], at, values), values[inner], np.interp(span[1:], at, values)])
    return float(np.sum((heights[1:] + heights[:-1]) * np.diff(times)) / 2)


def _covered(at: NDArray[np.float64], spans: Sequence[Span]) -> bool:
    """Whether readings lie close enough everywhere: within the spans, and at their edges."""
    if len(at) < 2 or not spans:
        return False
    for began, ended in spans:
        first = max(int(np.searchsorted(at, began, "right")) - 1, 0)
        last = min(int(np.searchsorted(at, ended, "left")), len(at) - 1)
        edges = at[first] - began, ended - at[last]
        if max(edges) > LONGEST_GAP_S or np.any(np.diff(at[first : last + 1]) > LONGEST_GAP_S):
            return False
    return True


def _readings(series: Series, channel: Channel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = series.values[channel.name]
    there = np.isfinite(values)
    return series.time[there], values[there]


def _inside(time: NDArray[np.float64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    inside = np.zeros(len(time), bool)
    for began, ended in spans:
        inside |= (time >= began) & (time <= ended)
    return inside
