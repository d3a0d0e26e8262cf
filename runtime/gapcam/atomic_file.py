"""Writes a file whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from gapcam.errors import DataError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room for a file."""


def cannot_write(path: Path | str, error: OSError) -> DataError:
    """What to raise where the system does not write a file, with what to do."""
    room = "make room, or " * (error.errno in FULL_DISK)
    return DataError(f"cannot write {path}: {error.strerror or error}; {room}choose another place")


def check_writable(path: Path) -> None:
    """Notice before long work that a file cannot be written.

    Raises:
        DataError: `path` is a folder or too long, or its folder cannot be made or written to.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # a name that is too long, links in a circle, a folder that is closed
        raise DataError(f"{path} cannot be written: {error.strerror}; choose another place.") from error
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected the name of a file to write, which may be in it.")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file, and would be replaced by one; choose another place.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "may not be written to" if folder.is_dir() else "is a file, not a folder"
        raise DataError(f"{path} cannot be written: {folder} {what}; choose another place.")


def check_spares(path: Path, others: Iterable[Path | None]) -> None:
    """Notice before long work that writing a file would destroy another one: an input, or another output.

    Raises:
        DataError: `path` is one of `others`, perhaps by another name.
    """
    written = os.path.realpath(path)  # `resolve` raises where links go round in a circle
    for other in others:
        if other is not None and os.path.realpath(other) == written:
            raise DataError(f"{path} would be written over {other}, which would be lost; name another file.")


def write_atomically(path: Path, *parts: bytes | bytearray | memoryview) -> None:
    """Write a file through a temporary one beside it, so that nobody ever sees half of it.

    Not even after a power cut: the content is on the disk before it takes the name. Each file costs a flush of the
    disk, which takes longest on memory cards.

    Args:
        path: of the file.
        parts: what it will hold, one after the other; large ones need not be joined.

    Raises:
        DataError: the place cannot be written; an older file there is left as it was.
    """
    # Not made from the file's name, which may be as long as a name can be.
    temporary = path.with_name(f".gapcam-{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
