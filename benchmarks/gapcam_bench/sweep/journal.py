"""What a sweep has measured so far, on the disk: a run that was killed goes on from there.

    RESULT.json.part/
        lock                    held by the process that measures; the system lets go of it when that ends, however
        begun.json              the plan, and what it runs on
        files/                  models that were made for cells, each with what making it took
        blocks/CELL-ROUND/      a finished block: its files, and the telemetry up to its end
        idle/N/                 telemetry before session N's first block

A folder of a block gets its name when it is complete, so that there is never half a block of that name.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from gapcam.atomic_file import cannot_write, check_writable, write_atomically
from gapcam.errors import DataError, UsageError
from gapcam_bench.block import Block
from gapcam_bench.block_file import read_block
from gapcam_bench.sweep.plan import Plan
from gapcam_bench.sweep.schedule import Turn
from gapcam_bench.sweep.telemetry_file import read_series, write_series
from gapcam_bench.telemetry.series import Series, Span, joined

SUFFIX = ".part"
"""Of the folder beside RESULT.json."""

_LOCK, _BEGUN, _FILES, _BLOCKS, _IDLE, _UNFINISHED = "lock", "begun.json", "files", "blocks", "idle", "unfinished"
_OURS = {_LOCK, _BEGUN, _FILES, _BLOCKS, _IDLE, _UNFINISHED}
_TOOK, _TELEMETRY = "took.json", "telemetry.npz"
_SAID = {
    "cells": "combinations",
    "models": "models",
    "rounds": "--rounds",
    "limits": "--seconds, --samples or --quick",
    "settings": "settings of the scenarios",
    "images": "--images",
    "calibrate": "--calibrate",
    "reference": "--reference",
    "images_sha256": "the images of --images",
    "calibrate_sha256": "the images of --calibrate",
    "reference_sha256": "the model of --reference",
}
"""What a user calls a plan's fields."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What is noted when a sweep begins.

    Attributes:
        plan: what is measured.
        ground: what it runs on: machine and versions, as texts by name. Another one makes other figures.
        created: when, ISO 8601 in UTC.
    """

    plan: Plan
    ground: dict[str, str]
    created: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A block on the disk.

    Attributes:
        turn: what it is of.
        folder: where it is.
        seconds: that it took, its process's start and end included.
    """

    turn: Turn
    folder: Path
    seconds: float


class Journal:
    """A journal's folder, which this process alone has; `with open_journal(...) as journal`.

    Attributes:
        folder: where.
        begun: what was noted when it began.
        resumed: whether there was one before.
        files: folder for the cells' models.
    """

    def __init__(self, folder: Path, begun: Begun, *, resumed: bool) -> None:
        self.folder, self.begun, self.resumed = folder, begun, resumed
        self.files = folder / _FILES
        for name in (_FILES, _BLOCKS, _IDLE):
            (folder / name).mkdir(exist_ok=True)
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
        (folder / _UNFINISHED).mkdir(exist_ok=True)
        self._finished = {(found.turn.cell.key, found.turn.round): found for found in self._found()}

    @property
    def finished(self) -> tuple[Finished, ...]:
        """All blocks, in the order of their rounds."""
        return tuple(sorted(self._finished.values(), key=lambda one: one.turn.round))

    def has(self, turn: Turn) -> bool:
        """Whether a block is there."""
        return (turn.cell.key, turn.round) in self._finished

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """An empty folder for a block that is being measured; what is left in it goes."""
        folder = Path(tempfile.mkdtemp(dir=self.folder / _UNFINISHED))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, folder: Path, turn: Turn, seconds: float, telemetry: Series) -> Finished:
        """Make a measured block a finished one.

        Args:
            folder: of `unfinished`.
            turn: what it is of.
            seconds: that it took.
            telemetry: since the last one.
        """
        write_series(telemetry, folder / _TELEMETRY)
        where = self.folder / _BLOCKS / f"{turn.cell.key}-{turn.round}"
        try:
            (folder / _TOOK).write_bytes(msgspec.json.encode(seconds))
            folder.rename(where)
        except OSError as error:
            raise cannot_write(where, error) from error
        finished = self._finished[turn.cell.key, turn.round] = Finished(turn, where, seconds)
        return finished

    def keep_idle(self, telemetry: Series) -> None:
        """Keep what the machine did before anything was measured."""
        number = len(list((self.folder / _IDLE).iterdir()))
        with self.unfinished() as folder:
            write_series(telemetry, folder / _TELEMETRY)
            folder.rename(self.folder / _IDLE / str(number))

    def blocks(self, key: str) -> list[Block]:
        """A cell's blocks, by round."""
        return [read_block(found.folder) for found in self.finished if found.turn.cell.key == key]

    def series(self) -> Series:
        """All telemetry, of all sessions."""
        pieces = [*(self.folder / _IDLE).iterdir(), *(found.folder for found in self._finished.values())]
        return joined([read_series(piece / _TELEMETRY) for piece in pieces])

    def idle(self) -> list[Span]:
        """When nothing was measured yet."""
        found = [read_series(piece / _TELEMETRY).time for piece in sorted((self.folder / _IDLE).iterdir())]
        return [(float(time[0]), float(time[-1])) for time in found if len(time)]

    def remove(self) -> None:
        """Remove the folder: the result is written."""
        _empty(self.folder)

    def _found(self) -> Iterator[Finished]:
        cells = {cell.key: cell for cell in self.begun.plan.measured}
        for folder in sorted((self.folder / _BLOCKS).iterdir()):
            match = re.fullmatch(r"([0-9a-f]{12})-([0-9]+)", folder.name)
            if match is None or match[1] not in cells:
                continue
            try:
                read_block(folder)
                read_series(folder / _TELEMETRY)
                seconds = msgspec.json.decode((folder / _TOOK).read_bytes(), type=float)
            except (OSError, ValueError, KeyError, DataError):  # after a power cut; it is measured again
                shutil.rmtree(folder)
                continue
            yield Finished(Turn(int(match[2]), cells[match[1]]), folder, seconds)


