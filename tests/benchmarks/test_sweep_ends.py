"""How a sweep ends where the disk has no room, and with Ctrl-C after all was measured: no block is measured here."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import red_and_blue

from gapcam.errors import ExitCode
from gapcam_bench.block import Block
from gapcam_bench.block_file import write_block
from gapcam_bench.cell import Cell, Emit
from gapcam_bench.cli.run import measure_plan
from gapcam_bench.machine import machine
from gapcam_bench.sweep.journal import open_journal
from gapcam_bench.sweep.model_outline import outlines
from gapcam_bench.sweep.plan import Plan, PlannedCell
from gapcam_bench.sweep.prepare import Unprepared, prepare
from gapcam_bench.sweep.run import begun
from gapcam_bench.sweep.schedule import turns
from gapcam_bench.telemetry.series import Series

NO_FILES = {"fresh": False, "json": None, "html": None, "csv": None, "markdown": None}


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """So many bytes; it stands for a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def plan_of(path: Path, precision: str, emit: Emit) -> Plan:
    (model,) = outlines([str(path)])
    cell = Cell(model=model.label, precision=precision, emit=emit, frame=(64, 64))
    return Plan(cells=(PlannedCell(cell=cell),), models={model.label: model}, rounds=2)


@pytest.mark.parametrize(("precision", "emit"), [("as-is", "plain"), ("int8", "features")])
def test_a_file_that_has_no_room_is_not_the_models_fault(tmp_path: Path, precision: str, emit: Emit) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    plan = plan_of(red_and_blue(tmp_path / "m.onnx"), precision, emit)
    with files_of_at_most(100):
        (found,) = prepare(plan, folder).values()
    assert isinstance(found, Unprepared)
    assert found.failed
    assert found.exit_code == ExitCode.DATA
    assert found.reason.startswith(f"cannot write {folder}/m-")
    assert found.reason.endswith(".onnx: File too large; make room, or choose another place")


def test_a_run_without_room_for_its_models_ends_as_one_that_could_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(red_and_blue(tmp_path / "m.onnx"), "as-is", "plain")
    with files_of_at_most(100):
        assert measure_plan(plan, NO_FILES, "a test") == ExitCode.DATA
    assert "File too large; make room" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_while_the_report_is_made_says_that_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_block: Callable[..., Block]
) -> None:
    plan = plan_of(red_and_blue(tmp_path / "m.onnx"), "as-is", "features")
    options = {**NO_FILES, "json": tmp_path / "r.json"}
    kept = tmp_path / "r.json.part"
    with open_journal(kept, begun(plan, machine())) as journal:
        for turn in turns(plan.measured, plan.rounds, seed=0):
            with journal.unfinished() as folder:
                write_block(make_block(turn.cell, turn.round), folder)
                journal.keep(folder, turn, 1.0, Series(time=np.zeros(0), values={}, channels=(), lacking={}))

    def stopped(_result: Any, _arrays: Mapping[str, Any]) -> int:
        raise KeyboardInterrupt

    assert measure_plan(plan, options, "a test", also=stopped) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.endswith("interrupted after 2 of 2 blocks; the same command goes on from there\n")
    assert kept.is_dir()
    assert measure_plan(plan, options, "a test") == ExitCode.DONE
    assert (tmp_path / "r.json").is_file()
    assert not kept.exists()
