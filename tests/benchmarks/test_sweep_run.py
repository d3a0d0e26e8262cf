"""A sweep from end to end, in real fresh processes: what it finds of differences that are there, and that are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gapcam.errors import ExitCode
from gapcam_bench.block import ScenarioSettings
from gapcam_bench.cell import Cell
from gapcam_bench.limits import Limits
from gapcam_bench.machine import Machine, machine
from gapcam_bench.result_file import LoadedResult
from gapcam_bench.statistics.comparison import Comparison, compare
from gapcam_bench.sweep.axes import Axes
from gapcam_bench.sweep.display import cell_text
from gapcam_bench.sweep.journal import open_journal
from gapcam_bench.sweep.model_outline import outlines
from gapcam_bench.sweep.plan import Plan, planned_cells
from gapcam_bench.sweep.prepare import Prepared
from gapcam_bench.sweep.processes import WORKER
from gapcam_bench.sweep.run import Outcome, begun, run_sweep
from gapcam_bench.sweep.telemetry_file import read_series

pytestmark = pytest.mark.slow  # whole commands, in processes of their own

SHORT = Limits(
    least_seconds=0.05,
    least_samples=20,
    most_seconds=2.0,
    warm_up_least_seconds=0.05,
    warm_up_most_seconds=0.5,
    least_row_samples=20,
)
ROUNDS = 5
ALPHA = 0.001
"""How often the first test may fail by chance."""

# The real worker, whose every answer takes as long as a clock says: as steady as a machine can be that does much else
# meanwhile. What is called "slow" takes a tenth longer. The yardstick is as steady.
STEADY = """
import os, sys, time
import numpy as np
from gapcam_bench import worker
from gapcam_bench.statistics import yardstick
from gapcam_bench.subjects import open_subject as opening

really_open = opening.open_subject

def spin_until(end):
    while time.perf_counter_ns() < end:
        pass

class Steady:
    def __init__(self, subject, least_ns):
        self._subject, self._least_ns = subject, least_ns

    def __getattr__(self, name):
        return getattr(self._subject, name)

    def run(self, pictures):
        began = time.perf_counter_ns()
        times = self._subject.run(pictures)
        spin_until(began + self._least_ns)
        return times

def open_subject(request):
    return Steady(really_open(request), 1_100_000 if "slow" in request.file else 1_000_000)

def measure_yardstick():
    found = []
    for _ in range(20):
        began = time.perf_counter_ns()
        spin_until(began + 200_000)
        found.append(time.perf_counter_ns() - began)
    return np.array(found, np.int64)

opening.open_subject = open_subject
yardstick.measure_yardstick = measure_yardstick
os._exit(worker.main(sys.argv[1:]))
"""
# The real worker, but one that is killed where the model is called "bad", from the second round on.
KILLED = """
import json, os, sys
request = json.load(open(sys.argv[1]))
if "bad" in request["file"] and request["round"] > 0:
    sys.stderr.write("memory is full\\n")
    sys.stderr.flush()
    os.kill(os.getpid(), 9)
from gapcam_bench import worker
os._exit(worker.main(sys.argv[1:]))
"""
# The real worker, but one that is killed at the second round's first attempt.
KILLED_ONCE = """
import json, os, pathlib, sys
died = pathlib.Path("died")
if json.load(open(sys.argv[1]))["round"] == 1 and not died.exists():
    died.touch()
    os.kill(os.getpid(), 9)
from gapcam_bench import worker
os._exit(worker.main(sys.argv[1:]))
"""


class Told:
    """A display that notes what it is told."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.begun: list[tuple[str, int, int, int]] = []
        self.phases: list[str] = []
        self.said: list[str] = []
        self._interrupt_at = interrupt_at

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, text: str) -> None:
        self.said.append(text)

    def begin(self, cell: Cell, round_: int, done: int, total: int, left_s: float) -> None:
        assert left_s > 0
        self.begun.append((cell.model, round_, done, total))

    def phase(self, phase: str, done: float) -> None:
        assert 0 <= done <= 1
        self.phases.append(phase)
        if len(self.begun) == self._interrupt_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def here() -> Machine:
    return machine()


