"""What may be asked of a source, and how it is written after its URI: `rtsp://host/a#rate=15,rotate=90,name=door`."""

# ruff: noqa: PTH110 - Path.exists raises where a name is too long or a folder is closed

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

from gapcam.camera.finite_number import is_finite
from gapcam.camera.option_text import number_from_text
from gapcam.camera.uri import end_of_credentials, without_credentials
from gapcam.errors import UsageError

Rotation: TypeAlias = Literal[0, 90, 180, 270]
Transport: TypeAlias = Literal["tcp", "udp"]

_KEYS = ("name", "size", "rate", "rotate", "loop", "seek", "transport", "timeout", "pace")
_OPTIONS = re.compile(r"#(?P<options>[A-Za-z]+=[^=#,]*(,[A-Za-z]+=[^=#,]*)*)$")
_MISPLACED = re.compile(rf"(?!.*://)(?P<path>[^?#]+)\?(?P<options>({'|'.join(_KEYS)})=.*)", re.DOTALL)
_UNCLEAR = re.compile(rf"#({'|'.join(_KEYS)})=.*", re.DOTALL)
_YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What may be asked of a source; None where it is the source's own.

    Attributes:
        size: (width, height) in pixels, before rotation. A V4L2 or CSI camera and the test pattern are asked for it;
            frames of files, images and streams are scaled to it, whatever their aspect.
        fps: frames a second. A V4L2 or CSI camera and the test pattern are asked for it; a file and images are played
            at it; of a stream, frames beyond it are not captured.
        rotate: clockwise, in degrees.
        loop: whether a file or images begin anew at their end.
        seek_s: where a file begins, in seconds.
        transport: of RTSP. UDP saves some milliseconds where nothing is lost, TCP loses nothing.
        timeout_s: how long a camera or a stream may give nothing until it is lost.
        pace: whether a file, images or the test pattern take the time between two frames that they say, or come as
            fast as they are read; None: a file and the pattern do, images do if `fps` is given.

    Raises:
        UsageError: a value is out of its range.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    rotate: Rotation = 0
    loop: bool = False
    seek_s: float = 0.0
    transport: Transport = "tcp"
    timeout_s: float = 5.0
    pace: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.size is not None and not _is_size(self.size):
            size = self.size
            shown = "x".join(map(str, size)) if isinstance(size, tuple) and len(size) == 2 else repr(size)
            raise UsageError(f"size is {shown}; give a width and a height from 1 to 16384")
        if self.fps is not None and not (is_finite(self.fps) and 0 < self.fps <= 1000):
            raise UsageError(f"rate is {_shown(self.fps)}; give frames a second above 0, up to 1000")
        if self.rotate not in get_args(Rotation):
            raise UsageError(f"rotate is {self.rotate}; give 0, 90, 180 or 270 (degrees, clockwise)")
        for name, flag in (("loop", self.loop), ("pace", self.pace)):
            if not isinstance(flag, bool) and not (name == "pace" and flag is None):
                raise UsageError(f"{name} is {flag!r}; give True or False")
        if not (is_finite(self.seek_s) and self.seek_s >= 0):
            raise UsageError(f"seek is {_shown(self.seek_s)}; give seconds, 0 or more")
        if self.transport not in get_args(Transport):
            raise UsageError(f"transport is {self.transport!r}; give 'tcp' or 'udp'")
        if not (is_finite(self.timeout_s) and 0.1 <= self.timeout_s <= 3600):
            raise UsageError(f"timeout is {_shown(self.timeout_s)}; give seconds from 0.1 to 3600")


def _is_size(size: object) -> bool:
    if not isinstance(size, tuple) or len(size) != 2:
        return False
    return all(type(side) is not bool and isinstance(side, Integral) and 1 <= int(side) <= 16384 for side in size)


def _shown(number: object) -> str:
    return f"{number:g}" if isinstance(number, float) else repr(number)


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """A URI, and the options after its last "#" where there are any that look like options.

    Nothing of a user or a password is an option, nor of the name of a file or a folder that exists.

    Example:
        >>> split_options("film.mp4#loop=yes,rate=5")
        ('film.mp4', {'loop': 'yes', 'rate': '5'})

    Raises:
        UsageError: options stand behind a "?", as in a web address, or where one ends is not clear.
    """
    if os.path.exists(text):
        return text, {}
    if misplaced := _MISPLACED.fullmatch(text):
        path, options = misplaced.group("path"), misplaced.group("options").replace("&", ",")
        right = without_credentials(f"{path}#{options}")
        raise UsageError(f"the options of a source stand behind a '#', not a '?': '{right}'")
    begin = end_of_credentials(text)
    found = _OPTIONS.search(text, begin)
    if found is None:
        if unclear := _UNCLEAR.search(text, begin):
            raise UsageError(
                f"the options of a source are {unclear.group()!r}; give NAME=VALUE[,NAME=VALUE...], and no '=', ',' or "
                "'#' in a value"
            )
        return text, {}
    pairs = (pair.partition("=") for pair in found.group("options").split(","))
    return text[: found.start()], {key: value for key, _, value in pairs}


def with_options(options: SourceOptions, given: Mapping[str, str]) -> SourceOptions:
    """Options, with those that a URI brought over them; "name" is none of them and is left out.

    Raises:
        UsageError: there is no such option, or its value is out of its range.
    """
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _KEYS:
            raise UsageError(f"a source has no option {key!r}; it has {', '.join(_KEYS)}")
        if key == "size":
            changes["size"] = size_from(value)
        elif key in ("loop", "pace"):
            changes[key] = flag_from(key, value)
        elif key == "transport":
            changes["transport"] = value
        elif key == "rotate":
            changes["rotate"] = whole_number_from(key, value)
        elif key != "name":
            field = {"rate": "fps", "seek": "seek_s", "timeout": "timeout_s"}[key]
            changes[field] = number_from_text(value, key)
    return replace(options, **changes)


def size_from(text: str) -> tuple[int, int]:
    """(width, height) of "1280x720".

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if found is None:
        raise UsageError(f"size is {text!r}; give WIDTHxHEIGHT, such as 1280x720")
    return int(found.group(1)), int(found.group(2))


def whole_number_from(key: str, text: str) -> int:
    """A whole number that an option has.

    Raises:
        UsageError: it is none.
    """
    if not re.fullmatch(r"\d{1,9}", text):
        raise UsageError(f"{key} is {text!r}; give a whole number")
    return int(text)


def flag_from(key: str, text: str) -> bool:
    """Yes or no.

    Raises:
        UsageError: it is neither.
    """
    if text.lower() not in _YES_OR_NO:
        raise UsageError(f"{key} is {text!r}; give yes or no")
    return _YES_OR_NO[text.lower()]
