"""What this process holds of the machine: memory, threads, open files."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Use:
    """At one moment.

    Attributes:
        threads: names of Python's threads, and how many have each.
        native: threads as the system sees and calls them; Python's are called "python".
        files: what is open, and how often.
        children: process ids.
    """

    threads: Counter[str]
    native: Counter[str]
    files: Counter[str]
    children: tuple[str, ...]

    def beyond(self, earlier: Use) -> dict[str, list[str]]:
        """What is held now and was not then."""
        return {
            "threads": sorted((self.threads - earlier.threads).elements()),
            "native threads": sorted((self.native - earlier.native).elements()),
            "files": sorted((self.files - earlier.files).elements()),
            "processes": sorted(set(self.children) - set(earlier.children)),
        }


def use() -> Use:
    """Now."""
    files: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            files[_kind(str(entry.readlink()))] += 1
        except FileNotFoundError:  # noqa: PERF203 - the folder itself was open while it was read
            continue
    native: Counter[str] = Counter()
    children: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            native[(task / "comm").read_text().strip()] += 1
            children += (task / "children").read_text().split()
    return Use(
        threads=Counter(thread.name for thread in threading.enumerate()),
        native=native,
        files=files,
        children=tuple(children),
    )


def left_over(before: Use, timeout_s: float = 5) -> dict[str, list[str]]:
    """What is held now and was not then; threads have a moment to end, and what lies in cycles is collected."""
    until = time.monotonic() + timeout_s
    gc.collect()
    while any((held := use().beyond(before)).values()) and time.monotonic() < until:
        time.sleep(0.1)
    return held


def memory_mb() -> tuple[float, float]:
    """(resident, anonymous) memory of this process in MB (10^6 bytes); the rest of the resident is files' pages."""
    found = {"Rss": 0, "Anonymous": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        if key in found:
            found[key] = int(value.split()[0]) * 1024
    return found["Rss"] / 1e6, found["Anonymous"] / 1e6


def _kind(target: str) -> str:
    """Sockets and pipes have numbers, which are others each time."""
    return target.split(":")[0] if target.startswith(("socket:", "pipe:", "anon_inode:")) else target
