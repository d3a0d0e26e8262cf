"""What a program pays before its first answer: time, and memory. Imports no more than the standard library."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import perf_counter

from gapcam_bench.cell import GAPCAM, Cell

_ENGINE_MAGIC = b"\x89GAPCAM\n"
_PATH = ("gapcam", "gapcam.session")
_ON_DEVICE = ("gapcam.cuda.device_path", "gapcam.cuda.cuda_core_driver")


def import_seconds(cell: Cell, file: Path) -> float:
    """The time of importing gapcam and the engine's library, or of a peer's packages.

    Into a process that has imported NumPy and msgspec, and neither gapcam nor OpenCV nor an engine. What is not
    installed takes no time here; opening the subject says what is missing.
    """
    modules = _modules(cell, file)
    began = perf_counter()
    for module in modules:
        with suppress(ImportError):
            import_module(module)
    return perf_counter() - began


def _modules(cell: Cell, file: Path) -> tuple[str, ...]:
    if cell.subject != GAPCAM:
        from gapcam_bench.peers.names import PEERS

        return tuple(PEERS[cell.subject].packages) if cell.subject in PEERS else ()
    with suppress(OSError), file.open("rb") as opened:
        if opened.read(len(_ENGINE_MAGIC)) == _ENGINE_MAGIC:
            library = "tensorrt_rtx" if cell.device.startswith("tensorrt-rtx") else "tensorrt"
            return (*_PATH, "gapcam.backends.tensorrt", *_ON_DEVICE, library)
    if cell.device == "cpu":
        return (*_PATH, "gapcam.backends.onnxruntime")
    return (*_PATH, "gapcam.backends.onnxruntime_gpu", *_ON_DEVICE)


class PeakMemory:
    """The largest resident memory of this process while its subject worked.

    From VmHWM in /proc/self/status. (ru_maxrss of getrusage would be wrong: it outlives fork and exec, so that a child
    of a large process begins with its parent's peak.) It cannot be taken back: what the benchmark itself does comes
    after it was noted, or takes less than any subject's libraries.

    Args:
        root: where /proc is.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._status = root / "proc/self/status"
        self._peak: int | None = None

    @property
    def nbytes(self) -> int | None:
        """So far; None where the system does not say."""
        return self._peak

    def take(self) -> None:
        """Note the peak up to now, after a piece of the subject's work."""
        found = _vm_hwm(self._status)
        if found is not None:
            self._peak = max(found, self._peak or 0)


def _vm_hwm(status: Path) -> int | None:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def device_memory(cell: Cell) -> int | None:
    """Bytes of GPU memory that NVIDIA's driver counts for this process; None where it does not say.

    It does not on Jetson, whose memory is the host's, and in containers that hide process ids. The number is of now:
    engines take what they need when they load and run first, and keep it.
    """
    if cell.device == "cpu":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    used: list[int] = []
    try:
        pynvml.nvmlInit()
        try:
            for number in range(pynvml.nvmlDeviceGetCount()):  # NVML's numbers are not CUDA's; the process is on one
                device = pynvml.nvmlDeviceGetHandleByIndex(number)
                running = pynvml.nvmlDeviceGetComputeRunningProcesses(device)
                used += [each.usedGpuMemory for each in running if each.pid == os.getpid() and each.usedGpuMemory]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return sum(used) or None
