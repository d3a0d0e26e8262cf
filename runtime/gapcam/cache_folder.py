"""Where what can be made again is kept: compiled kernels, TensorRT's timings."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder, which need not exist: GAPCAM_CACHE_DIR, else `gapcam` in XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("GAPCAM_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory Specification).
    if base and Path(base).is_absolute():
        return Path(base) / "gapcam"
    return Path(os.path.expanduser("~")) / ".cache" / "gapcam"  # noqa: PTH111 - Path.home() raises where there is none
