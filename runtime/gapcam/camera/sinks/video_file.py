"""Records videos: MP4 or Matroska, H.264 where there is an encoder, in the time in which things happened.

A frame stays to be seen until the next one was taken, and the last one for as long as those before it usually did, so
that a video is as long as what it shows, at whatever rate frames came. A pause, while a camera was lost, say, is
shortened to `LONGEST_PAUSE_S`.

A file plays whatever ends it: it is written in fragments of a second. Closed properly, it becomes an ordinary file with
an index. A new numbered file is begun where pictures change their size, after `segment_s`, after a failure, and where a
file of the name is there already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from av.error import FFmpegError

from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.running_time import RunningTime
from gapcam.camera.sinks.file_names import FileSeries, check_folder, identity
from gapcam.camera.sinks.full_disk import FreeSpace, ended_by_full_disk
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.video_encoder import encoder_for
from gapcam.camera.sinks.video_writer import VideoWriter
from gapcam.camera.usual_step import UsualStep
from gapcam.errors import DataError
from gapcam.frame import Frame

log = logging.getLogger("gapcam.camera")

LONGEST_PAUSE_S = 10.0
_SHORTEST_STEP_S = 0.001
_LONE_S = 1.0
"""A picture with none before or after it is seen for so long."""


class VideoFileSink:
    """A video file of each source.

    Args:
        path: NAME.mp4 or NAME.mkv; of several sources NAME.SOURCE.mp4.
        options: `sources`, `overwrite`, `segment_s`, `keep`, `min_free_bytes` and `bare` concern it.

    Raises:
        UsageError: the folder is missing or may not be written to.
    """

    capacity = 8
    """Encoding takes a few milliseconds, but a disk may hold it up for some frames now and then."""

    def __init__(self, path: Path, options: SinkOptions) -> None:
        check_folder(path)
        self.name = str(path)
        self._path, self._options = path, options
        self._space = FreeSpace(path.parent, options.min_free_bytes)
        self._tracks: dict[str, _Track] = {}
        self._busy = Lock()  # a pipeline that stops may close it while a disk holds up `write`

    def open(self) -> None:
        """Look whether there is room. Files are made when their first frame comes."""
        self._space.check()

    def write(self, frame: ExplainedFrame) -> None:
        """Add a frame to its source's video.

        Raises:
            SinkEndedError: the disk is full, or there is no encoder; what was written plays.
            OSError: the file cannot be written.
            DataError: it cannot be encoded.
        """
        captured = frame.captured
        if not self._options.takes(captured.source):
            return
        with self._busy:
            track = self._track_of(captured.source)
            if frame.again and track.last_number == captured.number:
                return
        picture = captured.image if self._options.bare else frame.picture()
        with self._busy:
            try:
                self._space.check()
                track.write(picture, captured)
            except (OSError, FFmpegError) as error:
                ended = ended_by_full_disk(error, self._path)
                if ended is not None:
                    raise ended from error
                if isinstance(error, FFmpegError):
                    raise DataError(f"{self._path} cannot be recorded: {error}") from error
                raise

    def close(self) -> None:
        """Finish the files."""
        with self._busy:
            for track in self._tracks.values():
                track.close()

    def endangered(self, read: Sequence[Path]) -> Path | None:
        """See `gapcam.camera.file_clashes.FileSink`."""
        if not (self._options.overwrite or self._options.keep):
            return None
        own = {identity(path) for series in self._known_series() for path in series.existing()}
        return next((path for path in read if identity(path) in own), None)

    def clashes_with(self, other: Sink) -> bool:
        """See `gapcam.camera.file_clashes.FileSink`."""
        theirs = other._known_series() if isinstance(other, VideoFileSink) else []
        return any(mine.meets(other_s) for mine in self._known_series() for other_s in theirs)

    def _known_series(self) -> list[FileSeries]:
        """Of the sources that are known from the beginning."""
        sources = self._options.sources
        return [self._series(source) for source in sources] if len(sources) > 1 else [self._series("")]

    def _series(self, source: str) -> FileSeries:
        return FileSeries(self._path, source, overwrite=self._options.overwrite, keep=self._options.keep)

    def _track_of(self, source: str) -> _Track:
        if source not in self._tracks:
            many = len(self._options.sources) > 1 or bool(self._tracks)
            self._tracks[source] = _Track(self.name, self._series(source if many else ""), self._options.segment_s)
        return self._tracks[source]


@dataclass(slots=True)
class _Track:
    """One source's video, over all its files."""

    sink: str
    series: FileSeries
    segment_s: float
    writer: VideoWriter | None = None
    last: tuple[float, float | None] | None = None
    last_number: int = -1
    at_s: float = 0.0
    """When the last frame of the file is to be seen."""
    step: UsualStep = field(default_factory=UsualStep)
    running: RunningTime = field(default_factory=RunningTime)

    def write(self, picture: Frame, captured: CapturedFrame) -> None:
        at_s = self.at_s + min(max(self.running.add(captured), _SHORTEST_STEP_S), LONGEST_PAUSE_S)
        self.last = (captured.taken_at, captured.position_s)
        self.step.add(captured.moment_s)
        size = (picture.shape[1], picture.shape[0])
        if self.writer is not None and (
            self.writer.size != size or (self.segment_s and at_s >= self.segment_s - _SHORTEST_STEP_S / 2)
        ):
            self._finish(at_s)
        if self.writer is None:
            self.writer, at_s = self._new_writer(size, captured), 0.0
        self.writer.write(picture, at_s)
        self.at_s, self.last_number = at_s, captured.number

    def close(self) -> None:
        """No more frames: the last one is seen for as long as those before it usually were, but not beyond now."""
        if self.last is None:
            return
        taken_at, position_s = self.last
        shown_s = self.step.seconds or _LONE_S
        if position_s is None:
            shown_s = min(shown_s, time.monotonic() - taken_at)
        self._finish(self.at_s + min(max(shown_s, _SHORTEST_STEP_S), LONGEST_PAUSE_S))

    def _finish(self, end_s: float) -> None:
        writer, self.writer = self.writer, None
        if writer is None:
            return
        try:
            writer.close(end_s)
        except (OSError, FFmpegError) as error:
            text = f"{writer.path} could not be finished: {error}"
            log.warning("sink %s: %s", self.sink, text, extra={"sink": self.sink})
        if writer.cut_to_s is not None:
            text = f"{writer.path} plays {writer.cut_to_s:.2f} s of the {end_s:.2f} s that were recorded"
            text += "" if writer.cut_to_s else ": it was removed"
            log.warning("sink %s: %s", self.sink, text, extra={"sink": self.sink})

    def _new_writer(self, size: tuple[int, int], captured: CapturedFrame) -> VideoWriter:
        encoder = encoder_for(size[0] + size[0] % 2, size[1] + size[1] % 2)
        path, file = self.series.create()
        log.info("sink %s: records %s with %s", self.sink, path, encoder.name, extra={"sink": self.sink})
        return VideoWriter(path, file, size, encoder, captured.time)
