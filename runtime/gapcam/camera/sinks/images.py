"""Writes pictures as image files: of each frame, one in so many seconds, or where something happened."""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from gapcam.atomic_file import write_atomically
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.running_time import RunningTime
from gapcam.camera.sinks.file_names import identity, is_same_file, source_part
from gapcam.camera.sinks.full_disk import FreeSpace, ended_by_full_disk
from gapcam.camera.sinks.picture_file import encoded
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.errors import DataError, UsageError

_ROUNDING_S = 0.0005
"""Frames of a file are as far apart as they say to the millisecond."""
_STAMP = r"\d{8}T\d{6}\.\d{3}Z"


class ImagesSink:
    """Image files SOURCE-TIME-NUMBER.jpg: the source, the moment (UTC), the frame's number.

    Each is there whole or not at all, also after a power cut: it is on the disk before it has its name.

    Args:
        folder: made where it is not there.
        options: `sources`, `overwrite`, `every_s`, `on_events`, `keep`, `min_free_bytes`, `format`, `quality` and
            `bare` concern it. Frames with events are written whatever `every_s` is.

    Raises:
        UsageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, options: SinkOptions) -> None:
        _check_creatable(folder)
        self.name = f"{folder}{os.sep}"
        self.capacity = 8 if options.on_events else 2
        """A frame with an event should not be lost to a slow disk; of all frames, the newest will do."""
        self._folder, self._options = folder, options
        self._space = FreeSpace(folder, options.min_free_bytes)
        self._written: dict[str, deque[Path]] = {}
        self._running: defaultdict[str, RunningTime] = defaultdict(RunningTime)
        self._due: dict[str, float] = {}  # when each source's next frame is wanted, of its running time
        self._last: dict[str, int] = {}  # the number of each source's last frame that was written

    def open(self) -> None:
        """Make the folder.

        Raises:
            OSError: it cannot be made.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._space.check()

    def write(self, frame: ExplainedFrame) -> None:
        """Write the frame's picture, if it is one that is wanted.

        Raises:
            SinkEndedError: the disk is full.
            DataError: the file cannot be written.
        """
        captured = frame.captured
        if not self._wanted(frame) or (frame.again and self._last.get(captured.source) == captured.number):
            return
        self._space.check()
        picture = captured.image if self._options.bare else frame.picture()
        data = encoded(picture, self._options.format, self._options.quality)
        path = self._free_name(captured)
        try:
            write_atomically(path, data)
        except DataError as error:
            ended = ended_by_full_disk(error, self._folder)
            if ended is not None:
                raise ended from error
            raise
        self._last[captured.source] = captured.number
        if self._options.keep:
            self._delete_old(captured.source, path)

    def close(self) -> None:
        """Nothing is left to finish."""

    def endangered(self, read: Sequence[Path]) -> Path | None:
        """See `gapcam.camera.file_clashes.FileSink`. Among images that are read, none are written at all."""
        folder = identity(self._folder)
        own = {parent for parent in {path.parent for path in read} if identity(parent) == folder}
        return None if folder is None else next((path for path in read if path.parent in own), None)

    def clashes_with(self, other: Sink) -> bool:
        """See `gapcam.camera.file_clashes.FileSink`. Sinks of different sources may share a folder."""
        if not isinstance(other, ImagesSink) or not is_same_file(self._folder, other._folder):
            return False
        mine, theirs = set(self._options.sources), set(other._options.sources)
        return not (mine and theirs) or bool(mine & theirs)

    def _wanted(self, frame: ExplainedFrame) -> bool:
        source = frame.captured.source
        if not self._options.takes(source) or (self._options.on_events and not frame.events):
            return False
        if not self._options.every_s:
            return True
        self._running[source].add(frame.captured)
        if frame.events:
            return True
        now = self._running[source].seconds
        due = self._due.get(source, now)
        if now < due - _ROUNDING_S:
            return False
        # From the moment at which it was due, so that many late ones do not add up; but no two at once after a pause.
        every = self._options.every_s
        self._due[source] = due + every if now < due + every else now + every
        return True

    def _free_name(self, captured: CapturedFrame) -> Path:
        moment = datetime.fromtimestamp(captured.time, timezone.utc)
        stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        stem = f"{source_part(captured.source)}-{stamp}-{captured.number:08d}"
        names = (f"{stem}{f'-{n}' if n else ''}.{self._options.format}" for n in count())
        return next(path for path in map(self._folder.joinpath, names) if self._options.overwrite or not path.exists())

    def _delete_old(self, source: str, newest: Path) -> None:
        if source not in self._written:
            pattern = re.compile(rf"{re.escape(source_part(source))}-({_STAMP}-\d{{8,}}(?:-\d+)?)\.(?:jpg|png)")
            found = ((pattern.fullmatch(path.name), path) for path in self._folder.iterdir())
            self._written[source] = deque(
                path for _, path in sorted((match[1], path) for match, path in found if match)
            )
        elif newest not in self._written[source]:
            self._written[source].append(newest)
        while len(self._written[source]) > self._options.keep:
            self._written[source].popleft().unlink(missing_ok=True)


def _check_creatable(folder: Path) -> None:
    try:
        nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        is_folder = nearest.is_dir()
    except OSError as error:  # a name that is too long, a folder that is closed
        raise UsageError(f"no images can be written to {folder}: {error.strerror}; choose another folder") from None
    if not is_folder or not os.access(nearest, os.W_OK | os.X_OK):
        why = "may not be written to" if is_folder else "is a file"
        raise UsageError(f"no images can be written to {folder}: {nearest} {why}; choose another folder")
