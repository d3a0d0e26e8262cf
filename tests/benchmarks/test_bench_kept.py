"""What is on the disk stays where a run does not come to its end: results, journals, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapcam.errors import ExitCode
from gapcam_bench.cli.places import OUTPUTS, partial, places
from gapcam_bench.peers.page import BEGIN, END
from gapcam_bench.result_file import read_result

pytestmark = pytest.mark.slow  # whole commands, in processes of their own

SMALL = ("--frame", "64x64", "--threads", "1", "--generator", "own", "--quick", "--seconds", "0.05", "--emit", "plain")
FILES = ("--json", "r.json", "--csv", "r.csv", "--markdown", "r.md")

# Kills every worker whose request names a file called by $DIES, as the system does where memory is full.
KILLER = """
import os, sys
if os.environ.get("DIES") and "gapcam_bench.worker" in sys.orig_argv:
    with open(sys.orig_argv[-2]) as request:
        if os.environ["DIES"] in request.read():
            os.kill(os.getpid(), 9)
"""


@pytest.fixture
def here(tiny_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two models."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sitecustomize.py").write_text(KILLER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("good.onnx", "bad.onnx"):
        shutil.copy(tiny_model_file, folder / name)
    return folder


def start(*arguments: str, dies: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gapcam.cli.main", "bench", *arguments]
    environment = {**os.environ, "DIES": dies}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(*arguments: str, dies: str = "") -> tuple[int, str, str]:
    process = start(*arguments, dies=dies)
    out, errors = process.communicate()
    return process.returncode, out, errors


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_run_that_measured_nothing_leaves_what_is_there(here: Path) -> None:
    arguments = ("good.onnx", "bad.onnx", *SMALL, "--rounds", "1", *FILES)
    code, _, errors = run(*arguments)
    assert code == 0, errors
    before = contents(here)
    assert {"r.json", "r.npz", "r.csv", "r.md"} < set(before)
    code, out, errors = run(*arguments, dies=".onnx")
    assert code == ExitCode.MODEL, errors
    assert "SIGKILL" in errors
    assert "FAILED" in out
    assert "nothing was measured; no file was written" in errors
    assert contents(here) == before
    assert not (here / "r.json.part").exists()


def test_a_complete_result_stays_until_there_is_another_and_what_failed_is_tried_again(here: Path) -> None:
    arguments = ("good.onnx", "bad.onnx", *SMALL, "--rounds", "2", *FILES)
    assert run(*arguments)[0] == 0
    before = contents(here)
    code, _, errors = run(*arguments, dies="bad.onnx")
    assert code == ExitCode.PARTIAL, errors
    assert "this run is not complete, so what is there stays: r.json, r.csv, r.md" in errors
    assert "2 of 4 blocks are kept in r.json.part; the same command tries again what failed" in errors
    after = contents(here)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"r.partial.json", "r.partial.npz", "r.partial.csv", "r.partial.md"}
    rows = read_result(Path("r.partial.json")).result.rows
    assert [(row.cell.model, row.status == "failed", row.blocks) for row in rows] == [
        ("good.onnx", False, 2),
        ("bad.onnx", True, 0),
    ]
    code, _, errors = run(*arguments)
    assert code == 0, errors
    assert ": 2 of 4 blocks are there; --fresh begins anew" in errors
    assert "wrote r.json" in errors
    loaded = read_result(Path("r.json"))
    assert loaded.result.complete
    assert [row.blocks for row in loaded.result.rows] == [2, 2]
    assert (here / "r.json").read_bytes() != before["r.json"]
    assert not (here / "r.json.part").exists()


@pytest.mark.parametrize("options", [(), ("--json", "r.json")])
def test_when_the_terminal_is_gone_what_was_measured_is_reported_and_nothing_is_left(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (here / "r.json").write_text('{"complete": true}')
    process = start("good.onnx", *SMALL, "--rounds", "200", *options)
    end = time.monotonic() + 120
    while len([*here.glob("r.json.part/blocks/*"), *temporary.glob("gapcam-bench-*/blocks/*")]) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert "INTERRUPTED" in out
    assert not list(temporary.glob("*gapcam*"))
    assert (here / "r.json").read_text() == '{"complete": true}'
    assert Path("r.partial.json").exists() == bool(options)


def test_a_page_of_peers_keeps_its_tables_where_a_peer_failed(here: Path) -> None:
    arguments = ("peers", "good.onnx", "--peer", "handwritten", "--frame", "64x48", "--rounds", "1", "--seconds", "0")
    (here / "page.md").write_text(f"{BEGIN}\nfigures of a day's work\n{END}\n")
    code, _, errors = run(*arguments, "--markdown", "page.md", dies='"handwritten"')
    assert code == ExitCode.PARTIAL, errors
    assert "page.md stays as it was" in errors
    assert (here / "page.md").read_text() == f"{BEGIN}\nfigures of a day's work\n{END}\n"
    assert "| gapcam" in (here / "page.partial.md").read_text()


def test_only_a_result_that_says_that_it_is_incomplete_is_replaced_by_another(tmp_path: Path) -> None:
    options = {name: tmp_path / f"r.{name}" for name in OUTPUTS}
    beside = {name: tmp_path / f"r.partial.{name}" for name in OUTPUTS}
    result = options["json"]
    assert places(options, complete=False) == options
    for content in ('{"complete": true}', "{}", "[]", "no JSON", "", '{"complete": 0}'):
        result.write_text(content)
        assert places(options, complete=False) == beside, content
        assert places(options, complete=True) == options
    result.write_text(json.dumps({"complete": False, "version": 9}))
    assert places(options, complete=False) == options
    options["html"].write_text("a page")
    assert places(options, complete=False) == options  # of the same run as the incomplete result
    result.write_text('{"complete": true}')
    beside["json"].write_text('{"complete": true}')
    assert places(options, complete=False)["json"] == tmp_path / "r.partial.partial.json"


def test_without_a_result_any_file_that_is_there_stays(tmp_path: Path) -> None:
    options = {**dict.fromkeys(OUTPUTS), "html": tmp_path / "r.html"}
    assert places(options, complete=False) == options
    (tmp_path / "r.html").write_text("a page")
    assert places(options, complete=False) == {**options, "html": tmp_path / "r.partial.html"}
    assert places(options, complete=True) == options


def test_a_name_keeps_its_ending() -> None:
    assert partial(Path("out/r.1.json")) == Path("out/r.1.partial.json")
    assert partial(Path("r")) == Path("r.partial")
