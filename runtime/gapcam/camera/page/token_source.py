"""Where the page's token comes from: a file, or the environment. Never the command line, which others can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gapcam.camera.page.server_options import check_token
from gapcam.errors import DataError, UsageError

TOKEN_VARIABLE = "GAPCAM_CAMERA_TOKEN"  # noqa: S105 - the name of it


def read_token(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token, from the file where one is given, else from GAPCAM_CAMERA_TOKEN; None where there is neither.

    White space around it does not belong to it.

    Raises:
        DataError: the file cannot be read.
        UsageError: the token is too short, or holds what no header can carry.
    """
    if file is not None:
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise DataError(f"cannot read the token from {file}: {reason}") from None
        where = str(file)
    elif TOKEN_VARIABLE in environment:
        token, where = environment[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    try:
        check_token(token)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return token
