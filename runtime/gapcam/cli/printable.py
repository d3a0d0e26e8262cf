"""Text of strangers for a terminal: names and labels come out of files, and some characters are commands to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, among them what begins an escape sequence; ends of lines; and what turns the writing round."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text whose control characters are written out, as in "\x1b[31m".

    Args:
        text: from anywhere.
        lines: leave line feeds as they are.
    """
    if text.isprintable():
        return text
    return _COMMANDS.sub(lambda found: found[0] if lines and found[0] == "\n" else _written_out(found[0]), text)


def all_printable(value: Any) -> Any:
    """The same of every text in a value as JSON has them, keys included."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {all_printable(key): all_printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_printable(item) for item in value]
    return value


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
