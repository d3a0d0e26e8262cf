"""Texts of the command line that carry options of their own: `tabby:enter=0.6,leave=0.4`."""

from __future__ import annotations

import re

from gapcam.errors import UsageError

_OPTION = r"\s*[a-z]+\s*=[^,:=]*"
_WITH_OPTIONS = re.compile(rf"(.*):(\s*|{_OPTION}(?:,{_OPTION})*)", re.DOTALL)


def split_options(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the options, and these as pairs of a name and a text, in their order.

    The last colon begins them, if they have the form NAME=VALUE[,NAME=VALUE...]; a colon within a label does not. A
    label that ends like options itself is written with one more colon behind it.

    Example:
        >>> split_options("tabby:enter=0.6,leave=0.4")
        ('tabby', [('enter', '0.6'), ('leave', '0.4')])
        >>> split_options("drake: male")
        ('drake: male', [])
    """
    match = _WITH_OPTIONS.fullmatch(text)
    if match is None:
        return text.strip(), []
    pairs = [part.partition("=") for part in match[2].split(",") if part.strip()]
    return match[1].strip(), [(name.strip(), value.strip()) for name, _, value in pairs]


def number_from_text(text: str, what: str) -> float:
    """A number of an option.

    Raises:
        UsageError: it is none; the message says which option.
    """
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{what} is {text!r}; give a number") from None
