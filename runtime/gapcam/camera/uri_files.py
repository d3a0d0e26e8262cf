"""`@FILE` in the place of a URI: what is on a command line, every user of the machine can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gapcam.errors import DataError, UsageError


def uris_from_texts(texts: Sequence[str]) -> list[str]:
    """The URIs; for one that is `@FILE`, the lines of that file, without empty ones and those that begin with a '#'.

    Raises:
        DataError: the file cannot be read.
        UsageError: there is no URI in it.
    """
    return [uri for text in texts for uri in (_lines(Path(text[1:])) if text.startswith("@") else [text])]


def files_in(texts: Sequence[str]) -> list[Path]:
    """The files among such texts."""
    return [Path(text[1:]) for text in texts if text.startswith("@")]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DataError(f"cannot read URIs from {path}: {reason}") from None
    lines = [line.strip() for line in text.splitlines()]
    uris = [line for line in lines if line and not line.startswith("#")]
    if not uris:
        raise UsageError(f"there is no URI in {path}; give one a line")
    return uris
