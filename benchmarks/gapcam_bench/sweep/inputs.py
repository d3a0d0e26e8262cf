"""What a sweep is given beside its models: paths as a plan notes them, and what the files there hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from gapcam.errors import DataError, UsageError

LEAST_READ = 64
"""Images of a folder whose content counts: more than a process shows, unless its batch is greater."""


def path_text(path: Path) -> str:
    """A path as plans, requests and results have it: absolute, and Unicode, as JSON is.

    Raises:
        UsageError: it has bytes that are no UTF-8, which the system allows.
    """
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        said = os.fsencode(text).decode(errors="backslashreplace")
        raise UsageError(f"{said} is not UTF-8, and a result's names are; rename it, or what it lies in") from error
    return text


def images_sha256(folder: Path, paths: Sequence[Path], read: int) -> str:
    """What the images of a folder are: 64 hexadecimal digits that change with a name, a size or a content.

    Args:
        folder: that `paths` are in, perhaps in subfolders.
        paths: in their order.
        read: so many of the first are read; of the others, which nothing is measured with, name and size count.

    Raises:
        DataError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for number, path in enumerate(paths):
        try:
            content = path.read_bytes() if number < read else b""
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        digest.update(f"{path.relative_to(folder).as_posix()!a} {size}\n".encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
