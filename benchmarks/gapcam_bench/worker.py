"""`python -m gapcam_bench.worker REQUEST.json FOLDER`: measures one block in a process of its own.

On stdout it writes nothing but lines of JSON: {"phase": "load", "done": 0.5} for what it does and how much of that is
done, and at the end, where it fails, {"error": "...", "exit_code": 3}. What libraries print goes to stderr.

Its imports here are cheap: gapcam, OpenCV and the engine are imported where that is timed. The order of a block:

    yardstick                       a fixed piece of work, before there is anything that could disturb it
    import, load, first result      cold costs
    warm-up, scenario               run_scenario
    yardstick                       again
    check                           against the reference; in the first block of a cell only. It is last, so that the
                                    reference's memory and threads disturb nothing
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gapcam_bench.cold import PeakMemory, device_memory, import_seconds
from gapcam_bench.stop_quietly import StopQuietly
from gapcam_bench.subjects.thread_limits import limit_libraries, limit_opencv
from gapcam_bench.sweep.lifeline import end_with_parent

if TYPE_CHECKING:
    from gapcam_bench.block import Block, Request

_USAGE, _BUG = 2, 70
_PICTURES = 8
"""Kinds of pictures at least: the photographs, and the same mirrored."""
_REPORT_S = 0.1


class _Threads(msgspec.Struct):
    threads: int | None = None


class _OfThreads(msgspec.Struct):
    cell: _Threads


class Reports:
    """Lines of JSON for whoever started the process.

    Args:
        fd: where they go.
    """

    def __init__(self, fd: int) -> None:
        self._fd, self._phase, self._again = fd, "", 0.0

    def progress(self, phase: str, done: float) -> None:
        """Say how much of a phase is done, in [0, 1]; not more often than anybody wants to know."""
        now = time.monotonic()
        if phase == self._phase and now < self._again and done < 1:
            return
        self._phase, self._again = phase, now + _REPORT_S
        self._write({"phase": phase, "done": round(float(done), 4)})

    def error(self, message: str, exit_code: int) -> None:
        """Say why there is no block."""
        self._write({"error": " ".join(message.split()), "exit_code": exit_code})

    def _write(self, line: dict[str, object]) -> None:
        with suppress(OSError):  # nobody listens any more; the block is measured all the same
            os.write(self._fd, msgspec.json.encode(line) + b"\n")


def main(arguments: Sequence[str]) -> int:
    """Measure a block.

    Args:
        arguments: the request's file and the block's folder.

    Returns:
        The exit code: 0, or that of the error.
    """
    reports = Reports(os.dup(1))
    os.dup2(2, 1)  # engines print
    end_with_parent()
    stop = StopQuietly()
    if len(arguments) != 2:
        reports.error("expected REQUEST.json FOLDER", _USAGE)
        return _USAGE
    asked, folder = Path(arguments[0]), Path(arguments[1])
    try:
        request = _read_request(asked)
    except (OSError, msgspec.DecodeError) as error:
        reports.error(f"the request {asked} cannot be read: {error}", _USAGE)
        return _USAGE
    try:
        block = measure_block(request, reports)
        from gapcam_bench.block_file import write_block

        with stop.not_now():
            write_block(block, folder)
    except Exception as error:  # noqa: BLE001 - the last one to catch anything; what it is goes to the parent
        from gapcam.atomic_file import FULL_DISK, cannot_write
        from gapcam.errors import GapcamError

        if isinstance(error, OSError) and error.errno in FULL_DISK:
            error = cannot_write(error.filename or folder, error)
        if isinstance(error, GapcamError):
            reports.error(str(error), int(error.exit_code))
            return int(error.exit_code)
        traceback.print_exc()
        kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        reports.error(f"{kind}: {error}", _BUG)
        return _BUG
    return 0


def measure_block(request: Request, reports: Reports) -> Block:
    """Measure what a request asks for, in a process that has imported neither gapcam nor an engine.

    Raises:
        GapcamError: the subject cannot be opened, or fails.
    """
    cell, file, memory = request.cell, Path(request.file), PeakMemory()
    reports.progress("load", 0.0)
    from gapcam_bench.statistics.yardstick import measure_yardstick

    before = measure_yardstick()
    import_s = import_seconds(cell, file)
    from gapcam_bench.block import Block, BlockFacts, ColdCosts
    from gapcam_bench.scenarios.run import run_scenario
    from gapcam_bench.subjects.open_subject import open_subject
    from gapcam_bench.subjects.pictures import pictures, pictures_sha256

    limit_opencv(cell.threads)
    shown = pictures(request.images, cell.frame, max(_PICTURES, cell.batch))
    reports.progress("load", 0.3)
    began = time.perf_counter()
    subject = open_subject(request)
    load_s = time.perf_counter() - began
    try:
        reports.progress("load", 0.8)
        began = time.perf_counter()
        subject.run(shown[: cell.batch])
        first_result_s = time.perf_counter() - began
        reports.progress("load", 1.0)

        warm_up, measured = run_scenario(
            subject, shown, cell, request.limits, request.settings, progress=reports.progress
        )
        memory.take()
        on_device = device_memory(cell)
        after = measure_yardstick()

        from gapcam_bench.model_facts import model_facts
        from gapcam_bench.parity import Checked, check_answers

        model, checked = model_facts(file), Checked(None, None)
        if request.round == 0:
            reports.progress("check", 0.0)
            checked = check_answers(
                subject,
                request,
                getattr(subject, "precision", None) or model.precision,  # a peer may compute in another one
                on_picture=lambda done: reports.progress("check", done),
            )
        facts = BlockFacts(
            key=cell.key,
            round=request.round,
            began_at=measured.span[0],
            ended_at=measured.span[1],
            model=model,
            engine=subject.engine,
            providers=getattr(subject, "providers", None),
            cold=ColdCosts(
                import_s=import_s,
                load_s=load_s,
                first_result_s=first_result_s,
                host_peak_bytes=memory.nbytes,
                device_peak_bytes=on_device,
            ),
            warm_up=warm_up,
            facts=measured.facts,
            parity=checked.parity,
            fidelity=checked.fidelity,
            pictures=pictures_sha256(shown),
            notes=(*getattr(subject, "notes", ()), *checked.notes),
        )
        return Block(facts=facts, measured=measured, yardstick=before, yardstick_after=after)
    finally:
        subject.close()


def _read_request(asked: Path) -> Request:
    """Read a request, and let its threads hold for the libraries that reading it imports."""
    content = asked.read_bytes()
    limit_libraries(msgspec.json.decode(content, type=_OfThreads).cell.threads)
    from gapcam_bench.block import Request

    return msgspec.json.decode(content, type=Request)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # the block is written; an engine that fails while it is taken down changes nothing
