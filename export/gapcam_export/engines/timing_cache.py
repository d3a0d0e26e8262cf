"""What TensorRT measured of its kernels in earlier builds, so that a second build of a like network is much faster.

Kept in the cache folder, one file for each TensorRT version and GPU. A cache that cannot be read or written costs time,
and is no error.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gapcam.atomic_file import write_atomically
from gapcam.cache_folder import cache_folder
from gapcam.errors import DataError
from gapcam_export.engines.gpu import Gpu

_WAIT_SECONDS = 10


def timing_cache_path(version: str, gpu: Gpu) -> Path:
    """Of the cache of a TensorRT version on a GPU."""
    name = re.sub(r"[^\w.]+", "-", f"{version}-{gpu.architecture}-{gpu.name}").strip("-").lower()
    return cache_folder() / "timing" / f"{name}.cache"


def read_timings(config: Any, path: Path) -> Any:
    """Give a build what earlier ones measured.

    Args:
        config: TensorRT's builder configuration.
        path: of the cache; where there is none, or a damaged one, the build begins a new one.

    Returns:
        TensorRT's cache, which must live until the engine is built.
    """
    content = b""
    with suppress(OSError):
        content = path.read_bytes()
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def write_timings(config: Any, path: Path) -> str:
    """Keep what a build measured, beside what others measured meanwhile.

    Returns:
        Why it could not be kept; "" if it was.
    """
    cache = config.get_timing_cache()
    if cache is None:
        return ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_WAIT_SECONDS):
            if path.exists():
                others = config.create_timing_cache(path.read_bytes())
                if others is not None:
                    cache.combine(others, False)
            write_atomically(path, bytes(memoryview(cache.serialize())))
    except (OSError, DataError, Timeout) as error:
        return f"TensorRT's timings could not be kept: {error}"
    return ""
