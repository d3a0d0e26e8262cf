"""What the tests of the CUDA path share: the kernels, compiled for the host once for all test processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode finds no helpers beside the tests

import pytest
from host_driver import HostDriver
from host_library import compiler
from host_library import host_library as compiled_library


@pytest.fixture(scope="session")
def host_library(shared_folder: Path) -> Path:
    """The kernels as a shared library for this machine's CPU; tests that need it are skipped where g++ is absent."""
    if compiler() is None:
        pytest.skip("no C++ compiler: g++ compiles the kernels for the host")
    return compiled_library(shared_folder)


@pytest.fixture
def host(host_library: Path) -> Iterator[HostDriver]:
    """A driver on the CPU, active. What a test allocates it must free, or let go."""
    driver = HostDriver(host_library)
    with driver.active():
        yield driver
