"""What glibc is asked for gives memory of frames back that small things lie between."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"

# A large block that is freed makes glibc keep those that are smaller in its heaps, unless it was told not to. There,
# frames that are freed stay for the sake of what lies above them.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from gapcam.camera.heap import keep_heap_small

if sys.argv[1] == "small":
    print(keep_heap_small())
np.ones(20_000_000, np.uint8)
frames, kept = [], []
for _ in range(20):
    frames.append(np.ones(1_000_000, np.uint8))
    kept.append(bytes(2000))
del frames
print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""


def resident_bytes(how: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.skipif(not GLIBC or not Path("/proc/self/statm").exists(), reason="not Linux with glibc")
def test_frames_leave_nothing_behind() -> None:
    worked, small = resident_bytes("small")
    (large,) = resident_bytes("as it is")
    assert worked == "True"
    assert int(large) - int(small) > 15_000_000
