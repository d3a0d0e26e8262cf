"""A video file, played in its own time or read as fast as it can be."""

from __future__ import annotations

from threading import Event

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.sources.decoding import Decoding, pixels, rotation_of
from gapcam.camera.sources.film_start import film_starts
from gapcam.camera.sources.local_check import check_video_file
from gapcam.camera.sources.pace import Pace
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.turned import scaled_and_turned
from gapcam.errors import DataError

_SAME_S = 1e-4
"""Times in a file are whole milliseconds, or finer."""


class VideoFile:
    """Any file with a video that FFmpeg reads. Its frames' positions are seconds since its beginning.

    Frames of interlaced video keep both fields; those of a phone's film are upright.

    Args:
        path: of the file.
        name: see `Source`.
        options: see `SourceOptions`.
    """

    live = False

    def __init__(self, path: str, *, name: str, options: SourceOptions) -> None:
        self.name, self.uri = name, path
        self.paced = True if options.pace is None else options.pace
        self._path, self._options = path, options
        self._interrupted = Event()
        self._container: InputContainer | None = None
        self._decoding: Decoding | None = None

    def open(self) -> None:
        """See `Source`."""
        self.close()
        self._pace = Pace(self._interrupted)
        self._starts = film_starts(self._options.seek_s)
        self._count = 0  # of frames since then
        self._rounds_s = 0.0  # of the rounds before this one
        self._begin()

    def read(self) -> SourceFrame | None:
        """The next frame, when its time has come; see `Source`."""
        while not self._interrupted.is_set():
            if self._decoding is None:
                raise SourceLostError(f"{self.uri} is not open")
            try:
                frame = next(self._decoding.frames(), None)
                going = frame is not None or self._decoding.next_packet()
            except BrokenFrameError:
                if self._counts_broken():
                    raise
                continue
            except (av.error.FFmpegError, OSError) as error:
                reason = error.strerror
            else:
                if frame is not None:
                    if self._is_shown(frame):
                        return self._shown(frame)
                elif not going and not self._begin_again():
                    return None
                continue
            if not self._start_otherwise():  # not in the handler: the error holds on to the decoder
                raise DataError(f"{self._path} cannot be read on: {reason}")
        raise SourceLostError(f"{self.uri} was interrupted")

    def interrupt(self) -> None:
        """See `Source`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source`."""
        container, self._container = self._container, None
        decoding, self._decoding = self._decoding, None
        if decoding is not None:
            decoding.close()
        if container is not None:
            container.close()

    def _begin(self) -> None:
        start = self._starts[0]
        self._container = _opened(self._path)
        try:
            self._decoding = Decoding(self._container, low_delay=False, frame_threads=start.frame_threads)
        except DataError as error:
            raise DataError(f"{self._path} cannot be played: {error}") from None
        self._arrived = False  # at the first frame that is shown in this round
        self._approached = False  # the frame before that one came whole
        self._position_s = self._end_s = 0.0  # of the last frame
        duration_s = None if self._container.duration is None else self._container.duration / av.time_base
        if duration_s is not None and self._options.seek_s >= duration_s > 0:
            raise DataError(f"{self._path} is {duration_s:.1f} s long; seek is {self._options.seek_s:g}")
        if start.seek_s is not None:
            self._decoding.take_first_packet()
            begin = self._container.start_time or 0
            try:
                self._container.seek(begin + round(start.seek_s * av.time_base))
            except av.error.FFmpegError:  # what cannot seek is read from the beginning
                self._starts = self._starts[-1:]
                self.close()
                self._begin()

    def _start_otherwise(self) -> bool:
        """Before the first frame is shown: begin in the next way; False where there is none."""
        if self._arrived or len(self._starts) == 1:
            return False
        self._starts = self._starts[1:]  # a loop's next round begins in the way that worked
        self.close()
        self._begin()
        return True

    def _counts_broken(self) -> bool:
        """Whether a broken frame is one of those that were to be shown; else go on."""
        if self._arrived:
            return True
        if self._starts[0].frame_threads:
            return not self._start_otherwise()
        self._approached = False
        return not self._options.seek_s

    def _is_shown(self, frame: VideoFrame) -> bool:
        """Whether it is the frame of the position asked for, or comes after it. Begins otherwise if that is missing."""
        self._locate(frame)
        early_s = self._options.seek_s - self._position_s
        if self._arrived or self._starts[0].seek_s is None:
            self._arrived = self._arrived or early_s <= _SAME_S
        elif frame.pts is None:  # there is no telling where FFmpeg went
            self._start_otherwise()
        elif early_s > _SAME_S:
            self._approached = True
        elif early_s >= -_SAME_S or self._approached:
            self._arrived = True
        else:  # the one before it may be that of the position, too
            self._start_otherwise()
        return self._arrived

    def _begin_again(self) -> bool:
        """At the end: whether there is another round, or another way to the first frame."""
        if not self._arrived:
            if not self._approached and self._start_otherwise():
                return True
            after = f" after {self._options.seek_s:g} s" if self._options.seek_s else ""
            raise DataError(f"{self._path} has no frame that can be read{after}")
        if not self._options.loop:
            return False
        self._rounds_s += self._end_s - self._options.seek_s
        self.close()
        self._begin()
        return True

    def _locate(self, frame: VideoFrame) -> None:
        """Find out the position of a frame; the beginning of the video is 0."""
        assert self._decoding is not None  # noqa: S101 - for the types: it gave the frame
        stream = self._decoding.stream
        rate = stream.average_rate or stream.guessed_rate
        interval_s = 1 / float(rate) if rate else 0.04
        if frame.pts is None or frame.time_base is None:  # a raw stream: its rate is all that is known
            self._position_s = self._end_s
        else:
            start = stream.start_time or 0
            self._position_s = float((frame.pts - start) * frame.time_base)
        self._end_s = self._position_s + interval_s

    def _shown(self, frame: VideoFrame) -> SourceFrame:
        options = self._options
        image = scaled_and_turned(pixels(frame), options.size, (rotation_of(frame) + options.rotate) % 360)
        due_s = self._rounds_s + self._position_s if options.fps is None else self._count / options.fps
        self._count += 1
        return SourceFrame(image, self._pace.wait_for(due_s if self.paced else None), self._position_s)


def _opened(path: str) -> InputContainer:
    check_video_file(path)
    try:
        # "file:", since FFmpeg would take a part before a colon in a name for a protocol
        return av.open(f"file:{path}", mode="r")
    except av.error.FFmpegError as error:
        reason = str(error.strerror)
        raise DataError(f"{path} is not a video that FFmpeg can read, or it is cut off or damaged ({reason})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
