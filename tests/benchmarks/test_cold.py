"""Peak memory is that of the subject's work, from recorded files and for real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from gapcam_bench.cell import Cell
from gapcam_bench.cold import PeakMemory, _modules, device_memory


def a_status(root: Path, kilobytes: int | None) -> None:
    folder = root / "proc" / "self"
    folder.mkdir(parents=True, exist_ok=True)
    peak = "" if kilobytes is None else f"VmHWM:\t{kilobytes:8} kB\n"
    (folder / "status").write_text(f"Name:\tpython\nVmPeak:\t 9999 kB\n{peak}VmRSS:\t 10 kB\n")


def test_the_peak_is_read_and_is_the_greatest_that_was_noted(tmp_path: Path) -> None:
    a_status(tmp_path, 1000)
    memory = PeakMemory(tmp_path)
    assert memory.nbytes is None
    memory.take()
    assert memory.nbytes == 1000 * 1024
    a_status(tmp_path, 900)  # since then
    memory.take()
    assert memory.nbytes == 1000 * 1024
    a_status(tmp_path, 1200)
    memory.take()
    assert memory.nbytes == 1200 * 1024


def test_a_system_that_does_not_say_has_no_peak(tmp_path: Path) -> None:
    memory = PeakMemory(tmp_path)
    memory.take()
    assert memory.nbytes is None
    a_status(tmp_path, None)
    memory.take()
    assert memory.nbytes is None


def test_a_child_of_a_large_process_does_not_begin_with_its_peak() -> None:
    """As it does by ru_maxrss, on Linux."""
    large = np.ones(200 << 20, np.uint8)
    program = (
        "from gapcam_bench.cold import PeakMemory\n"
        "memory = PeakMemory()\n"
        "memory.take()\n"
        "print(memory.nbytes)\n"
        "held = bytearray(b'1') * (100 << 20)\n"
        "memory.take()\n"
        "print(memory.nbytes)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    own, with_it = (int(line) for line in found.stdout.split())
    assert large.nbytes == 200 << 20
    assert own < 100 << 20
    assert with_it > 100 << 20


def test_what_is_imported_is_what_the_cell_runs_on(tmp_path: Path) -> None:
    onnx, engine = tmp_path / "model.onnx", tmp_path / "model.engine"
    onnx.write_bytes(b"\x08\x0a")
    engine.write_bytes(b"\x89GAPCAM\nrest")
    assert _modules(Cell(model="m", device="cpu"), onnx)[-1] == "gapcam.backends.onnxruntime"
    assert "gapcam.backends.onnxruntime_gpu" in _modules(Cell(model="m", device="cuda:1"), onnx)
    assert _modules(Cell(model="m", device="tensorrt"), engine)[-1] == "tensorrt"
    assert _modules(Cell(model="m", device="tensorrt-rtx"), engine)[-1] == "tensorrt_rtx"
    assert "openvino" in _modules(Cell(model="m", subject="openvino, fp32"), onnx)


def test_there_is_no_device_memory_where_there_is_no_device() -> None:
    assert device_memory(Cell(model="m", device="cpu")) is None
    assert device_memory(Cell(model="m", device="cuda")) is None, "NVIDIA's driver is not here"
