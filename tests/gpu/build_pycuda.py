"""Builds PyCUDA against the host's libcuda, which is no GPU, so that its driver is tested on machines without one.

    python tests/gpu/build_pycuda.py FOLDER

With FOLDER on PYTHONPATH, tests/runtime/cuda/test_host_libcuda.py runs the suite for GPUs through PyCUDA, too. It takes
a minute or two, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from host_libcuda import cuda_headers, host_libcuda

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NEEDS = ("pycuda", "pytools", "mako", "markupsafe", "platformdirs", "siphash24", "typing_extensions")
PROFILER_HEADERS = "nvidia-cuda-profiler-api>=13,<14"
"""cudaProfiler.h, which the wheels that PyTorch brings do not have."""


def build(folder: Path) -> None:
    """Install PyCUDA and what it needs into a folder, unless it is there."""
    if (folder / "pycuda").is_dir():
        return
    headers = cuda_headers()
    if headers is None:
        sys.exit("error: there is no cuda.h; pip install 'nvidia-cuda-runtime>=13,<14'")
    home = folder / "build"  # where PyCUDA's setup looks for its options
    home.mkdir(parents=True, exist_ok=True)
    (home / ".aksetup-defaults.py").write_text("CUDA_ENABLE_CURAND = False\n")
    libcuda = host_libcuda(home)
    (libcuda / "libcuda.so").unlink(missing_ok=True)
    (libcuda / "libcuda.so").symlink_to("libcuda.so.1")
    install(home / "headers", PROFILER_HEADERS)
    environment = os.environ | {
        "HOME": str(home),
        "CPATH": f"{headers}:{home / 'headers' / 'nvidia' / 'cu13' / 'include'}",
        "LIBRARY_PATH": str(libcuda),
    }
    install(folder, *NEEDS, environment=environment)


def install(target: Path, *requirements: str, environment: dict[str, str] | None = None) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, "--constraint", str(CONSTRAINTS), *requirements]
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve())
