"""Room to work in: the cache's folder, memory, disk."""

from __future__ import annotations

from collections.abc import Iterator

from gapcam.doctor.facts import Facts
from gapcam.doctor.findings import Finding, Level, gpu_works
from gapcam.doctor.fits import LARGE_BUILD_BYTES, SMALL_DISK_BYTES


def check_cache(facts: Facts) -> Iterator[Finding]:
    """Whether compiled kernels and timing caches can be kept."""
    cache = facts.cache
    if cache.error is not None:
        yield Finding(
            level=Level.NOTE,
            subject="cache",
            found=f"{cache.path}: {cache.error}",
            expected="a folder to keep compiled kernels and timing caches in; without, each start makes them anew",
            command="export GAPCAM_CACHE_DIR=/a/folder/of/yours",
        )
    elif cache.free is not None and cache.free < SMALL_DISK_BYTES:
        yield Finding(
            level=Level.NOTE,
            subject="cache",
            found=f"{cache.path}, with {cache.free / 2**20:.0f} MiB free",
            expected="room for engines, each about as large as its network's weights",
        )
    else:
        free = "" if cache.free is None else f", {cache.free / 2**30:.1f} GiB free"
        yield Finding(level=Level.OK, subject="cache", found=f"{cache.path}{free}")


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Whether an engine can be built here. A Jetson's GPU has no memory of its own."""
    memory = facts.memory
    if memory is None:
        return
    found = f"{memory / 2**30:.1f} GiB available"
    if gpu_works(facts) and memory < LARGE_BUILD_BYTES:
        yield Finding(
            level=Level.NOTE,
            subject="memory",
            found=found,
            expected="2 GiB or more to build engines in, which takes more than to run them",
            command="sudo systemctl isolate multi-user.target   # ends a Jetson's desktop",
        )
    else:
        yield Finding(level=Level.OK, subject="memory", found=found)
