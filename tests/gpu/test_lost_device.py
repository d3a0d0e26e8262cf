"""A kernel that does what it must not costs the process its device; it says so in a line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gpu_machine import KERNELS, need_device, need_pycuda

SCRIPT = f"""
import sys
from pathlib import Path
import numpy as np
from cuda.core import Program, ProgramOptions
from gapcam.cuda.open_driver import open_driver
from gapcam.errors import BackendError

driver = open_driver(sys.argv[1])
program = Program(Path({str(KERNELS)!r}).read_text(), "c++", ProgramOptions(arch=driver.architecture))
with driver.active():
    module = driver.load(bytes(program.compile("cubin").code))
    stream, memory = driver.stream(), driver.allocate(4)
    held = driver.pinned((10,), np.uint8)
    nowhere = [np.uint64(64), np.int32(1), np.int32(1)]
    driver.launch(module.function("fill"), (1, 1, 1), (32, 1, 1), nowhere, stream)
    for attempt in (stream.synchronize, lambda: driver.allocate(1)):
        try:
            attempt()
        except BackendError as error:
            print(error)
"""


@pytest.mark.parametrize("name", ["cuda-core", "pycuda"])
def test_a_device_that_is_lost_is_said_in_a_line(name: str) -> None:
    need_device()
    if name == "pycuda":
        need_pycuda()
    run = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT, name], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert "finish what was queued" in first
    assert "the context is lost: end this process and start it anew" in first
    assert "allocate 1 bytes" in second
    assert "the context is lost" in second
