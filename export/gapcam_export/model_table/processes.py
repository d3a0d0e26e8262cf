"""Makes rows in processes of their own, so that a crash, a full memory or an endless loop costs one row."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gapcam.atomic_file import write_atomically
from gapcam.child_python import child_module
from gapcam_export.model_table.chosen import Chosen
from gapcam_export.model_table.row import ROW_FILE, Row, is_current

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class _Running:
    model: Chosen
    process: subprocess.Popen[bytes]
    folder: Path
    begin: float


class Results:
    """Rows on the disk, one file each, so that an interrupted run goes on.

    Args:
        folder: of the files; each has a log beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, model: Chosen, suffix: str) -> Path:
        """The file of a model: its row (".json") or its log (".log")."""
        return self._folder / (model.source.replace(":", "-").replace("/", "-") + suffix)

    def read(self, model: Chosen) -> Row | None:
        """A row that would come out the same again; None if there is none."""
        try:
            row = msgspec.json.decode(self.file(model, ".json").read_bytes(), type=Row)
        except (OSError, msgspec.DecodeError):
            return None
        return row if row.outcome in ("exported", "refused") and is_current(row) else None

    def write(self, model: Chosen, row: Row) -> None:
        """Keep a row."""
        write_atomically(self.file(model, ".json"), msgspec.json.encode(row))


def make_rows(
    models: Sequence[Chosen], results: Results, *, jobs: int, timeout: float
) -> Iterator[tuple[Chosen, Row | None]]:
    """Make a row of each model and keep it; gives a model alone when it begins, and with its row when that is made.

    Args:
        models: each gets a process.
        results: where rows and logs are kept.
        jobs: how many processes run at a time.
        timeout: of each, in seconds.
    """
    waiting, running = list(models), list[_Running]()
    with ExitStack() as stack:
        work = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gapcam-models-", ignore_cleanup_errors=True))
        )
        stack.callback(_end_all, running)
        while waiting or running:
            while waiting and len(running) < jobs:
                model = waiting.pop(0)
                running.append(_start(model, work, results.file(model, ".log")))
                yield model, None
            time.sleep(_POLL_SECONDS)
            for each in list(running):
                late = time.monotonic() - each.begin > timeout
                if each.process.poll() is None and not late:
                    continue
                _end(each)
                row = _timeout(timeout) if late else _row_of(each, results.file(each.model, ".log"))
                results.write(each.model, row)
                running.remove(each)
                _remove(each.folder)
                yield each.model, row


def _start(model: Chosen, work: Path, log: Path) -> _Running:
    folder = Path(tempfile.mkdtemp(dir=work))
    log.parent.mkdir(parents=True, exist_ok=True)
    command = child_module("gapcam_export.model_table.row", model.source, str(folder))
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)  # noqa: S603  # our own
    return _Running(model, process, folder, time.monotonic())


def _end_all(running: Sequence[_Running]) -> None:
    for each in running:
        _end(each)


def _end(each: _Running) -> None:
    each.process.kill()  # nothing, where it has ended
    each.process.wait()


def _remove(folder: Path) -> None:
    """The model that was exported; dozens together would fill the disk."""
    for file in folder.iterdir():
        with suppress(OSError):
            file.unlink()


def _row_of(each: _Running, log: Path) -> Row:
    try:
        return msgspec.json.decode((each.folder / ROW_FILE).read_bytes(), type=Row)
    except (OSError, msgspec.DecodeError):
        code = each.process.returncode
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return Row(outcome="crash", reason=f"the process {how}; the last it said: {said[:200]}")


def _timeout(timeout: float) -> Row:
    return Row(outcome="timeout", reason=f"not done after {timeout:g} seconds")
