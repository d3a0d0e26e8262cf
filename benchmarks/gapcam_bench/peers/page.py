"""A Markdown page of which the part between two marks is written by a command."""

from __future__ import annotations

from pathlib import Path

from gapcam.errors import DataError

BEGIN = "<!-- begin: gapcam bench peers -->"
END = "<!-- end: gapcam bench peers -->"


def page_with(path: Path, text: str) -> str:
    """A page's content with `text` between its marks; just that, where there is no page yet, or an empty one.

    Raises:
        DataError: it cannot be read, has no marks (all of it would be lost), or its marks are not one pair.
    """
    head, tail = _around(path)
    return f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}"


def is_part_of_a_page(path: Path) -> bool:
    """Whether there is something around the marks: somebody else's page.

    Raises:
        DataError: as `page_with`.
    """
    return any(part.strip() for part in _around(path))


def _around(path: Path) -> tuple[str, str]:
    """What is before the marks of a page, and what is behind them."""
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "", "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not before.strip():
        return "", "\n"
    count = before.count(BEGIN), before.count(END)
    if count == (0, 0):
        raise DataError(
            f"{path} is there, and all of it would be replaced. Put the lines {BEGIN} and {END} where the tables "
            "belong, or name another file."
        )
    if count != (1, 1) or before.index(BEGIN) > before.index(END):
        raise DataError(
            f"{path} has {count[0]} of {BEGIN!r} and {count[1]} of {END!r}; expected one pair, in that order"
        )
    return before[: before.index(BEGIN)], before[before.index(END) + len(END) :]
