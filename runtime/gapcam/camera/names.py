"""Names of sources and sinks, which go into logs, files, topics and metrics."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gapcam.errors import UsageError

_UNSEEN = {"Cc": "a control character", "Cf": "an unseen character", "Cs": "half a character"}
_UNSEEN |= {"Zl": "a line break", "Zp": "a line break"}
"""Categories of Unicode's that change how other text is shown, or cannot be written."""


def check_name(name: str, what: str) -> None:
    """Refuse a name whose characters are not all seen.

    Args:
        name: that was given.
        what: it names, for the message: "source" or "sink".

    Raises:
        UsageError: one is a control character, or one that turns the writing round or takes no room.
    """
    for character in name:
        kind = _UNSEEN.get(unicodedata.category(character))
        if kind is not None:
            code = f"U+{ord(character):04X}"
            raise UsageError(f"a {what}'s name is {name[:80]!a}, with {kind} ({code}); leave it out")


def check_different(names: Sequence[str], what: str) -> None:
    """Refuse a name that two have.

    Args:
        names: that were given.
        what: they name, for the message: "source" or "sink".

    Raises:
        UsageError: two are the same.
    """
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two {what}s are called {name!r}; give them different names")


def shown_name(name: str) -> str:
    r"""A name from anywhere with such characters written out, as in "\u202e"."""
    if name.isprintable():
        return name
    return "".join(
        one.encode("unicode_escape").decode("ascii") if unicodedata.category(one) in _UNSEEN else one for one in name
    )
