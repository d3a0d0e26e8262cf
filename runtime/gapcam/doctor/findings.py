"""What `gapcam doctor` makes of the facts."""

from __future__ import annotations

from enum import Enum
from typing import Literal

import msgspec

from gapcam.cuda.driver_fit import OLDEST_CUDA
from gapcam.doctor.facts import Facts

DeviceName = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
GPU_DEVICES: tuple[DeviceName, ...] = ("cuda", "tensorrt", "tensorrt-rtx")
DEVICES: tuple[DeviceName, ...] = ("cpu", *GPU_DEVICES)


class Level(str, Enum):
    """How much it matters."""

    PROBLEM = "problem"
    """Something that is here cannot work as it is."""
    NOTE = "note"
    """Something is absent that would be of use, or works with a restriction."""
    OK = "ok"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One of them.

    Attributes:
        level: how much it matters.
        subject: what it is about, such as "ONNX Runtime".
        found: what is there.
        expected: what should be, and why; empty where that is what was found.
        command: what mends it: a line for a shell, or None.
        devices: which do not work because of it.
    """

    level: Level
    subject: str
    found: str
    expected: str = ""
    command: str | None = None
    devices: tuple[DeviceName, ...] = ()


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What `device=...` of `gapcam.load` would do here.

    Attributes:
        name: its name there.
        works: whether something ran on it, or, for engine files, whether their runtime is ready.
        says: what would run, or why nothing does.
    """

    name: DeviceName
    works: bool
    says: str


def has_gpu(facts: Facts) -> bool:
    """Whether there is hardware of NVIDIA's, with or without a driver."""
    driver = facts.driver
    return bool(facts.jetson or driver.gpus or driver.pci or driver.module or driver.nodes)


def gpu_works(facts: Facts) -> bool:
    """Whether the driver has a device to offer."""
    return bool(facts.driver.gpus)


def driver_major(facts: Facts) -> int | None:
    """The major version of the newest CUDA that the driver runs; None without a driver."""
    return None if facts.driver.cuda is None else facts.driver.cuda[0]


def driver_too_old(facts: Facts) -> bool:
    """Whether there is a GPU whose driver runs nothing that gapcam could drive it with."""
    return gpu_works(facts) and (driver_major(facts) or 0) < OLDEST_CUDA
