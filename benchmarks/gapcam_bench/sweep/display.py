"""How a sweep shows what it is at: a bar on a terminal, a line a block elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from gapcam.cli.console import report, stderr
from gapcam.cli.printable import printable
from gapcam_bench.cell import GAPCAM, Cell
from gapcam_bench.sweep.axes import AS_IS, frame_text
from gapcam_bench.sweep.schedule import duration_text


class SweepDisplay:
    """What `run_sweep` tells; use it as a context manager. This one shows it on stderr.

    On a terminal that is one line: how many blocks of how many, a bar and the time left, which are always whole, and
    what is measured, in the room that is left.

    Args:
        cells: of the sweep: what tells them apart is shown.
        console: where; stderr by default.
    """

    def __init__(self, cells: Sequence[Cell] = (), console: Console = stderr) -> None:
        whole = Column(no_wrap=True)
        self._bar = Progress(
            TextColumn("{task.fields[count]}", table_column=whole),
            BarColumn(bar_width=12, table_column=whole),
            TextColumn("{task.fields[left]}", table_column=whole),
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
        )
        self._task = self._bar.add_task("", total=None, count="", left="")
        self._what = self._left = ""
        self._cells = cells

    def __enter__(self) -> SweepDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        report(text)

    def step(self, text: str) -> None:
        """Something that takes a while, and is no block."""
        if self._bar.disable:
            report(text)
        else:
            self._bar.update(self._task, description=printable(text), left="")

    def begin(self, cell: Cell, round_: int, done: int, total: int, left_s: float) -> None:
        """A block begins.

        Args:
            cell: what it is of.
            round_: from 0.
            done: blocks that are finished.
            total: of all blocks.
            left_s: seconds that are left, estimated.
        """
        self._what, self._left = f"round {round_ + 1}, {cell_text(cell)}", f"about {duration_text(left_s)} left"
        if not self._bar.disable:
            self._what = f"round {round_ + 1}{''.join(f', {word}' for word in differing_words(cell, self._cells))}"
            self._bar.update(
                self._task, description=printable(self._what), completed=done, total=total, count=f"{done}/{total}",
                left=self._left,
            )  # fmt: skip
        if self._bar.disable:
            report(f"{done + 1}/{total} {self._what}, {self._left}")

    def phase(self, phase: str, done: float) -> None:
        """The block goes on; `done` of the phase is over, in [0, 1]."""
        if not self._bar.disable:
            percent = f" {done:.0%}" if done else ""
            self._bar.update(self._task, description=printable(f"{self._what}: {phase}{percent}"))


def cell_text(cell: Cell) -> str:
    """A combination in a few words; what is as usual is not said."""
    said = dict(zip(_AXES, _words(cell), strict=True))
    usual = {"subject": cell.subject == GAPCAM, "precision": cell.precision == AS_IS, "batch": cell.batch == 1}
    usual |= {"threads": cell.threads is None, "work": True}
    return ", ".join(word for axis, word in said.items() if not usual.get(axis))


def differing_words(cell: Cell, cells: Sequence[Cell]) -> list[str]:
    """What tells a combination from the others of a sweep: of each axis on which they differ, a word.

    What is drawn goes with what the graph gives, and is said only where nothing else tells them apart.
    """
    different = [len({getattr(each, axis) for each in cells}) > 1 for axis in _AXES]
    said = {_words(each) for each in cells}
    different[-1] = len({words[:-1] for words in said}) < len(said)
    return [word for word, differs in zip(_words(cell), different, strict=True) if differs]


_AXES = ("subject", "model", "device", "precision", "emit", "scenario", "frame", "batch", "threads", "work")


def _words(cell: Cell) -> tuple[str, ...]:
    """A word for each axis."""
    threads = "all threads" if cell.threads is None else f"{cell.threads} thread{'s' * (cell.threads != 1)}"
    return (
        cell.subject, cell.model, cell.device, cell.precision, cell.emit, cell.scenario, frame_text(cell.frame),
        f"batch {cell.batch}", threads, "+".join(cell.work) or "map alone",
    )  # fmt: skip
