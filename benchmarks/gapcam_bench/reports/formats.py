"""Figures as people read them; the JSON and the CSV have all their digits."""

from __future__ import annotations


def milliseconds(value: float) -> str:
    """Of milliseconds, without the unit: more digits the shorter it is."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}"


def seconds(value: float) -> str:
    """Of seconds, with a unit that fits."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.0f} ms"


def a_second(value: float) -> str:
    """Of something a second, without the unit."""
    return f"{value:.2f}" if value < 100 else f"{value:.1f}"


def size(value: int) -> str:
    """Of bytes, in powers of 1024."""
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


FAR = 2.0
"""Times its figure, or that part of it: a confidence interval that reaches further is shown as that, and no more."""


def is_far(value: float, interval: tuple[float, float]) -> bool:
    """Whether a figure's confidence interval reaches too far to say where the figure is."""
    return interval[1] > FAR * value or interval[0] * FAR < value


def plus_minus(value: float, interval: tuple[float, float] | None) -> str:
    """A time's confidence interval by the side on which it reaches further, in ms; "" where none is known."""
    if interval is None:
        return ""
    return f"> {FAR:g}x" if is_far(value, interval) else milliseconds(half_width(value, interval))


def from_to(value: float, interval: tuple[float, float] | None) -> str:
    """A time's confidence interval by both its ends, in brackets, in ms; "" where none is known."""
    if interval is None:
        return ""
    return f"[> {FAR:g}x]" if is_far(value, interval) else f"[{', '.join(map(milliseconds, interval))}]"


def half_width(value: float, interval: tuple[float, float]) -> float:
    """How far a figure's confidence interval reaches, on the side on which it reaches further."""
    return max(value - interval[0], interval[1] - value, 0.0)
