"""Compiles CUDA C++ with NVRTC: no toolkit, no driver and no GPU is needed."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

from gapcam.errors import BackendError, MissingExtraError

OPTIONS: dict[str, Any] = {"std": "c++17", "fma": False, "device_as_default_execution_space": True}
"""Multiplications and additions are contracted only where the source says so: kernels give the same bits everywhere.

Lambdas in kernels are device code also for NVRTC 13.0, which takes those whose arguments are `auto` for the host's.
"""

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_PROPERTIES = re.compile(r"Function properties for (\w+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_MOST_ERRORS = 3


@dataclass(frozen=True, slots=True)
class KernelUsage:
    """What one kernel takes of a GPU, as ptxas says.

    Attributes:
        name: of the kernel.
        registers: of a thread.
        stack_bytes: of local memory for arrays of a thread that are not in registers.
        spilled_bytes: written to and read from local memory for want of registers, in all.
        shared_bytes: static shared memory of a block.
    """

    name: str
    registers: int
    stack_bytes: int
    spilled_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class CompiledKernels:
    """Code for one architecture.

    Attributes:
        cubin: for `Driver.load`.
        kernels: what each takes, in the order of their names.
        log: of the compiler, with its warnings.
    """

    cubin: bytes
    kernels: tuple[KernelUsage, ...]
    log: str


def nvrtc_version() -> tuple[int, int]:
    """NVRTC's version, such as (13, 2).

    Raises:
        MissingExtraError: it is not installed.
        BackendError: it does not load.
    """
    try:
        from cuda.bindings import nvrtc
        from cuda.pathfinder import DynamicLibNotFoundError
    except ImportError as error:
        raise MissingExtraError("cuda-core", "cuda") from error
    try:
        code, major, minor = nvrtc.nvrtcVersion()
    except DynamicLibNotFoundError as error:
        raise MissingExtraError("nvidia-cuda-nvrtc", "cuda") from error
    except RuntimeError as error:  # what the bindings raise where the library lacks a function
        raise BackendError(f"NVRTC does not load: {error}; `gapcam doctor` says what fits together") from error
    if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC does not answer: {code.name}; `gapcam doctor` says what fits together")
    return int(major), int(minor)


def compile_kernels(source: str, architecture: str) -> CompiledKernels:
    """Compile CUDA C++ that includes nothing.

    Args:
        source: the text.
        architecture: such as "sm_87".

    Raises:
        MissingExtraError: cuda-core or NVRTC is not installed.
        BackendError: NVRTC does not know the architecture, or the source is not right.
    """
    version = nvrtc_version()
    try:
        from cuda.core import Program, ProgramOptions
        from cuda.core._utils.cuda_utils import CUDAError
    except ImportError as error:
        raise MissingExtraError("cuda-core", "cuda") from error
    log = io.StringIO()
    options = ProgramOptions(name="kernels.cu", arch=architecture, ptxas_options=["-v"], **OPTIONS)
    try:
        cubin = Program(source, "c++", options).compile("cubin", logs=log).code
    except CUDAError as error:
        raise BackendError(_what_matters(str(error), architecture, version)) from error
    return CompiledKernels(bytes(cubin), tuple(_usages(log.getvalue())), log.getvalue().strip("\0\n"))


def _what_matters(message: str, architecture: str, version: tuple[int, int]) -> str:
    compiler = f"NVRTC {version[0]}.{version[1]}"
    if "--gpu-architecture" in message:
        return (
            f"{compiler} does not compile for {architecture}; install one that does (CUDA 13's for SM 75 and newer, "
            "CUDA 12's for SM 50 to 120): `gapcam doctor` names it"
        )
    errors = [line.strip() for line in message.splitlines() if re.search(r"\berror\b|\bfatal\b", line)]
    shown = "; ".join(errors[:_MOST_ERRORS]) or message.strip("\0\n ")
    more = f"; and {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
    return f"{compiler} does not compile kernels.cu for {architecture}: {shown}{more}"


def _usages(log: str) -> list[KernelUsage]:
    """Read from `ptxas -v`: of each function its frame and spills; of an entry, before or after them, its registers."""
    entries: dict[str, tuple[int, int]] = {}
    frames: dict[str, tuple[int, int]] = {}
    entry = function = ""
    for line in log.splitlines():
        if match := _ENTRY.search(line):
            entry = match[1]
        elif match := _PROPERTIES.search(line):
            function = match[1]
        elif match := _STACK.search(line):
            frames[function] = (int(match[1]), int(match[2]) + int(match[3]))
        elif match := _REGISTERS.search(line):
            shared = _SHARED.search(line)
            entries[entry] = (int(match[1]), int(shared[1]) if shared else 0)
    return [
        KernelUsage(name, registers, *frames[name], shared) for name, (registers, shared) in sorted(entries.items())
    ]
