"""Compiled kernels are kept, and nothing that can happen to a cache stops anybody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gapcam.cuda.kernel_cache import cubin
from gapcam.cuda.nvrtc import compile_kernels

pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed")

SOURCE = 'extern "C" __global__ void twice(float *values) { values[threadIdx.x] *= 2; }'
OTHER = SOURCE.replace("2", "3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAPCAM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def compiled() -> bytes:
    return compile_kernels(SOURCE, "sm_87").cubin


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_the_second_time_it_is_read(folder: Path, compiled: bytes) -> None:
    assert cubin(SOURCE, "sm_87") == compiled
    (entry,) = entries(folder)
    assert entry.name.endswith("-sm_87.cubin")
    # Proof that it is read: another source's entry under this one's name is taken for it.
    cubin(OTHER, "sm_87")
    (other,) = set(entries(folder)) - {entry}
    entry.write_bytes(other.read_bytes())
    assert cubin(SOURCE, "sm_87") == compile_kernels(OTHER, "sm_87").cubin != compiled


def test_source_and_architecture_have_entries_of_their_own(folder: Path) -> None:
    codes = {cubin(SOURCE, "sm_87"), cubin(SOURCE, "sm_80"), cubin(OTHER, "sm_87")}
    assert len(codes) == len(entries(folder)) == 3


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit", "of another version", "a folder"])
def test_a_damaged_entry_is_compiled_again(folder: Path, compiled: bytes, damage: str) -> None:
    cubin(SOURCE, "sm_87")
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    damaged = {
        "empty": b"",
        "truncated": whole[:-1],
        "one bit": bytes(changed),
        "of another version": whole.replace(b" 1\n", b" 2\n", 1),
    }
    if damage == "a folder":
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_bytes(damaged[damage])
    assert cubin(SOURCE, "sm_87") == compiled
    if damage != "a folder":
        assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, compiled: bytes) -> None:
    folder.write_text("a file, where the folder should be")
    assert cubin(SOURCE, "sm_87") == compiled
    assert folder.read_text() == "a file, where the folder should be"


def test_two_processes_at_once_get_the_same(folder: Path, compiled: bytes) -> None:
    program = (
        f"import hashlib; from gapcam.cuda.kernel_cache import cubin; "
        f"print(hashlib.sha256(cubin({SOURCE!r}, 'sm_87')).hexdigest())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    digests = {process.communicate(timeout=60)[0] for process in processes}
    assert len(digests) == 1
    assert [process.returncode for process in processes] == [0, 0]
    assert len(entries(folder)) == 1
    assert cubin(SOURCE, "sm_87") == compiled
