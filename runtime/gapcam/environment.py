"""What a measurement ran on: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

DISTRIBUTIONS = ("gapcam", "numpy", "opencv-python-headless", "onnxruntime")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the versions.

    Attributes:
        cpu: the processor's own name.
        cores: how many logical cores this process may use.
        system: operating system, release and architecture.
        python: its version.
        versions: of the distributions that do the work; one that is absent is left out.
    """

    cpu: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]


def environment() -> Environment:
    """What this process runs on."""
    return Environment(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions=installed_versions(DISTRIBUTIONS),
    )


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed, by name."""
    return {name: found for name in distributions if (found := _version(name))}


def _cpu_name() -> str:
    """From /proc/cpuinfo on x86; many Arm boards have no name there, but one of the board in the device tree."""
    cpuinfo, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    if board.exists():
        return board.read_text(encoding="utf-8").rstrip("\0\n")
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
