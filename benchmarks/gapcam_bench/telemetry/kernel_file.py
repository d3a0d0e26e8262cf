"""Files of sysfs and procfs: a value as text, or the reason why there is none.

A file that is there may still not answer: a switched-off thermal zone says EAGAIN, which Python's own text reader turns
into a TypeError (the raw read gives None to the decoder). So these read with `os.read`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

_LONGEST = 1 << 16
_REASONS = {
    errno.ENOENT: "not there",
    errno.EACCES: "not permitted",
    errno.EPERM: "not permitted",
    errno.EAGAIN: "switched off",
    errno.ENODEV: "its device is gone",
    errno.EIO: "its device does not answer",
}


def read_text(path: Path | str) -> str | None:
    """What is in it, without white space around; None where it cannot be read."""
    try:
        return _read(path)
    except OSError:
        return None


def why_not(path: Path | str) -> str | None:
    """Why it cannot be read, such as "not permitted"; None where it can."""
    try:
        _read(path)
    except OSError as error:
        return _REASONS.get(error.errno or 0, error.strerror or "cannot be read")
    return None


def is_switched_off(path: Path | str) -> bool:
    """Whether it is there and says that it cannot be read just now (EAGAIN), as sensors of a gated unit do."""
    return why_not(path) == _REASONS[errno.EAGAIN]


def read_number(path: Path | str) -> float | None:
    """The decimal number that it begins with; None where it cannot be read, or holds none."""
    text = read_text(path)
    try:
        return None if text is None else float(text.split()[0])
    except (ValueError, IndexError):
        return None


def number_of(path: Path, scale: float = 1.0) -> Callable[[], float | None]:
    """A gauge's `read`: the number in a file times a scale."""
    name = str(path)  # text is opened faster than a Path

    def read() -> float | None:
        value = read_number(name)
        return None if value is None else value * scale

    return read


def in_order(path: Path) -> tuple[int | str, ...]:
    """A key that puts hwmon2 before hwmon10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path)))


def _read(path: Path | str) -> str:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, _LONGEST).decode("utf-8", "replace").strip("\0 \t\r\n")
    finally:
        os.close(descriptor)
