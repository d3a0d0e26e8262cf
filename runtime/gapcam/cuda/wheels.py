"""CUDA's libraries from NVIDIA's Python packages: they lie where the dynamic loader does not look by itself."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

CUDA_WHEELS = ("nvidia/*/lib",)
"""Their folders, as patterns below a folder of sys.path."""


def load_from_wheels(sonames: Sequence[str], search_path: Sequence[str] | None = None) -> None:
    """Load what the loader does not find by itself, so that a library that links it finds it loaded.

    What is in no package is left to whoever links it: its message names it.

    Args:
        sonames: in the order in which they are loaded, such as "libcublas.so.13".
        search_path: Python's, by default this process's.
    """
    for soname in sonames:
        for file in ("", *_files(soname, sys.path if search_path is None else search_path)):
            try:
                ctypes.CDLL(file or soname)
                break
            except OSError:
                continue


def _files(soname: str, search_path: Sequence[str]) -> list[str]:
    return [
        str(file)
        for place in dict.fromkeys(search_path)
        for pattern in CUDA_WHEELS
        for file in sorted(Path(place or ".").glob(f"{pattern}/{soname}"))
    ]
