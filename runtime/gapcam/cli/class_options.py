"""Classes as people name them on a command line: labels, indices, several with commas between."""

from __future__ import annotations

from gapcam.classes import ClassNames
from gapcam.errors import ClassNotFoundError


def class_indices(text: str, names: ClassNames) -> list[int]:
    """The classes that an option names. A label may hold a comma, so the whole text is tried first.

    Raises:
        ClassNotFoundError: there is no such class, or several share the label.
    """
    try:
        return [names.resolve_text(text)]
    except ClassNotFoundError:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if len(parts) < 2:
            raise
    return [names.resolve_text(part) for part in parts]
