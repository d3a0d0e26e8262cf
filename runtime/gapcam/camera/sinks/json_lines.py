"""Writes a line of JSON for each frame, to a file or to stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import UnsupportedOperation
from pathlib import Path

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.sinks.file_names import check_folder, identity, is_same_file
from gapcam.camera.sinks.full_disk import FreeSpace, ended_by_full_disk
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_options import SinkOptions

log = logging.getLogger("gapcam.camera")

_LONGEST_LINE = 1 << 24


class JsonLinesSink:
    """One line a frame, as `ExplainedFrame.to_dict` has it. Each is written at once, whole.

    A file is added to. A line that an earlier run could not finish is cut off first. Where the file is moved away or
    deleted, as logrotate does, a new one is begun.

    Args:
        path: of the file; None for stdout.
        options: `sources`, `overwrite` and `min_free_bytes` concern it.

    Raises:
        UsageError: the folder is missing or may not be written to.
    """

    capacity = 64
    """A line takes a tenth of a millisecond; what waits is for a disk that pauses, or a program that reads slowly."""

    def __init__(self, path: Path | None, options: SinkOptions) -> None:
        if path is not None:
            check_folder(path)
        self.name = "stdout" if path is None else str(path)
        self._path, self._options = path, options
        self._space = None if path is None else FreeSpace(path.parent, options.min_free_bytes)
        self._anew = options.overwrite
        self._file: int | None = None

    def open(self) -> None:
        """Open the file, and mend its end.

        Raises:
            OSError: it cannot be opened.
        """
        self.close()
        if self._path is not None:
            self._file = _opened(self._path, anew=self._anew)
            self._anew = False

    def write(self, frame: ExplainedFrame) -> None:
        """Add a line.

        Raises:
            SinkEndedError: the disk is full, or nobody reads stdout any more.
            OSError: it cannot be written.
        """
        if not self._options.takes(frame.captured.source):
            return
        # Escapes for what is not ASCII: some characters end a line for those who read it, or command a terminal.
        line = json.dumps(frame.to_dict(), allow_nan=False).encode() + b"\n"
        if self._path is None:
            _to_stdout(line)
            return
        if self._space is not None:
            self._space.check()
        if self._file is None or _moved(self._path, self._file):
            self.open()
        self._add(line, self._path)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def endangered(self, read: Sequence[Path]) -> Path | None:
        """See `gapcam.camera.file_clashes.FileSink`."""
        own = None if self._path is None else identity(self._path)
        return None if own is None else next((path for path in read if identity(path) == own), None)

    def clashes_with(self, other: Sink) -> bool:
        """See `gapcam.camera.file_clashes.FileSink`."""
        if not isinstance(other, JsonLinesSink):
            return False
        if self._path is None or other._path is None:
            return self._path is other._path  # both write to stdout
        return is_same_file(self._path, other._path)

    def _add(self, line: bytes, path: Path) -> None:
        assert self._file is not None  # noqa: S101 - opened above
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            if written:
                with suppress(OSError):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            ended = ended_by_full_disk(error, path)
            if ended is not None:
                raise ended from error
            raise


def _to_stdout(line: bytes) -> None:
    """Past Python's buffer: what is left there would fail once more when Python ends."""
    try:
        sys.stdout.flush()
        try:
            file = sys.stdout.fileno()
        except UnsupportedOperation:  # somebody caught it
            sys.stdout.write(line.decode())
            return
        while line:
            line = line[os.write(file, line) :]
    except BrokenPipeError:
        raise SinkEndedError("nobody reads stdout any more") from None
    except OSError as error:
        ended = ended_by_full_disk(error, Path("stdout"))
        if ended is not None:
            raise ended from error
        raise
    except ValueError:
        raise SinkEndedError("stdout is closed") from None


def _opened(path: Path, *, anew: bool) -> int:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | (os.O_TRUNC if anew else 0), 0o666)
    try:
        _mend_end(file, path)
    except BaseException:
        os.close(file)
        raise
    return file


def _mend_end(file: int, path: Path) -> None:
    """Let the next line begin at the beginning of a line."""
    length = os.fstat(file).st_size
    begin = max(0, length - _LONGEST_LINE)
    os.lseek(file, begin, os.SEEK_SET)
    tail = os.read(file, length - begin)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    try:
        json.loads(last)
    except ValueError:
        if last.startswith(b"{") and len(last) < len(tail) + (begin == 0):
            os.ftruncate(file, length - len(last))
            log.warning("%s ended in the middle of a line; %d bytes were cut off", path, len(last))
            return
    os.write(file, b"\n")


def _moved(path: Path, file: int) -> bool:
    """Whether the name no longer means the open file."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return True
    opened = os.fstat(file)
    return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)