@pytest.fixture
def sweep(
    tiny_model_file: Path, here: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Outcome, Told]]:
    """Measures copies of the tiny model, by the names given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(
        names: Sequence[str],
        *,
        rounds: int,
        worker: str = "",
        display: Told | None = None,
        journal: Path | None = None,
        idle_s: float = 0,
    ) -> tuple[Outcome, Told]:
        for name in names:
            shutil.copy(tiny_model_file, tmp_path / name)
        (tmp_path / "a_worker.py").write_text(worker, encoding="utf-8")
        models = outlines(names)
        axes = Axes(emits=("features",), frames=((64, 64),), threads=(1,))
        plan = Plan(
            cells=planned_cells(axes, models, devices=("cpu",), refused={}),
            models={model.label: model for model in models},
            rounds=rounds,
            limits=SHORT,
            settings=ScenarioSettings(generator="own"),
        )
        told = display or Told()
        with open_journal(journal, begun(plan, here)) as opened:
            outcome = run_sweep(
                plan, opened, here, told, command="a test", worker="a_worker" if worker else WORKER, idle_s=idle_s
            )
        return outcome, told

    return run


def alone(outcome: Outcome, model: str) -> LoadedResult:
    """One model's row as a result of its own, in which the model is called "m.onnx"."""
    (row,) = (row for row in outcome.result.rows if row.cell.model == model)
    row = msgspec.structs.replace(row, cell=msgspec.structs.replace(row.cell, model="m.onnx"))
    result = msgspec.structs.replace(outcome.result, rows=(row,))
    return LoadedResult(Path(model), result, outcome.arrays)


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {difference.time: difference.verdict for difference in comparison.rows[0].differences}


def test_the_same_model_twice_is_equal_and_a_tenth_slower_is_found(
    sweep: Callable[..., tuple[Outcome, Told]],
) -> None:
    """All three at once, in turn, so that what else the machine does hits all alike."""
    outcome, told = sweep(["one.onnx", "two.onnx", "slow.onnx"], rounds=ROUNDS, worker=STEADY)
    assert not outcome.failures
    assert [row.blocks for row in outcome.result.rows] == [ROUNDS] * 3
    assert len({model for model, _, done, _ in told.begun if done % 3 == 0}) > 1  # no model always begins a round
    same = compare(alone(outcome, "one.onnx"), alone(outcome, "two.onnx"), alpha=ALPHA)
    assert set(verdicts(same).values()) == {"no difference found"}
    assert same.past_limit == 0
    slow = compare(alone(outcome, "one.onnx"), alone(outcome, "slow.onnx"), alpha=ALPHA)
    (median,) = (each for each in slow.rows[0].differences if each.time == "median of the total")
    assert median.verdict == "slower"
    assert median.past_limit
    assert median.ratio.ratio == pytest.approx(1.1, abs=0.03)


def test_a_cell_whose_process_dies_is_a_failed_row_and_the_others_are_measured(
    sweep: Callable[..., tuple[Outcome, Told]],
) -> None:
    outcome, told = sweep(["good.onnx", "bad.onnx"], rounds=3, worker=KILLED)
    good, bad = outcome.result.rows
    assert good.blocks == 3
    assert good.status in ("valid", "invalid")
    assert (bad.status, bad.blocks) == ("failed", 1)
    assert bad.reasons == (
        "the process was ended by SIGKILL (the system does so where memory is full); the last it said: memory is full",
    )
    assert bad.wall["total"].count > 0
    assert outcome.exit_code == ExitCode.PARTIAL
    assert not outcome.result.complete
    rounds = [round_ for model, round_, *_ in told.begun if model == "bad.onnx"]
    assert rounds == [0, 1, 1]  # once more, and no third time
    assert [said.endswith("it is tried once more") for said in told.said if "SIGKILL" in said] == [True, False]
    assert outcome.to_go_on
    assert any(said.startswith(f"{cell_text(bad.cell)}: ") and "SIGKILL" in said for said in told.said)


def test_a_process_that_dies_once_costs_nothing(sweep: Callable[..., tuple[Outcome, Told]], tmp_path: Path) -> None:
    journal = tmp_path / "r.json.part"
    outcome, told = sweep(["m.onnx"], rounds=2, worker=KILLED_ONCE, journal=journal)
    (row,) = outcome.result.rows
    assert row.blocks == 2
    assert row.status != "failed"
    assert outcome.result.complete
    assert not outcome.to_go_on
    assert [round_ for _, round_, *_ in told.begun] == [0, 1, 1]
    assert any("it is tried once more" in said for said in told.said)


