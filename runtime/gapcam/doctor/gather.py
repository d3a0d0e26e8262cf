"""Facts about a machine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from gapcam._version import __version__
from gapcam.doctor.elf import needed_libraries
from gapcam.doctor.facts import (
    Answer,
    Distribution,
    Driver,
    Facts,
    Folder,
    Gpu,
    Jetson,
    OnnxRuntimeFiles,
    Platform,
    Version,
)
from gapcam.doctor.libraries import libraries
from gapcam.doctor.machine import Machine
from gapcam.doctor.native import QUESTIONS

_DISTRIBUTIONS = re.compile(
    r"gapcam|numpy|msgspec|onnx|onnxruntime([-_].*)?|opencv[-_].*|pycuda|cuda[-_](core|bindings|python|pathfinder|toolkit)"
    r"|nvidia[-_](cuda[-_](nvrtc|runtime)|cudnn|cublas|curand|cufft)([-_]cu\d+)?|tensorrt([-_].*)?|torch"
)
_SYSTEM_SITES = ("usr/lib/python3*/dist-packages", "usr/local/lib/python3*/dist-packages")
"""Where apt puts Python packages; a virtual environment does not see them."""

_NODES = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/nvmap", "dev/dxg")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""A PCI vendor, and the class of display controllers."""

_AT_ONCE = 4
"""Processes that are asked at the same time."""


def gather(machine: Machine, *, after_question: Callable[[], None] = lambda: None) -> Facts:
    """All facts about a machine.

    Args:
        machine: which.
        after_question: called after each of `gapcam.doctor.native.QUESTIONS`, for a progress display.
    """
    seen = _distributions(machine.root, machine.search_path)
    hidden = _distributions(
        machine.root,
        [f"/{at.relative_to(machine.root)}" for pattern in _SYSTEM_SITES for at in sorted(machine.root.glob(pattern))],
    )
    answers = _answers(machine, after_question)
    return Facts(
        gapcam=__version__,
        platform=_platform(machine),
        jetson=_jetson(machine.root),
        driver=_driver(machine, answers.pop("driver")),
        distributions=seen,
        hidden={name: found for name, found in hidden.items() if name not in seen},
        libraries=libraries(machine),
        onnxruntime=_onnxruntime(machine),
        answers=answers,
        cache=_cache(machine),
        memory=_available_memory(machine.root),
    )


def _answers(machine: Machine, after_question: Callable[[], None]) -> dict[str, Answer]:
    def ask(question: str) -> Answer:
        answer = machine.ask(question)
        after_question()
        return answer

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(QUESTIONS, pool.map(ask, QUESTIONS), strict=True))


def _platform(machine: Machine) -> Platform:
    root, (system, processor) = machine.root, machine.uname
    release = _key_values(_read(root / "etc/os-release"))
    return Platform(
        system=system,
        machine=processor,
        name=release.get("PRETTY_NAME") or system,
        python=machine.python,
        virtual=machine.virtual,
        wsl="microsoft" in _read(root / "proc/sys/kernel/osrelease").lower(),
        container=_container(root, machine.environ),
    )


def _container(root: Path, environ: Mapping[str, str]) -> str | None:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    if environ.get("container"):  # set by podman, systemd-nspawn and others
        return environ["container"]
    text = _read(root / "proc/1/cgroup")
    return "container" if re.search(r"docker|kubepods|containerd|lxc", text) else None


def _jetson(root: Path) -> Jetson | None:
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / "etc/nv_tegra_release"))
    model = _read(root / "proc/device-tree/model").strip("\0\n ")
    if release is None and not re.search(r"NVIDIA.*(Jetson|Orin|Thor|Xavier)", model):
        return None
    l4t = None if release is None else (int(release[1]), *_version(release[2]))
    return Jetson(model=model or "NVIDIA Jetson", l4t=l4t)


def _driver(machine: Machine, answer: Answer) -> Driver:
    root, said = machine.root, answer.values
    nodes = [at for pattern in _NODES for at in sorted(root.glob(pattern))]
    module = re.search(r"NVRM version:.*?\s(\d+\.\d[\d.]*)\s", _read(root / "proc/driver/nvidia/version") + " ")
    version, code = _int(said.get("version")), said.get("code")
    names, capabilities, memories = (_list(said.get(name)) for name in ("names", "capabilities", "memories"))
    return Driver(
        pci=_display_controllers(root),
        module=module[1] if module else None,
        nodes=tuple(f"/{node.relative_to(root)}" for node in nodes),
        closed=tuple(f"/{node.relative_to(root)}" for node in nodes if not machine.may_open(node)),
        cuda=(version // 1000, version % 1000 // 10) if version else None,
        code=code if isinstance(code, int) else None,
        error=answer.error,
        gpus=tuple(
            Gpu(name=str(name), capability=(int(major), int(minor)), memory=int(memory))
            for name, major, minor, memory in zip(names, capabilities[::2], capabilities[1::2], memories, strict=True)
        ),
    )


def _display_controllers(root: Path) -> int:
    return sum(
        _read(device / "vendor").strip() == _NVIDIA and _read(device / "class").startswith(_DISPLAY)
        for device in root.glob("sys/bus/pci/devices/*")
    )


def _distributions(root: Path, folders: Sequence[str]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for folder in dict.fromkeys(folders):
        for one in distributions(path=[str(root / folder.lstrip("/"))]):
            name, version = one.metadata["Name"], one.metadata["Version"]  # None where its files are damaged
            if name and version and _DISTRIBUTIONS.fullmatch(name.lower()):
                found.setdefault(_normal(name), Distribution(version=version, folder=folder))
    return dict(sorted(found.items()))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _onnxruntime(machine: Machine) -> OnnxRuntimeFiles | None:
    for folder in machine.search_path:
        package = machine.root / folder.lstrip("/") / "onnxruntime" / "capi"
        about = _key_values(_read(package / "build_and_package_info.py"))
        if "package_name" not in about:
            continue
        prefix = "libonnxruntime_providers_"
        providers = {
            path.stem.removeprefix(prefix): needed_libraries(path)
            for path in sorted(package.glob(f"{prefix}*.so"))
            if path.stem != f"{prefix}shared"
        }
        cuda = about.get("cuda_version", "")
        return OnnxRuntimeFiles(
            package=about["package_name"],
            version=about.get("__version__", ""),
            cuda=_version(cuda) if cuda else None,
            providers=providers,
        )
    return None


def _cache(machine: Machine) -> Folder:
    """That folder, or where it would be made."""
    folder = machine.cache
    at = machine.root / folder.lstrip("/")
    while not at.exists() and at != machine.root:
        at = at.parent
    error = None
    if not at.is_dir():
        error = f"/{at.relative_to(machine.root)} is no folder"
    elif not os.access(at, os.W_OK | os.X_OK):
        error = f"/{at.relative_to(machine.root)} may not be written to"
    try:
        free: int | None = shutil.disk_usage(at).free
    except OSError:
        free = None
    return Folder(path=folder, error=error, free=free)


def _available_memory(root: Path) -> int | None:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _key_values(text: str) -> Mapping[str, str]:
    """Lines of NAME=value, with or without spaces and quotation marks."""

    def pairs() -> Iterator[tuple[str, str]]:
        for line in text.splitlines():
            name, equals, value = line.partition("=")
            if equals:
                yield name.strip(), value.strip().strip("'\"")

    return dict(pairs())


def _version(text: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
