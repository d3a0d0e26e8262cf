"""Tests for a CUDA device, with both drivers. What the machine lacks is skipped by its name.

tests/runtime/cuda/test_host_libcuda.py runs them on a machine without a GPU as well, on a libcuda of our own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

# pytest's importlib mode finds no helpers beside the tests
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "runtime" / "cuda"))

import pytest
from gpu_machine import cubin, need_device, need_pycuda

from gapcam.cuda.driver import Driver, Module
from gapcam.cuda.open_driver import open_driver


@pytest.fixture(params=["cuda-core", "pycuda"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A device by each of the libraries, active."""
    need_device()
    if request.param == "pycuda":
        need_pycuda()
    opened = open_driver(request.param)
    with opened.active():
        yield opened
    opened.close()


@pytest.fixture
def cuda_core() -> Iterator[Driver]:
    """A device by cuda.core, active."""
    need_device()
    opened = open_driver("cuda-core")
    with opened.active():
        yield opened
    opened.close()


@pytest.fixture(scope="session")
def compiled() -> dict[str, bytes]:
    """driver_kernels.cu by architecture, as far as it was needed."""
    return {}


@pytest.fixture
def kernels(driver: Driver, compiled: dict[str, bytes]) -> Module:
    """driver_kernels.cu on the device."""
    if driver.architecture not in compiled:
        compiled[driver.architecture] = cubin(driver.architecture)
    return driver.load(compiled[driver.architecture])
