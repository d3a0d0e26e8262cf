"""Compiles the kernels' own source for the CPU: a shared library with the interface that host_shim.h describes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "runtime" / "gapcam" / "cuda" / "kernels.cu"
SHIM = HERE / "host_shim.h"

_FLAGS = [
    *("-std=c++17", "-O2", "-g", "-shared", "-fPIC", "-pthread"),
    # This machine's fused multiply-add, without which each is a slow call; but only where the source says so.
    *("-march=native", "-ffp-contract=off", "-fno-strict-aliasing"),
    *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=0"),  # its longjmp refuses to change stacks
    # What a GPU faults at or leaves undefined, as a signal that the shim reports with its line.
    "-fsanitize=alignment,shift,signed-integer-overflow,integer-divide-by-zero,bounds,float-cast-overflow",
    "-fsanitize-undefined-trap-on-error",
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-attributes"),
]
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")


def compiler() -> str | None:
    """The C++ compiler: $CXX or g++, or None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def host_library(folder: Path, source: Path = SOURCE) -> Path:
    """The library, compiled into a folder unless it is there; several processes may ask at once.

    Raises:
        RuntimeError: the source is not right; the message is the compiler's.
    """
    library = folder / f"lib{source.stem}_host.so"
    with FileLock(f"{library}.lock"):
        if not library.exists():
            _compile(source, library)
    return library


def _compile(source: Path, library: Path) -> None:
    names = _KERNEL.findall(re.sub(r"//[^\n]*|/\*.*?\*/", "", source.read_text(), flags=re.DOTALL))
    unit = library.with_suffix(".cpp")
    table = "".join(f"    HOST_KERNEL({name})\n" for name in names)
    unit.write_text(
        f'#include "{SHIM}"\n#include "{source}"\n'
        f"namespace host {{\nconst Entry entries[] = {{\n{table}    {{nullptr, nullptr, nullptr}},\n}};\n}}\n"
    )
    unfinished = library.with_suffix(".unfinished")
    run = subprocess.run(
        [compiler() or "g++", *_FLAGS, "-x", "c++", str(unit), "-o", str(unfinished)], capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{source.name} does not compile for the host:\n{run.stderr}")
    unfinished.replace(library)
