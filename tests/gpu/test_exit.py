"""A process that ends while it holds things on the device ends in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gpu_machine import KERNELS, need_device, need_pycuda

SCRIPT = f"""
import sys
import threading
from pathlib import Path
import numpy as np
from cuda.core import Program, ProgramOptions
from gapcam.cuda.open_driver import open_driver

if sys.argv[2:]:
    import pycuda.autoinit
driver = open_driver(sys.argv[1])
program = Program(Path({str(KERNELS)!r}).read_text(), "c++", ProgramOptions(arch=driver.architecture))
code = bytes(program.compile("cubin").code)
held = []

def hold():
    with driver.active():
        stream = driver.stream()
        held.extend([driver.allocate(100), driver.pinned((10,), np.uint8), stream, driver.event(), driver.load(code)])
        held.append(held[-1].function("fill"))
        if driver.has_graphs:
            with driver.capture(stream) as capture:
                pass
            held.extend([capture, capture.graph()])

hold()
thread = threading.Thread(target=hold)
thread.start()
thread.join()
held.append(held)  # a cycle
print(driver.name)
"""


@pytest.mark.parametrize("arguments", [["cuda-core"], ["pycuda"], ["auto", "autoinit"]], ids=" ".join)
def test_a_process_ends_in_silence(arguments: list[str]) -> None:
    need_device()
    if arguments != ["cuda-core"]:
        need_pycuda()
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.returncode == 0
    assert run.stdout.startswith("cuda.core" if arguments == ["cuda-core"] else "PyCUDA")
