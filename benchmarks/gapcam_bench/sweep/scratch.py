"""Where a worker puts what it needs for a moment: in its block's folder, which whoever started it removes."""

from __future__ import annotations

import os

SCRATCH = "GAPCAM_BENCH_SCRATCH"
"""The environment variable that holds the folder's path."""


def scratch() -> str | None:
    """A folder that goes even where this process is killed; None, for the system's own, where nobody started it so."""
    return os.environ.get(SCRATCH)
