"""What the tests for GPUs ask of the machine, and the kernels that they launch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from cuda.core import Program, ProgramOptions

from gapcam.cuda.driver import Driver
from gapcam.cuda.presence import presence

KERNELS = Path(__file__).parent / "driver_kernels.cu"


def need_device() -> None:
    """Skip the test where there is no CUDA device."""
    if presence().problem:
        pytest.skip(f"no CUDA device: {presence().problem}")


def is_host(driver: Driver) -> bool:
    """Whether it is the libcuda of host_cuda/, which other libraries than the drivers' cannot use."""
    return "not a GPU" in driver.device_name


def need_pycuda() -> None:
    """Skip the test where PyCUDA is not installed."""
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("PyCUDA is not installed: pip install 'gapcam[pycuda]'")


def cubin(architecture: str) -> bytes:
    """driver_kernels.cu, compiled."""
    program = Program(KERNELS.read_text(), "c++", ProgramOptions(arch=architecture))
    return bytes(program.compile("cubin").code)
