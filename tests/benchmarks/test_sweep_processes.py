"""A block's process: what it says is heard, however it ends is told, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapcam.errors import ExitCode
from gapcam_bench.block import Block, Request, ScenarioSettings
from gapcam_bench.block_file import read_block, write_block
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.sweep import processes
from gapcam_bench.sweep.lifeline import PARENT
from gapcam_bench.sweep.processes import BlockError, Patience, measure_in_process, patience

pytestmark = pytest.mark.slow  # whole commands, in processes of their own

REQUEST = Request(cell=Cell(model="m.onnx"), file="m.onnx")

# What a worker that hangs does: it says its number and waits for ever.
HANGS = """
import os, pathlib, sys, time
from gapcam_bench.sweep.lifeline import end_with_parent
end_with_parent()
pid = pathlib.Path(sys.argv[2], "pid")
pid.with_name("pid.new").write_text(str(os.getpid()))
pid.with_name("pid.new").rename(pid)
print('{"phase": "warm-up", "done": 0.5}', flush=True)
time.sleep(600)
"""
MEASURES = """
import sys, pathlib
from gapcam_bench.sweep.processes import measure_in_process
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
measure_in_process(
    Request(cell=Cell(model="m.onnx"), file="m.onnx"), pathlib.Path(sys.argv[1]), worker=sys.argv[2],
    on_phase=lambda phase, done: print(phase, flush=True),
)
"""
# The same with a patience whose time begins with the worker's first word, however long it takes to start.
MEASURES_WITH_PATIENCE = """
import sys, pathlib, time, types
from gapcam_bench.sweep import processes
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell

heard = []

def on_phase(phase, done):
    heard.append(time.monotonic())
    print(phase, flush=True)

