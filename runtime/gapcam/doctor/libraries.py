"""Where a machine has the shared libraries that inference on a GPU needs: by file name, nothing is loaded.

The dynamic loader looks into LD_LIBRARY_PATH, the folders of /etc/ld.so.conf and its own (ld.so(8)); what lies in
Python packages is found only by who loads it from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gapcam.cuda.wheels import CUDA_WHEELS
from gapcam.doctor.facts import Library
from gapcam.doctor.machine import Machine

_KNOWN = re.compile(
    r"lib(cuda|cudart|cublas|cublasLt|cudnn|cufft|curand|nvrtc|nvinfer|nvonnxparser|tensorrt_rtx)\.so\.\d+"
)
_SYSTEM = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_WHEELS = (*CUDA_WHEELS, "tensorrt_libs", "tensorrt_rtx_libs")
"""Those that gapcam, or a module that it imports, loads libraries from."""
_MOST_INCLUDES = 200


def libraries(machine: Machine) -> dict[str, tuple[Library, ...]]:
    """The libraries that matter, by soname, in the order in which the loader would find them."""
    found: dict[str, dict[str, Library]] = {}
    for folder, wheel in _folders(machine):
        at = machine.root / folder.lstrip("/")
        try:
            names = sorted(entry.name for entry in at.iterdir())
        except OSError:
            continue
        for name in names:
            match = _KNOWN.match(name)  # libnvinfer.so.10.3.0 stands for libnvinfer.so.10, too
            if match:
                found.setdefault(match[0], {}).setdefault(folder, Library(folder=folder, wheel=wheel))
    return {soname: tuple(places.values()) for soname, places in sorted(found.items())}


def _folders(machine: Machine) -> Iterator[tuple[str, bool]]:
    for folder in machine.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder.startswith("/"):
            yield folder.rstrip("/"), False
    for folder in _configured(machine.root, "/etc/ld.so.conf"):
        yield folder, False
    for folder in _SYSTEM:
        yield folder, False
        for triplet in _MULTIARCH:
            yield f"{folder}/{triplet}", False
    for site in dict.fromkeys(machine.search_path):
        at = machine.root / site.lstrip("/")
        for pattern in _WHEELS:
            for folder_at in sorted(at.glob(pattern)):
                yield "/" + folder_at.relative_to(machine.root).as_posix(), True


def _configured(root: Path, name: str, seen: set[str] | None = None) -> Iterator[str]:
    """The folders of a file like /etc/ld.so.conf, with those that it includes."""
    seen = set() if seen is None else seen
    if name in seen or len(seen) > _MOST_INCLUDES:
        return
    seen.add(name)
    try:
        lines = (root / name.lstrip("/")).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                relative = pattern.lstrip("/") if pattern.startswith("/") else f"etc/{pattern}"
                for path in sorted(root.glob(relative)):
                    yield from _configured(root, "/" + path.relative_to(root).as_posix(), seen)
        elif words and words[0].startswith("/"):
            yield words[0].rstrip("/")
