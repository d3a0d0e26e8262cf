"""A password or key that a file holds."""

from __future__ import annotations

from pathlib import Path

from gapcam.errors import DataError, UsageError

_LONGEST = 4096


def secret_from_file(path: Path) -> str:
    """What a file holds, without white space around it.

    Raises:
        DataError: it cannot be read.
        UsageError: it is empty, holds several lines, or is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise DataError(f"the secret in {path} cannot be read: {error.strerror}") from None
    try:
        secret = data.decode().strip()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text; expected a file that holds a secret in one line") from None
    if not secret or len(data) > _LONGEST or len(secret.splitlines()) > 1:
        raise UsageError(f"{path} holds no secret; expected one line of at most {_LONGEST} characters")
    return secret