processes.time = types.SimpleNamespace(monotonic=lambda: time.monotonic() - heard[0] if heard else 0.0)
processes.measure_in_process(
    Request(cell=Cell(model="m.onnx"), file="m.onnx"), pathlib.Path(sys.argv[1]), worker=sys.argv[2],
    allowed=processes.Patience(float(sys.argv[3]), float(sys.argv[4])), on_phase=on_phase,
)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of a text, for fresh processes to run; gives its name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def make(text: str) -> str:
        (folder / "a_worker.py").write_text(text, encoding="utf-8")
        return "a_worker"

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "block"
    found.mkdir()
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended, perhaps not yet looked at by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def patience_begins_when(holds: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for who listens to a worker before that."""
    since: list[float] = []

    def monotonic() -> float:
        if not since and holds():
            since.append(time.monotonic())
        return time.monotonic() - since[0] if since else 0.0

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=monotonic))


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.02)


def test_phases_are_heard_among_other_output_and_the_request_is_what_was_asked(
    worker: Callable[[str], str], folder: Path
) -> None:
    name = worker(
        "import sys, json, pathlib\n"
        "request = json.loads(pathlib.Path(sys.argv[1]).read_text())\n"
        "print('a library says hello')\n"
        'print(\'{"phase": "load", "done": 0.25}\')\n'
        "print('[1, 2]')\n"
        "pathlib.Path(sys.argv[2], 'seen').write_text(request['file'])\n"
    )
    heard: list[tuple[str, float]] = []
    measure_in_process(REQUEST, folder, worker=name, on_phase=lambda phase, done: heard.append((phase, done)))
    assert heard == [("load", 0.25)]
    assert [path.name for path in folder.iterdir()] == ["seen"]
    assert (folder / "seen").read_text() == "m.onnx"


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [
        ('print(\'{"error": "there is no file m.onnx", "exit_code": 3}\')', "there is no file m.onnx", 3),
        ("import sys; sys.exit(7)", "ended with exit code 7", 70),
        (
            "import os, sys; sys.stderr.write('out of\\nmemory\\n'); sys.stderr.flush(); os.kill(os.getpid(), 9)",
            "was ended by SIGKILL (the system does so where memory is full); the last it said: out of | memory",
            3,
        ),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV", 3),
        ("raise ValueError('wrong')", "the last it said: ", 70),
    ],
)
def test_how_a_process_failed_is_told(
    worker: Callable[[str], str], folder: Path, text: str, said: str, code: int
) -> None:
    with pytest.raises(BlockError) as caught:
        measure_in_process(REQUEST, folder, worker=worker(text))
    assert said in str(caught.value)
    assert caught.value.worker_exit_code == code
    assert caught.value.by_signal == ("was ended by" in said)


@pytest.mark.parametrize(
    ("allowed", "said"),
    [(Patience(0.5, 60), "hung: no word from it for 0 s"), (Patience(60, 1), "not done after 1 s")],
)
def test_a_process_that_hangs_is_killed(
    worker: Callable[[str], str], folder: Path, allowed: Patience, said: str
) -> None:
    with pytest.raises(BlockError, match=said) as caught:
        measure_in_process(REQUEST, folder, worker=worker(HANGS), allowed=allowed)
    assert caught.value.worker_exit_code == ExitCode.MODEL
    assert not caught.value.by_signal
    pid = folder / "pid"
    assert not pid.exists() or is_gone(int(pid.read_text()))


def test_what_a_hanging_process_has_started_is_killed_with_it(
    worker: Callable[[str], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = worker(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "new = pathlib.Path(sys.argv[2], 'pid.new')\n"
        "new.write_text(str(child.pid))\n"
        "new.rename(new.with_suffix(''))\n"
        "time.sleep(600)\n"
    )
    patience_begins_when((folder / "pid").exists, monkeypatch)
    with pytest.raises(BlockError, match="hung"):
        measure_in_process(REQUEST, folder, worker=name, allowed=Patience(0.5, 60))
    pid = int((folder / "pid").read_text())
    wait_until(lambda: is_gone(pid))


def test_a_process_that_says_nothing_more_but_does_not_end_is_killed(
    worker: Callable[[str], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = worker("import os, time\nos.close(1)\ntime.sleep(600)")
    patience_begins_when(lambda: False, monkeypatch)
    with pytest.raises(BlockError, match="did not end within"):
        measure_in_process(REQUEST, folder, worker=name, allowed=Patience(0.5, 60))


@pytest.mark.parametrize("after", ["os.kill(os.getpid(), 9)", "time.sleep(600)", "os.close(1); time.sleep(600)"])
def test_a_whole_block_counts_however_its_process_ends(
    worker: Callable[[str], str],
    folder: Path,
    make_block: Callable[..., Block],
    after: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = folder.parent / "made"
    made.mkdir()
    write_block(make_block(REQUEST.cell, 0), made)
    name = worker(
        f"import os, shutil, sys, time\nshutil.copytree({str(made)!r}, sys.argv[2], dirs_exist_ok=True)\n"
        f"open({str(folder.parent / 'whole')!r}, 'w').close()\n{after}\n"
    )
    patience_begins_when((folder.parent / "whole").exists, monkeypatch)
    measure_in_process(REQUEST, folder, worker=name, allowed=Patience(1, 60))
    assert read_block(folder).facts.key == REQUEST.cell.key
    assert not (folder / "request.json").exists()
    (folder / "block.npz").unlink()
    name = worker(f"import os, time\n{after}\n")
    with pytest.raises(BlockError):
        measure_in_process(REQUEST, folder, worker=name, allowed=Patience(1, 60))


@pytest.mark.parametrize("allowed", [Patience(1.5, 60), Patience(60, 3)])
def test_time_in_which_the_parent_was_stopped_is_not_the_workers(
    worker: Callable[[str], str], folder: Path, allowed: Patience
) -> None:
    """Ctrl-Z: the worker is in a session of its own, goes on, and is done long before its parent is."""
    name = worker(
        'import pathlib, sys, time\nprint(\'{"phase": "load"}\', flush=True)\ntime.sleep(0.7)\n'
        "print('{\"phase\": \"check\"}', flush=True)\ntime.sleep(0.7)\npathlib.Path(sys.argv[2], 'done').touch()\n"
    )
    patient = str(allowed.silent_s), str(allowed.total_s)
    parent = subprocess.Popen(
        [sys.executable, "-c", MEASURES_WITH_PATIENCE, str(folder), name, *patient], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"load\n"
        parent.send_signal(signal.SIGSTOP)
        wait_until((folder / "done").exists)
        time.sleep(3)
        parent.send_signal(signal.SIGCONT)
        assert parent.stdout.read() == b"check\n"
        assert parent.wait(60) == 0


def test_patience_grows_with_the_limits() -> None:
    short, long = patience(Limits()), patience(Limits(most_seconds=1000))
    assert long.silent_s > 1000 > short.silent_s
    assert long.total_s > long.silent_s


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_it(
    worker: Callable[[str], str], folder: Path, number: signal.Signals
) -> None:
    name = worker(HANGS)
    parent = subprocess.Popen(
        [sys.executable, "-c", MEASURES, str(folder), name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert parent.stdout.readline() == b"warm-up\n"
        pid = int((folder / "pid").read_text())
        assert not is_gone(pid)
        parent.send_signal(number)
        parent.wait(60)
    wait_until(lambda: is_gone(pid))


def test_without_the_kernels_help_the_end_of_standard_input_ends_a_process() -> None:
    script = (
        "import time\nfrom gapcam_bench.sweep import lifeline\nlifeline.sys = type('s', (), {'platform': 'other'})\n"
    )
    script += "lifeline.end_with_parent()\nprint('ready', flush=True)\ntime.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, PARENT: str(os.getpid())},
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(60) == 1


def test_what_a_killed_worker_has_put_down_is_in_its_blocks_folder(
    tiny_model_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    long = Limits(least_seconds=60, most_seconds=60, warm_up_least_seconds=0.05, warm_up_most_seconds=0.2)
    request = Request(
        cell=Cell(model="m.onnx", frame=(64, 64), threads=1),
        file=str(tiny_model_file),
        limits=long,
        settings=ScenarioSettings(generator="mlcommons"),
    )

    def interrupt(phase: str, _done: float) -> None:
        if phase == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_in_process(request, folder, on_phase=interrupt)
    assert not list(temporary.glob("*loadgen*"))
    assert [path.name.partition("-")[0] for path in folder.iterdir() if path.is_dir()] == ["loadgen"]
