"""The axes of a sweep, from the texts of a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar, get_args

import msgspec

from gapcam.devices import parse_device
from gapcam.errors import UsageError
from gapcam_bench.cell import EMITS, SCENARIOS, WORK, Emit, ScenarioName, Work

Value = TypeVar("Value")

AS_IS = "as-is"
PRECISIONS = (AS_IS, "fp16", "bf16", "int8")
FRAMES = {"720p": (720, 1280), "1080p": (1080, 1920), "4k": (2160, 3840)}
"""(height, width) in pixels."""
AUTO, ALL = "auto", "all"

_LEAST_SIDE, _GREATEST_SIDE = 16, 16384
_MOST_BATCH, _MOST_THREADS = 4096, 1024


class Axes(msgspec.Struct, frozen=True, kw_only=True):
    """What is combined; each value once, in the order in which it was given.

    Attributes:
        devices: as `gapcam.load` takes them; "auto" and "all" are still among them.
        precisions: of `PRECISIONS`.
        emits: of `EMITS`.
        scenarios: of `SCENARIOS`.
        batches: images of one inference.
        frames: (height, width) in pixels.
        threads: None for every physical core.
        work: what each frame goes through.
    """

    devices: tuple[str, ...] = (AUTO,)
    precisions: tuple[str, ...] = (AS_IS,)
    emits: tuple[Emit, ...] = ("plain", "features")
    scenarios: tuple[ScenarioName, ...] = ("single-stream",)
    batches: tuple[int, ...] = (1,)
    frames: tuple[tuple[int, int], ...] = (FRAMES["720p"],)
    threads: tuple[int | None, ...] = (None,)
    work: tuple[Work, ...] = WORK


def axes_from_texts(
    *,
    device: str = AUTO,
    precision: str = AS_IS,
    emit: str = "plain,features",
    scenario: str = "single-stream",
    batch: str = "1",
    frame: str = "720p",
    threads: str = ALL,
    without: str = "",
) -> Axes:
    """Read lists with commas between.

    Raises:
        UsageError: a value is none of its axis; the message names the option and what it takes.
    """
    left_out = _values("--without", without, lambda text: _one_of("--without", text, WORK)) if without.strip() else ()
    return Axes(
        devices=_values("--device", device, _device),
        precisions=_values("--precision", precision, lambda text: _one_of("--precision", text, PRECISIONS)),
        emits=_values("--emit", emit, lambda text: _one_of("--emit", text, EMITS)),
        scenarios=_values("--scenario", scenario, lambda text: _one_of("--scenario", text, SCENARIOS)),
        batches=_values("--batch", batch, lambda text: _number("--batch", text, _MOST_BATCH)),
        frames=_values("--frame", frame, _frame),
        threads=_values("--threads", threads, _threads),
        work=tuple(work for work in get_args(Work) if work not in left_out),
    )


def frame_text(frame: tuple[int, int]) -> str:
    """A frame's size as an option has it: "720p", or "640x480" (width x height)."""
    names = {size: name for name, size in FRAMES.items()}
    return names.get(frame, f"{frame[1]}x{frame[0]}")


def _values(option: str, text: str, read: Callable[[str], Value]) -> tuple[Value, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option} is {text!r}; expected values with commas between, each with something in it")
    values = [read(part) for part in parts]
    return tuple(dict.fromkeys(values))


def _one_of(option: str, text: str, known: Sequence[Value]) -> Value:
    for value in known:
        if value == text:
            return value
    raise UsageError(f"{option} does not take {text[:40]!r}; give one or more of {', '.join(map(str, known))}")


def _device(text: str) -> str:
    if text == ALL:
        return text
    parse_device(text)
    return text


def _number(option: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= most:
        raise UsageError(f"{option} does not take {text[:40]!r}; give whole numbers from 1 to {most}")
    return int(text)


def _threads(text: str) -> int | None:
    if text == ALL:
        return None
    try:
        return _number("--threads", text, _MOST_THREADS)
    except UsageError as error:
        raise UsageError(f"{error}, or {ALL}") from None


def _frame(text: str) -> tuple[int, int]:
    known = FRAMES.get(text.lower())
    if known is not None:
        return known
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if match is None:
        raise UsageError(
            f"--frame does not take {text[:40]!r}; give {', '.join(FRAMES)}, or WIDTHxHEIGHT as in 640x480"
        )
    width, height = int(match[1]), int(match[2])
    if not all(_LEAST_SIDE <= side <= _GREATEST_SIDE for side in (width, height)):
        raise UsageError(f"--frame is {text}; expected sides from {_LEAST_SIDE} to {_GREATEST_SIDE} pixels")
    return height, width