@contextmanager
def open_journal(folder: Path | None, begun: Begun, *, fresh: bool = False) -> Iterator[Journal]:
    """Begin a journal, or go on with the one that is there.

    Args:
        folder: where; None for a temporary one that is removed at the end.
        begun: what this run would note. An older journal's `created` stays.
        fresh: throw an older one away.

    Raises:
        UsageError: another process has it; or it is of another plan, machine or version.
        DataError: the place cannot be written, or is something else.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="gapcam-bench-", ignore_cleanup_errors=True) as temporary:
            yield Journal(Path(temporary), begun, resumed=False)
        return
    _check_ours(folder)
    with _Lock(folder / _LOCK):
        if fresh:
            _empty(folder, but=_LOCK)
        before = _begun_before(folder)
        if before is not None:
            _check_same(folder, before, begun)
        else:
            _empty(folder, but=_LOCK)
            write_atomically(folder / _BEGUN, msgspec.json.encode(begun))
        yield Journal(folder, before or begun, resumed=before is not None)


def check_journal(folder: Path) -> None:
    """Notice before long work that a journal cannot be written; nothing is.

    Raises:
        DataError: its place is taken by something else, or cannot be written to.
    """
    _check_ours(folder)
    check_writable(folder / _BEGUN)


def check_resumes(folder: Path, begun: Begun) -> None:
    """Notice a journal that `open_journal` would not go on with; nothing is written.

    Raises:
        UsageError: it is of another plan, machine or version.
    """
    before = _begun_before(folder)
    if before is not None:
        _check_same(folder, before, begun)


def _begun_before(folder: Path) -> Begun | None:
    try:
        content = (folder / _BEGUN).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=Begun)
    except msgspec.DecodeError as error:
        if not isinstance(error, msgspec.ValidationError):
            raise UsageError(
                f"{folder / _BEGUN} is damaged: {error}. Give --fresh to begin anew, or another --json"
            ) from error
        raise UsageError(
            f"{folder} was left by another version of gapcam. Give --fresh to begin anew, or another --json"
        ) from error


def _check_same(folder: Path, before: Begun, now: Begun) -> None:
    done = len(list((folder / _BLOCKS).glob("*-*"))) if (folder / _BLOCKS).is_dir() else 0
    total = len(before.plan.measured) * before.plan.rounds
    what = f"{folder} holds {done} of {total} blocks of an unfinished run"
    ways = "--fresh begins anew; another --json leaves it as it is"
    differ = [said for name, said in _SAID.items() if getattr(before.plan, name) != getattr(now.plan, name)]
    if differ:
        raise UsageError(f"{what} of another plan ({', '.join(differ)}). The same options go on with it; {ways}")
    changed = [
        f"{name} was {before.ground.get(name, 'absent')}, is {now.ground.get(name, 'absent')}"
        for name in sorted({*before.ground, *now.ground})
        if before.ground.get(name) != now.ground.get(name)
    ]
    if changed:
        raise UsageError(f"{what}, and what it ran on has changed: {'; '.join(changed[:3])}. {ways}")


def _check_ours(folder: Path) -> None:
    if not os.path.lexists(folder):  # False of a name that is too long, too
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is in the way of this run's journal; rename it, or give another --json")
    strange = sorted(entry.name for entry in folder.iterdir() if entry.name not in _OURS and entry.name[:1] != ".")
    if strange:
        raise DataError(f"{folder} is no journal of a benchmark (it holds {strange[0]}); rename it, or another --json")


def _empty(folder: Path, *, but: str = "") -> None:
    """Remove what is ours: the note of the plan first, so that a half-removed journal is none."""
    with suppress(FileNotFoundError):
        (folder / _BEGUN).unlink()
    for name in (_BLOCKS, _FILES, _IDLE, _UNFINISHED):
        shutil.rmtree(folder / name, ignore_errors=True)
    if not but:
        shutil.rmtree(folder, ignore_errors=True)


class _Lock:
    """An exclusive lock on a file, made where it is not there. It is the system's: it ends with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> None:
        while self._file is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = self._path.open("ab")
            except OSError as error:
                raise cannot_write(self._path.parent, error) from error
            if not _try_lock(file):
                file.close()
                raise UsageError(
                    f"another gapcam bench measures into {self._path.parent}; wait for it, or give another --json"
                )
            if self._is_there(file):  # and was not removed by the one that had it, in this very moment
                self._file = file
            else:
                file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _is_there(self, file: IO[bytes]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
