"""Processes that gapcam starts import nothing from the working folder, where anybody's files may lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gapcam.camera import sink_from_uri
from gapcam.camera.sinks import window
from gapcam.child_python import child_code, child_module
from gapcam.doctor.native import ask
from gapcam.errors import GapcamError, UsageError
from gapcam_bench.block import Request
from gapcam_bench.camera_goals import _watching
from gapcam_bench.cell import Cell
from gapcam_bench.sweep.processes import BlockError, measure_in_process
from gapcam_export.model_table.chosen import Chosen
from gapcam_export.model_table.processes import Results, make_rows

PLANTED = ("cv2", "json", "linecache", "onnx", "random", "runpy")
SAYS = "import json, random, sys\nprint(json.dumps([__name__, *sys.argv[1:]]))\n"


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One with modules that say when they are run, and that nobody is to run."""
    folder = tmp_path / "planted"
    folder.mkdir()
    for module in PLANTED:
        text = f"open({str(tmp_path / 'was_run')!r}, 'a').write('{module} ')\nraise ImportError('planted')\n"
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    yield
    assert not (tmp_path / "was_run").exists(), (tmp_path / "was_run").read_text(encoding="utf-8")


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("knows_p", [False, True] if hasattr(sys.flags, "safe_path") else [False])
def test_a_child_runs_what_it_is_told_and_looks_where_pythonpath_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_p: bool
) -> None:
    if not knows_p and sys.version_info >= (3, 13):
        pytest.skip("this Python looks into the working folder before any code runs; it has -P for that")
    # A relative folder is one of the working folder's, as ever; and the child may be told to be safe already.
    (tmp_path / "planted" / "own").mkdir()
    (tmp_path / "planted" / "own" / "my_module.py").write_text(SAYS, encoding="utf-8")
    (tmp_path / "planted" / "own" / "sitecustomize.py").write_text("print('customized')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", "own")
    for safe in ("", "1"):
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
        for command in (
            child_module("my_module", "a b", "", knows_p=knows_p),
            child_code(SAYS, "a b", "", knows_p=knows_p),
        ):
            assert said(command) == 'customized\n["__main__", "a b", ""]\n'
        ends = child_code("import sys\nsys.exit(7)", knows_p=knows_p)
        assert subprocess.run(ends, check=False, capture_output=True).returncode == 7


def test_the_doctors_questions() -> None:
    assert ask("numpy").error is None


def test_the_process_that_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "block").mkdir()
    text = 'import json, random, onnx\nprint(json.dumps({"error": "as told", "exit_code": 3}))\n'
    (tmp_path / "own" / "a_worker.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    with pytest.raises(BlockError, match="as told"):
        measure_in_process(Request(cell=Cell(model="m.onnx"), file="m.onnx"), tmp_path / "block", worker="a_worker")


def test_the_client_of_the_page_that_is_measured() -> None:
    nobody = SimpleNamespace(url="http://127.0.0.1:1/")
    with pytest.raises(GapcamError, match="the page's client ended with 1"), _watching(nobody, {}):
        pass


def test_the_question_whether_there_are_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_window_system", lambda: "QT5")
    monkeypatch.setenv("DISPLAY", ":77")
    with pytest.raises(UsageError, match="no window can be opened on the display ':77'"):
        sink_from_uri("window")


def test_the_process_of_a_row_of_models(tmp_path: Path) -> None:
    made = list(make_rows([Chosen("no source", "")], Results(tmp_path / "rows"), jobs=1, timeout=300))
    assert [row.outcome for _, row in made if row is not None] == ["refused"]


def test_no_other_file_starts_python() -> None:
    """Whoever starts one more process asks gapcam.child_python for its command line."""
    repository = Path(__file__).parents[2]
    files = [file for folder in ("runtime", "export", "benchmarks") for file in (repository / folder).rglob("*.py")]
    starts = {file.relative_to(repository) for file in files if "[sys.executable" in file.read_text("utf-8")}
    assert starts == {Path("runtime/gapcam/child_python.py")}
