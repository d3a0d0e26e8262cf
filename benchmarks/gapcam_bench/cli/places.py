"""Where a run's report goes: what is incomplete never takes the place of what is complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

OUTPUTS = ("json", "html", "csv", "markdown")
"""Options that name the report's files."""


class _Head(msgspec.Struct):
    complete: Any = None


def places(options: Mapping[str, Any], *, complete: bool) -> dict[str, Path | None]:
    """The files of a report, by option: those that were asked for, or of an incomplete one others beside them.

    The result's file decides for all, since they are of one run; where none is asked for, any file that is there.

    Args:
        options: the paths of `OUTPUTS`; None for none.
        complete: whether all was measured.
    """
    asked: dict[str, Path | None] = {name: options[name] for name in OUTPUTS}
    if complete:
        return asked
    deciding = [asked["json"]] if asked["json"] is not None else list(asked.values())
    while any(path is not None and _is_kept(path) for path in deciding):
        asked = {name: None if path is None else partial(path) for name, path in asked.items()}
        deciding = [asked["json"]] if asked["json"] is not None else []
    return asked


def partial(path: Path) -> Path:
    """RESULT.partial.json for RESULT.json."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _is_kept(path: Path) -> bool:
    """Whether there is a file that may be complete: any but a result that says that it is not."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    try:
        return msgspec.json.decode(content, type=_Head).complete is not False
    except msgspec.DecodeError:
        return True
