"""Memory that frames leave behind goes back to the system, on Linux with glibc.

glibc gives threads heaps ("arenas") of their own, up to eight for each core, and raises the size from which memory is
mapped apart from them to that of the largest block that was freed, up to 32 MiB. Frames and pictures then lie in the
heaps of a dozen threads, between small objects that stay, and each heap grows to its own high water mark: the resident
memory of a camera app creeps up for an hour, by some 50 MB. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import sys

ARENAS = 2
MAPPED_FROM = 128 * 1024
"""Bytes. What is larger is mapped by itself, and unmapped when it is freed. It costs a page fault for each 4 KiB."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def keep_heap_small() -> bool:
    """Ask glibc to, for the whole process; before threads are started. False where it is another C library.

    A program's own choice: `gapcam camera` makes it, `gapcam.camera` as a library does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    wanted = ((_M_ARENA_MAX, ARENAS), (_M_MMAP_THRESHOLD, MAPPED_FROM), (_M_TRIM_THRESHOLD, MAPPED_FROM))
    return bool(min(mallopt(parameter, value) for parameter, value in wanted) == 1)
