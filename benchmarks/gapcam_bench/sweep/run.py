"""Runs a plan: prepares the models, measures block after block, and makes a result of what was measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from gapcam.errors import ExitCode
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
from gapcam_bench.machine import Machine
from gapcam_bench.price import with_prices
from gapcam_bench.result import BenchResult, Row, Status
from gapcam_bench.row_arrays import telemetry_arrays
from gapcam_bench.rows import row_of
from gapcam_bench.sweep.axes import AS_IS
from gapcam_bench.sweep.display import cell_text
from gapcam_bench.sweep.journal import Begun, Journal
from gapcam_bench.sweep.plan import Plan
from gapcam_bench.sweep.prepare import Prepared, Unprepared, prepare
from gapcam_bench.sweep.processes import WORKER, BlockError, Patience, measure_in_process
from gapcam_bench.sweep.schedule import TimeLeft, Turn, turns
from gapcam_bench.sweep.telemetry_file import since
from gapcam_bench.sweep.user_names import renamed, row_with_user_names, user_names
from gapcam_bench.telemetry.readers import open_readers
from gapcam_bench.telemetry.sampler import Sampler

IDLE_S, QUICK_IDLE_S = 2.0, 0.5
"""How long the machine is looked at before anything is measured."""


class Display(Protocol):
    """Whom a sweep tells what it is at: see `gapcam_bench.sweep.display.SweepDisplay`."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def step(self, text: str) -> None:
        """Something that takes a while, and is no block."""

    def begin(self, cell: Cell, round_: int, done: int, total: int, left_s: float) -> None:
        """A block begins."""

    def phase(self, phase: str, done: float) -> None:
        """It goes on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell was given up.

    Attributes:
        reason: a sentence.
        status: "failed", or "skipped" where something that it needs is not here.
        exit_code: that goes with it.
    """

    reason: str
    status: Status
    exit_code: int


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a sweep came to.

    Attributes:
        result: with a row for each planned cell.
        arrays: raw samples, by their names in the result.
        interrupted: whether somebody broke it off; the journal then goes on from there.
        failures: by the cell's key.
    """

    result: BenchResult
    arrays: Mapping[str, NDArray[Any]]
    interrupted: bool
    failures: Mapping[str, Failure] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is a row with figures."""
        return any(row.blocks for row in self.result.rows)

    @property
    def to_go_on(self) -> bool:
        """Whether the journal is worth keeping: the same command goes on from there, and tries again what failed."""
        tried_again = any(failure.status == "failed" for failure in self.failures.values())
        return self.interrupted or (tried_again and self.measured)

    @property
    def exit_code(self) -> int:
        """130 where it was interrupted; 0 where every planned row was measured; 1 where some were given up."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if not self.failures:
            return ExitCode.DONE
        return ExitCode.PARTIAL if self.measured else next(iter(self.failures.values())).exit_code


def begun(plan: Plan, machine: Machine) -> Begun:
    """What a journal notes of a run that begins now."""
    ground = machine.environment
    return Begun(
        plan=plan,
        ground={
            "the processor": f"{ground.cpu}, {ground.cores} cores",
            "the system": ground.system,
            "Python": ground.python,
            **ground.versions,
            **{name: str(value) for name, value in (("the driver", machine.driver), ("TensorRT", machine.tensorrt))},
            **{f"GPU {number}": gpu.name for number, gpu in enumerate(machine.gpus)},
        },
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def run_sweep(
    plan: Plan,
    journal: Journal,
    machine: Machine,
    display: Display,
    *,
    command: str,
    worker: str = WORKER,
    allowed: Patience | None = None,
    idle_s: float = IDLE_S,
) -> Outcome:
    """Measure what a journal does not have yet, and make a result of all it has.

    KeyboardInterrupt ends the measuring, not this function: what is measured is in the outcome.

    Args:
        plan: what to measure.
        journal: of the same plan.
        machine: that this is.
        display: is told what is being done.
        command: what the result says was run.
        worker: the module that measures a block.
        allowed: when a worker is taken to hang; None for what goes with the limits.
        idle_s: how long to look at the machine before; 0 for not at all.
    """
    failures: dict[str, Failure] = {}
    files: dict[str, Prepared | Unprepared] = {}
    interrupted = False
    try:
        files = prepare(plan, journal.files, say=display.step)
        for key, file in files.items():
            if isinstance(file, Unprepared):
                status: Status = "failed" if file.failed else "skipped"
                failures[key] = Failure(file.reason, status, file.exit_code)
        _measure(plan, journal, files, failures, display, worker=worker, allowed=allowed, idle_s=idle_s)
    except KeyboardInterrupt:
        interrupted = True
    display.step("computing figures")
    return _outcome(plan, journal, files, failures, machine, command, interrupted=interrupted)


def _measure(
    plan: Plan,
    journal: Journal,
    files: Mapping[str, Prepared | Unprepared],
    failures: dict[str, Failure],
    display: Display,
    *,
    worker: str,
    allowed: Patience | None,
    idle_s: float,
) -> None:
    """Measure all blocks that are not there; a cell of which one fails is given up, and noted in `failures`.

    A cell whose process was ended by a signal is tried once more, once a run: memory may have been full just then.
    """
    order = list(turns(plan.measured, plan.rounds, seed=plan.settings.seed))
    left = TimeLeft(plan.limits)
    for finished in journal.finished:
        left.took(finished.turn.cell, finished.seconds)
    if all(journal.has(turn) or turn.cell.key in failures for turn in order):
        return
    with Sampler(open_readers()) as sampler:
        kept = 0
        if idle_s:
            display.step(f"looking at the idle machine for {idle_s:g} s")
            time.sleep(idle_s)
            series = sampler.series()
            journal.keep_idle(series)
            kept = len(series.time)
        waiting, died = deque(order), set[str]()
        while waiting:
            turn = waiting.popleft()
            file = files[turn.cell.key]
            if turn.cell.key in failures or journal.has(turn) or isinstance(file, Unprepared):
                continue
            ahead = [each for each in waiting if not journal.has(each) and each.cell.key not in failures]
            display.begin(turn.cell, turn.round, len(journal.finished), len(order), left.of([turn, *ahead]))
            began = time.monotonic()
            with journal.unfinished() as folder:
                try:
                    request = request_of(plan, journal, turn, file)
                    measure_in_process(request, folder, worker=worker, allowed=allowed, on_phase=display.phase)
                except BlockError as error:
                    model = plan.models[turn.cell.model]
                    reason = renamed(str(error), user_names(plan, model, file.file), model.label)
                    if error.by_signal and turn.cell.key not in died:
                        died.add(turn.cell.key)
                        waiting.appendleft(turn)
                        display.say(f"{cell_text(turn.cell)}: {reason}; it is tried once more")
                        continue
                    failures[turn.cell.key] = failure = _failure(error, reason)
                    display.say(f"{cell_text(turn.cell)}: {failure.reason}")
                    continue
                seconds = time.monotonic() - began
                series = sampler.series()
                journal.keep(folder, turn, seconds, since(series, kept))
                kept = len(series.time)
            left.took(turn.cell, seconds)


def request_of(plan: Plan, journal: Journal, turn: Turn, file: Prepared) -> Request:
    """What a block's process is to measure; the server's search goes on from what earlier blocks have found."""
    settings = msgspec.structs.replace(plan.settings, seed=plan.settings.seed + turn.round)  # other arrivals in each
    if turn.cell.scenario == "server":
        found = [block.facts.facts for block in journal.blocks(turn.cell.key)]
        settings = msgspec.structs.replace(
            settings,
            rate=next((facts.rate for facts in reversed(found) if facts.rate), None),
            bound_ms=settings.bound_ms or next((facts.bound_ms for facts in found), None),  # the same one in all
        )
    # What was made of a model is compared with the model, too: with itself alone, any loss of accuracy would hold.
    made_of = None if turn.cell.precision == AS_IS else plan.models[turn.cell.model].path
    return Request(
        cell=turn.cell,
        file=file.file,
        reference=plan.reference or made_of,
        images=plan.images,
        limits=plan.limits.of(turn.cell.scenario),
        settings=settings,
        round=turn.round,
    )


def _failure(error: BlockError, reason: str) -> Failure:
    missing = error.worker_exit_code == ExitCode.MISSING
    return Failure(reason, "skipped" if missing else "failed", error.worker_exit_code)


def _outcome(
    plan: Plan,
    journal: Journal,
    files: Mapping[str, Prepared | Unprepared],
    failures: Mapping[str, Failure],
    machine: Machine,
    command: str,
    *,
    interrupted: bool,
) -> Outcome:
    series, idle = journal.series(), journal.idle()
    rows: list[Row] = []
    arrays: dict[str, NDArray[Any]] = {}
    for planned in plan.cells:
        cell = planned.cell
        if planned.skipped is not None:
            rows.append(Row(id=cell.key, cell=cell, status="skipped", reasons=(planned.skipped,)))
            continue
        file, failure = files.get(cell.key), failures.get(cell.key)
        made = file if isinstance(file, Prepared) else Prepared(file="")
        row, of_row = row_of(
            cell,
            journal.blocks(cell.key),
            rounds=plan.rounds,
            limits=plan.limits,
            series=series,
            idle=idle,
            build_s=made.build_s,
            notes=made.notes,
        )
        if failure is not None:
            status = "failed" if row.blocks else failure.status
            row = msgspec.structs.replace(row, status=status, reasons=(failure.reason,))
        rows.append(row_with_user_names(row, plan, made.file))
        arrays |= of_row
    result = BenchResult(
        created=journal.begun.created,
        command=command,
        complete=not interrupted and not failures,
        rounds=plan.rounds,
        limits=plan.limits,
        settings=plan.settings,
        machine=machine,
        channels=series.channels,
        lacking=series.lacking,
        rows=with_prices(rows, arrays),
    )
    return Outcome(result, arrays | telemetry_arrays(series, idle) if arrays else {}, interrupted, failures)
