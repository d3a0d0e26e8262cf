"""The options of a build: from text, and whether they make sense together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gapcam.engine_file import GREATEST_SIDE, BuildOptions
from gapcam.errors import UsageError

__all__ = [
    "LEVELS",
    "BuildOptions",
    "batch_from_text",
    "check_options",
    "colons",
    "sizes_from_text",
    "targets_from_text",
]

LEVELS = range(6)
"""Of TensorRT's builder optimisation."""
_MOST_WORKSPACE = 2**24
"""MiB: 16 TiB. TensorRT counts bytes in 64 bits, and no GPU has as much."""
Three = tuple[int, int, int]
Size = tuple[int, int]


def check_options(options: BuildOptions) -> None:
    """Notice what no model and no device could take.

    Raises:
        UsageError: an option is out of its range, or contradicts another.
    """
    if not _rising(options.batch):
        raise UsageError(
            f"--batch is {colons(options.batch)}; expected MIN:OPT:MAX, rising, from 1 to {GREATEST_SIDE} images"
        )
    if options.sizes is not None:
        for axis in (0, 1):
            if not _rising([size[axis] for size in options.sizes]):
                raise UsageError(
                    f"--size is {_sizes(options.sizes)}; expected MIN:OPT:MAX, rising, each HxW, at most "
                    f"{GREATEST_SIDE} pixels"
                )
    if options.level is not None and options.level not in LEVELS:
        raise UsageError(f"--level is {options.level}; expected {LEVELS[0]} to {LEVELS[-1]}")
    if options.workspace_mib is not None and not 1 <= options.workspace_mib <= _MOST_WORKSPACE:
        raise UsageError(f"--workspace is {options.workspace_mib}; expected 1 to {_MOST_WORKSPACE} MiB")
    if options.dla_core is not None and options.batch[0] != options.batch[2]:
        raise UsageError(
            f"--dla was given with --batch {colons(options.batch)}; a DLA runs one shape only: give --batch N:N:N"
        )
    repeated = [target for target in options.targets if options.targets.count(target) > 1]
    if repeated:
        raise UsageError(f"--targets names {repeated[0]} twice; name each once")


def batch_from_text(text: str) -> Three:
    """(1, 4, 8) of "1:4:8"; (1, 4, 4) of "4": up to four images, tuned for four.

    Raises:
        UsageError: it is neither.
    """
    if re.fullmatch(r"\d{1,6}", text):
        return 1, int(text), int(text)
    match = re.fullmatch(r"(\d{1,6}):(\d{1,6}):(\d{1,6})", text)
    if match is None:
        raise UsageError(f"--batch is {text!r}; expected a number, or MIN:OPT:MAX such as 1:4:8")
    return int(match[1]), int(match[2]), int(match[3])


def sizes_from_text(text: str) -> tuple[Size, Size, Size]:
    """((192, 256), (224, 320), (448, 640)) of "192x256:224x320:448x640"; three times the same of "224x320".

    Raises:
        UsageError: it is neither.
    """
    sizes = [_size(part) for part in text.split(":")]
    if len(sizes) not in (1, 3) or None in sizes:
        raise UsageError(f"--size is {text!r}; expected HxW, or MIN:OPT:MAX such as 192x256:224x320:448x640")
    known = [size for size in sizes if size is not None]
    return known[0], known[len(known) // 2], known[-1]


def targets_from_text(text: str) -> tuple[str, ...]:
    """("86", "89") of "86,89" or "sm_89, 8.6".

    Raises:
        UsageError: a part is no compute capability.
    """
    targets = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part.strip(), re.IGNORECASE)
        if match is None:
            raise UsageError(f"--targets is {text!r}; expected compute capabilities with commas between, such as 86,89")
        targets.append(match[1] + match[2])
    return tuple(sorted(targets, key=int))


def colons(values: Sequence[int]) -> str:
    """As an option has it: "1:4:8"."""
    return ":".join(map(str, values))


def _rising(sides: Sequence[int]) -> bool:
    return list(sides) == sorted(sides) and sides[0] >= 1 and sides[-1] <= GREATEST_SIDE


def _sizes(sizes: Sequence[Size]) -> str:
    return ":".join(f"{height}x{width}" for height, width in sizes)


def _size(text: str) -> Size | None:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    return (int(match[1]), int(match[2])) if match else None
