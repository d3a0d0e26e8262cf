"""Makes the libcuda.so.1 of host_cuda/, which is no GPU, and the environment of a process that takes it for one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

from filelock import FileLock

SOURCES = Path(__file__).parent / "host_cuda"


def cuda_headers() -> Path | None:
    """The folder of cuda.h: of NVIDIA's wheels, or the toolkit's; None where there is none."""
    folders = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    nvidia = importlib.util.find_spec("nvidia")
    if nvidia is not None and nvidia.submodule_search_locations is not None:
        folders[:0] = [Path(place) / "cu13" / "include" for place in nvidia.submodule_search_locations]
    return next((folder for folder in folders if (folder / "cuda.h").exists()), None)


def host_libcuda(folder: Path) -> Path:
    """The folder with libcuda.so.1, compiled unless it is there; several processes may ask at once."""
    library = folder / "host_cuda" / "libcuda.so.1"
    library.parent.mkdir(exist_ok=True)
    with FileLock(f"{library}.lock"):
        if not library.exists():
            unfinished = library.with_suffix(".unfinished")
            flags = ["-std=c++17", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread"]
            linked = ["-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic", f"-I{cuda_headers()}"]
            sources = sorted(str(source) for source in SOURCES.glob("*.cpp"))
            command = [os.environ.get("CXX", "g++"), *flags, *linked, *sources, "-o", str(unfinished), "-ldl"]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"the host's libcuda does not compile:\n{run.stderr}")
            unfinished.replace(library)
    return library.parent


def host_environment(libcuda: Path, kernels: list[Path], **settings: str) -> dict[str, str]:
    """The environment of a process that finds the host's libcuda, and these libraries of kernels in it.

    `settings` are what host_cuda.hpp reads besides, without GAPCAM_HOST_CUDA_.
    """
    return {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libcuda}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "GAPCAM_HOST_CUDA_KERNELS": ":".join(map(str, kernels)),
        **{f"GAPCAM_HOST_CUDA_{name}": value for name, value in settings.items()},
    }
