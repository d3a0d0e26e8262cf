"""What `gapcam doctor` found out about a machine. Facts only: what they mean is for `gapcam.doctor.judge`."""

from __future__ import annotations

import msgspec

Version = tuple[int, ...]


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The system and the Python that runs gapcam.

    Attributes:
        system: "Linux", "Windows", "Darwin".
        machine: "x86_64", "aarch64".
        name: of the distribution and its version, such as "Ubuntu 22.04.4 LTS".
        python: its version.
        virtual: whether it is that of a virtual environment.
        wsl: whether Linux runs inside Windows (WSL 2).
        container: "docker", "podman", or "container" for another; None outside.
    """

    system: str
    machine: str
    name: str
    python: Version
    virtual: bool
    wsl: bool
    container: str | None


class Jetson(msgspec.Struct, frozen=True, kw_only=True):
    """An NVIDIA Jetson.

    Attributes:
        model: such as "NVIDIA Jetson Orin Nano Developer Kit".
        l4t: the version of Jetson Linux, such as (36, 4, 3); None where /etc/nv_tegra_release does not say.
    """

    model: str
    l4t: Version | None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A CUDA device as the driver describes it.

    Attributes:
        name: such as "Orin".
        capability: major and minor, such as (8, 7).
        memory: in bytes.
    """

    name: str
    capability: tuple[int, int]
    memory: int


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """NVIDIA's driver.

    Attributes:
        pci: how many of NVIDIA's display controllers are on the PCI bus; a Jetson's GPU is not there.
        module: the kernel module's version from /proc/driver/nvidia/version, such as "550.54.15".
        nodes: the device files that are there.
        closed: those of them that this user may not open.
        cuda: the newest CUDA that it runs, such as (12, 4); None where libcuda does not load.
        code: cuInit's error number; None where libcuda does not load.
        error: why libcuda does not load, or what stopped the question.
        gpus: the devices.
    """

    pci: int = 0
    module: str | None = None
    nodes: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    cuda: tuple[int, int] | None = None
    code: int | None = None
    error: str | None = None
    gpus: tuple[Gpu, ...] = ()


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """An installed distribution.

    Attributes:
        version: as it says.
        folder: that holds it.
    """

    version: str
    folder: str


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A shared library.

    Attributes:
        folder: that holds it.
        wheel: whether that is a Python package's, which the dynamic loader does not search by itself.
    """

    folder: str
    wheel: bool


class OnnxRuntimeFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The package onnxruntime as its files describe it, without loading them.

    Attributes:
        package: the distribution that wrote them last, such as "onnxruntime-gpu".
        version: of it.
        cuda: that it was built with, such as (13, 0); None for a build without.
        providers: the shared libraries that each provider needs, by the provider's name, such as "cuda".
    """

    package: str
    version: str
    cuda: Version | None
    providers: dict[str, tuple[str, ...]]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a library said in a process of its own.

    Attributes:
        values: by name; empty where it did not get that far.
        error: why it did not; None where all went well.
        absent: whether the reason is that it is not installed.
    """

    values: dict[str, str | int | bool | list[int | str] | None] = {}
    error: str | None = None
    absent: bool = False


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to write to.

    Attributes:
        path: of it.
        error: why nothing can be written there; None where it can.
        free: bytes that are free there; None where that cannot be told.
    """

    path: str
    error: str | None
    free: int | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        gapcam: its version.
        platform: the system.
        jetson: None on other machines.
        driver: NVIDIA's.
        distributions: those that matter, by name, as this Python sees them.
        hidden: those that the system's Python has and this one does not see.
        libraries: those that matter, by soname, the one that the loader takes first.
        onnxruntime: None where there is no such package.
        answers: what libraries said, by the question's name (see `gapcam.doctor.native`).
        cache: where compiled kernels and engines are kept.
        memory: bytes of memory that are available.
    """

    gapcam: str
    platform: Platform
    jetson: Jetson | None
    driver: Driver
    distributions: dict[str, Distribution]
    hidden: dict[str, Distribution]
    libraries: dict[str, tuple[Library, ...]]
    onnxruntime: OnnxRuntimeFiles | None
    answers: dict[str, Answer]
    cache: Folder
    memory: int | None
