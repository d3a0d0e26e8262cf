"""Names of the files that a sink writes: numbered, with the source in them, none used twice."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO
from urllib.parse import quote

from gapcam.errors import UsageError

_LONGEST = 80


def source_part(source: str) -> str:
    """A source's name as part of a file's or a topic's: different for different names, and harmless in all of them."""
    part = quote(source, safe=" ", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(part) <= _LONGEST:
        return part
    return f"{part[: _LONGEST - 13]}-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def check_folder(path: Path) -> None:
    """Notice at the start that a file's folder is missing or cannot be written to.

    Raises:
        UsageError: it is so.
    """
    folder = path.parent
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
        taken = path.exists() and not path.is_file()
    except OSError as error:  # a name that is too long, a folder that is closed
        raise UsageError(f"{path} cannot be written: {error.strerror}; choose another place") from None
    if not is_folder:
        how = "is a file; choose another place" if exists else f"does not exist; make it: mkdir -p '{folder}'"
        raise UsageError(f"{path} cannot be written: the folder {folder} {how}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written: the folder {folder} may not be written to; choose another place")
    try:  # there are places, such as /proc, that say no otherwise than by their modes
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: the folder {folder} takes no file ({error.strerror}); choose another place"
        ) from None
    if taken:
        raise UsageError(f"{path} is no regular file; choose another name")


def identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file or folder have in common; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths mean one file or folder, through links, too; it need not exist."""
    if (found := identity(one)) is not None:
        return found == identity(other)
    try:
        return one.resolve() == other.resolve()
    except (OSError, RuntimeError):  # a loop of links, a folder that is closed
        return one.absolute() == other.absolute()


class FileSeries:
    """Files of one name: NAME.mp4, NAME.0001.mp4, NAME.0002.mp4; of a source NAME.SOURCE.mp4, NAME.0001.SOURCE.mp4.

    Unless files are overwritten, numbers only grow, over several runs, too: the highest number is the newest file.

    Args:
        path: NAME.mp4.
        source: in the names where it is not empty.
        overwrite: the first file has no number, and files there are replaced by those of the same name.
        keep: only the newest so many files stay; 0 keeps all.
    """

    def __init__(self, path: Path, source: str = "", *, overwrite: bool = False, keep: int = 0) -> None:
        self._path, self._overwrite, self._keep = path, overwrite, keep
        self._ending = (f".{source_part(source)}" if source else "") + path.suffix
        self._pattern = re.compile(rf"{re.escape(path.stem)}(?:\.(\d{{4,9}}))?{re.escape(self._ending)}")
        self._next: int | None = 0 if overwrite else None
        self._own: set[int] = set()

    def create(self) -> tuple[Path, BinaryIO]:
        """A new file, open to write and unbuffered, and its name. Old files make room for it.

        Raises:
            OSError: it cannot be made.
        """
        number = self._next if self._next is not None else max(self._existing(), default=-1) + 1
        while True:
            path = self._named(number)
            try:
                file = path.open("wb" if self._overwrite else "xb", buffering=0)
            except FileExistsError:
                number += 1
                continue
            self._next = number + 1
            self._own.add(number)
            self._delete_old()
            return path, file

    def existing(self) -> list[Path]:
        """Its files that are there."""
        try:
            return list(self._existing().values())
        except OSError:  # the folder is closed
            return []

    def meets(self, other: FileSeries) -> bool:
        """Whether both would write to the same files."""
        mine, other_s = self._named(0), other._named(0)
        if is_same_file(mine, other_s):
            return True
        same_names = self._pattern.fullmatch(other_s.name) or other._pattern.fullmatch(mine.name)
        return bool(same_names) and is_same_file(mine.parent, other_s.parent)

    def _named(self, number: int) -> Path:
        return self._path.with_name(self._path.stem + (f".{number:04d}" if number else "") + self._ending)

    def _existing(self) -> dict[int, Path]:
        """Files of this series by their numbers."""
        matches = ((self._pattern.fullmatch(path.name), path) for path in self._path.parent.iterdir())
        return {int(match[1] or 0): path for match, path in matches if match}

    def _delete_old(self) -> None:
        if not self._keep:
            return
        existing = self._existing()
        # Where files are replaced, those of an earlier run may have higher numbers.
        oldest_first = sorted(existing, key=lambda number: (number in self._own, number))
        for number in oldest_first[: -self._keep]:
            existing[number].unlink(missing_ok=True)