def test_what_failed_is_tried_again_by_the_same_command(
    sweep: Callable[..., tuple[Outcome, Told]], tmp_path: Path
) -> None:
    journal = tmp_path / "r.json.part"
    outcome, _ = sweep(["good.onnx", "bad.onnx"], rounds=3, worker=KILLED, journal=journal)
    assert outcome.to_go_on
    again, told = sweep(["good.onnx", "bad.onnx"], rounds=3, journal=journal)
    assert [(model, round_) for model, round_, *_ in told.begun] == [("bad.onnx", 1), ("bad.onnx", 2)]
    assert again.result.complete
    assert not again.to_go_on


def test_the_telemetry_of_all_blocks_is_there_once(sweep: Callable[..., tuple[Outcome, Told]], tmp_path: Path) -> None:
    journal = tmp_path / "r.json.part"
    outcome, _ = sweep(["m.onnx"], rounds=3, journal=journal, idle_s=0.3)
    time = outcome.arrays["telemetry/time"]
    assert len(time) > 3
    assert (np.diff(time) > 0).all()
    pieces = [read_series(path).time for path in sorted(journal.glob("*/*/telemetry.npz"))]
    assert len(pieces) == 4
    assert sum(map(len, pieces)) == len(np.unique(np.concatenate(pieces)))


def test_what_was_noted_when_a_model_was_made_is_in_its_row(
    sweep: Callable[..., tuple[Outcome, Told]], tmp_path: Path
) -> None:
    """An engine's notes and the time that it took to build, as the run left them that made it."""
    journal = tmp_path / "r.json.part"
    sweep(["m.onnx"], rounds=1, display=Told(interrupt_at=1), journal=journal)
    (note,) = (journal / "files").glob("*.json")
    made = msgspec.structs.replace(
        msgspec.json.decode(note.read_bytes(), type=Prepared), build_s=1.5, notes=("a kernel was slow",)
    )
    note.write_bytes(msgspec.json.encode(made))
    outcome, _ = sweep(["m.onnx"], rounds=1, journal=journal)
    (row,) = outcome.result.rows
    assert "a kernel was slow" in row.notes
    assert row.cold is not None
    assert row.cold.build_s == 1.5


def test_what_is_measured_before_an_interrupt_is_reported_and_not_measured_again(
    sweep: Callable[..., tuple[Outcome, Told]], tmp_path: Path
) -> None:
    journal = tmp_path / "r.json.part"
    outcome, told = sweep(["a.onnx", "b.onnx"], rounds=2, display=Told(interrupt_at=4), journal=journal)
    assert outcome.interrupted
    assert outcome.exit_code == ExitCode.INTERRUPTED
    assert sorted((row.status, row.blocks) for row in outcome.result.rows)[0] == ("interrupted", 1)
    assert sum(row.blocks for row in outcome.result.rows) == 3
    assert [done for _, _, done, _ in told.begun] == [0, 1, 2, 3]
    assert {"load", "check"} <= set(told.phases)
    whole, more = sweep(["a.onnx", "b.onnx"], rounds=2, journal=journal)
    assert [done for _, _, done, _ in more.begun] == [3]
    assert more.begun[0][:2] == told.begun[-1][:2]
    assert whole.result.complete
    assert whole.result.created == outcome.result.created
    for name, array in outcome.arrays.items():
        if name.endswith("/span"):
            np.testing.assert_array_equal(whole.arrays[name][: len(array)], array)


def test_where_nothing_could_be_measured_the_exit_code_is_the_failures(
    sweep: Callable[..., tuple[Outcome, Told]],
) -> None:
    outcome, _ = sweep(["m.onnx"], rounds=2, worker='print(\'{"error": "no such GPU", "exit_code": 6}\')')
    (row,) = outcome.result.rows
    assert (row.status, row.reasons, row.blocks) == ("skipped", ("no such GPU",), 0)
    assert outcome.exit_code == ExitCode.MISSING
    assert not outcome.measured
    assert not outcome.arrays
