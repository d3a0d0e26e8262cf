"""A camera on the network: RTSP, or whatever FFmpeg reads over HTTP, such as MJPEG."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeAlias

import av
from av.video.frame import VideoFrame

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.sources.decoding import Decoding, pixels, rotation_of
from gapcam.camera.sources.pace import Pace
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.stream_errors import explained
from gapcam.camera.sources.turned import scaled_and_turned
from gapcam.camera.uri import without_credentials
from gapcam.errors import DataError, GapcamError

_Item: TypeAlias = "SourceFrame | GapcamError | None"

# What a stream is, its first packets say. FFmpeg would read up to five seconds of it to find out more, such as its
# rate, and hand all that over late; and without a buffer it would throw it away, and the first key frame with it.
_SHORT_PROBE = {"analyzeduration": "100000", "fpsprobesize": "0"}
_POLL_S = 0.1

_FILES = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "asf")
"""FFmpeg's names of what is a film with an end, where the server says how long it is."""


class NetworkStream:
    """Frames as they come; those of a film that lies on a server, at their time and to its end.

    FFmpeg runs in a thread of its own, since nothing can interrupt it: what it waits for, it waits for alone, and goes
    when its own time-out ends that.

    Args:
        uri: `rtsp://`, `rtsps://`, `http://` or `https://`, with credentials if it needs them.
        name: see `Source`.
        options: see `SourceOptions`.
    """

    live = True
    paced = True

    def __init__(self, uri: str, *, name: str, options: SourceOptions) -> None:
        self.name, self.uri = name, without_credentials(uri)
        self._secret_uri, self._options = uri, options
        self._interrupted = Event()
        self._connection: _Connection | None = None
        self._pace = Pace(self._interrupted)

    def open(self) -> None:
        """Connect; see `Source`."""
        self.close()
        self._pace = Pace(self._interrupted)
        self._connection = _Connection(self._secret_uri, self._options, self._interrupted)
        self._connection.start()
        try:
            item = self._next_item(self._connection, "did not answer")
            if item is not None:
                raise _unexpected(item)
        except BaseException:
            self.close()
            raise

    def read(self) -> SourceFrame | None:
        """The next frame; see `Source`."""
        if self._connection is None:
            raise SourceLostError(f"{self.uri} is not open")
        item = self._next_item(self._connection, "sent no frame")
        if isinstance(item, GapcamError):
            raise item
        if item is not None and item.position_s is not None:
            item = replace(item, taken_at=self._pace.wait_for(item.position_s))
            self._connection.frame_at = item.taken_at
        return item

    def interrupt(self) -> None:
        """See `Source`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source`. Where the network is silent, the connection is closed when that is noticed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stop()

    def _next_item(self, connection: _Connection, failure: str) -> _Item:
        until = connection.frame_at + self._options.timeout_s
        while not self._interrupted.is_set():
            try:
                item = connection.items.get(timeout=_POLL_S)
            except Empty:
                if time.monotonic() > until:
                    raise SourceLostError(f"{self.uri} {failure} for {self._options.timeout_s:g} s") from None
                continue
            if isinstance(item, SourceFrame) or item is None:
                connection.frame_at = time.monotonic()
            elif isinstance(item, BrokenFrameError) and time.monotonic() > until:
                raise SourceLostError(f"{self.uri} sent broken frames alone for {self._options.timeout_s:g} s")
            return item
        raise SourceLostError(f"{self.uri} was interrupted")


class _Connection:
    """One connection, from opening to closing, in a thread of its own.

    Attributes:
        items: None once it is open, then frames and errors; None again at the end. One at a time: who is slow, waits.
        frame_at: `time.monotonic()` of the last good frame, or of the beginning.
    """

    def __init__(self, uri: str, options: SourceOptions, interrupted: Event) -> None:
        self.items: Queue[_Item] = Queue(maxsize=1)
        self.frame_at = time.monotonic()
        self._uri, self._options, self._interrupted = uri, options, interrupted
        self._stopped = Event()
        self._next_due = 0.0
        self._is_film = False
        self._begin_s: float | None = None  # a film's first frame
        self._thread = Thread(target=self._run, name=f"gapcam stream {without_credentials(uri)}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(2 * _POLL_S)  # while frames come, it ends at once

    def _run(self) -> None:
        try:
            self._read()
        except GapcamError as error:
            self._put(_bare(error))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._put(SourceLostError(explained(error, self._uri)))

    def _read(self) -> None:
        options = self._options
        ffmpeg = ffmpeg_options(self._uri, options)
        # FFmpeg gives up a second after `NetworkStream` has, which says better what happened; at that moment FFmpeg
        # would hand over what frames it has left, late.
        timeouts = (options.timeout_s + 1, options.timeout_s + 1)
        with closing(av.open(self._uri, mode="r", options=dict(ffmpeg), timeout=timeouts)) as container:
            self._is_film = container.format.name in _FILES and container.size > 0  # which was its Content-Length
            try:
                decoding = Decoding(container, low_delay=True)
            except DataError as error:
                raise SourceLostError(f"{without_credentials(self._uri)}: {error}") from None
            with closing(decoding):
                going = self._put(None)
                while going:
                    going = self._hand_over_packet(decoding)

    def _hand_over_packet(self, decoding: Decoding) -> bool:
        """The frames of the next packet, or what is wrong with it; False when nobody wants them any more."""
        going = True
        try:
            if not decoding.next_packet():
                if self._is_film:
                    self._put(None)
                    return False
                raise SourceLostError(f"{without_credentials(self._uri)} ended the stream")
            came_at = time.monotonic()
            for frame in decoding.frames():
                position_s = self._position_s(frame) if self._is_film else None
                if self._is_due(came_at if position_s is None else position_s):
                    rotate = (rotation_of(frame) + self._options.rotate) % 360
                    image = scaled_and_turned(pixels(frame), self._options.size, rotate)
                    going = going and self._put(SourceFrame(image, came_at, position_s))
        except BrokenFrameError as error:
            return self._put(_bare(error))
        return going

    def _put(self, item: _Item) -> bool:
        """Hand it over; False when nobody wants it any more."""
        while not (self._stopped.is_set() or self._interrupted.is_set()):
            try:
                self.items.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def _is_due(self, now: float) -> bool:
        """Whether a frame is wanted at the rate asked for; half an interval early is due: cameras are not exact."""
        if self._options.fps is None:
            return True
        interval = 1 / self._options.fps
        if now < self._next_due - interval / 2:
            return False
        self._next_due = max(self._next_due + interval, now)
        return True

    def _position_s(self, frame: VideoFrame) -> float | None:
        if frame.time is not None and self._begin_s is None:
            self._begin_s = frame.time
        return None if frame.time is None or self._begin_s is None else frame.time - self._begin_s


def ffmpeg_options(uri: str, options: SourceOptions) -> Mapping[str, str]:
    """What FFmpeg is asked for, so that frames come as early as they can."""
    if uri.lower().startswith("rtsp"):
        return {
            **_SHORT_PROBE,
            "probesize": "32",  # the session's description has said what it is
            "rtsp_transport": options.transport,
            "allowed_media_types": "video",
            "max_delay": "100000",  # UDP: how long a packet that is missing is waited for, microseconds
        }
    return {**_SHORT_PROBE, "probesize": "100000"}


def _bare(error: GapcamError) -> GapcamError:
    """An error without the calls that led to it: who keeps it would keep their packets, and FFmpeg's decoder."""
    error.__context__ = None
    return error.with_traceback(None)


def _unexpected(item: SourceFrame | GapcamError) -> GapcamError:
    return item if isinstance(item, GapcamError) else SourceLostError("a frame came before the stream was open")
