"""Compiles the kernels with the NVRTC of older CUDA versions, which devices have. No GPU is needed.

    python tests/gpu/old_nvrtc.py FOLDER

Each version is installed into an environment of its own in FOLDER, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "runtime"
NEEDS = ("cuda-core==1.2.2", "cuda-pathfinder==1.8.3", "numpy", "msgspec")
VERSIONS = {
    "12.2": ("nvidia-cuda-nvrtc-cu12==12.2.140", "cuda-bindings==12.9.10"),  # JetPack 6.0
    "12.6": ("nvidia-cuda-nvrtc-cu12==12.6.85", "cuda-bindings==12.9.10"),  # JetPack 6.1 and 6.2
    "13.0": ("nvidia-cuda-nvrtc==13.0.88", "cuda-bindings==13.4.4"),  # JetPack 7
}
ARCHITECTURES = ("sm_75", "sm_87", "sm_90")

COMPILE = """
import sys
from gapcam.cuda.kernel_cache import kernel_source
from gapcam.cuda.nvrtc import compile_kernels, nvrtc_version

version, *architectures = sys.argv[1:]
found = "{}.{}".format(*nvrtc_version())
assert found == version, f"NVRTC {found} was found, not {version}"
for architecture in architectures:
    kernels = compile_kernels(kernel_source(), architecture).kernels
    assert kernels and all(kernel.spilled_bytes == kernel.stack_bytes == 0 for kernel in kernels), kernels
    print(f"NVRTC {found}, {architecture}: {len(kernels)} kernels, all in registers")
"""


def compile_with(version: str, folder: Path) -> bool:
    """Compile for all architectures; whether that went well."""
    python, installed = folder / "bin" / "python", folder / "installed"
    if not installed.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([str(python), *install, *NEEDS, *VERSIONS[version]], check=True)
        installed.touch()
    environment = os.environ | {"PYTHONPATH": str(RUNTIME)}
    return subprocess.run([str(python), "-c", COMPILE, version, *ARCHITECTURES], env=environment).returncode == 0


if __name__ == "__main__":
    into = Path(sys.argv[1]).resolve()
    failed = [version for version in VERSIONS if not compile_with(version, into / version)]
    sys.exit(f"error: the kernels do not compile with NVRTC {', '.join(failed)}" if failed else 0)
