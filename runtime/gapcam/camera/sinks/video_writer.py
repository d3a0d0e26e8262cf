"""One recorded video file: pictures and the times at which they are to be seen."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType

from gapcam.camera.sinks.mp4_boxes import whole_fragments
from gapcam.camera.sinks.video_encoder import TICKS, Encoder
from gapcam.camera.sinks.whole_writes import WholeWrites
from gapcam.frame import Frame

_KEY_S = 1.0
"""A key frame at least so often: there a player may begin, and up to there the file plays if nothing finishes it."""

_MUXERS = {
    # Fragments, so that the file plays whatever happens; when it is finished it becomes an ordinary one.
    ".mp4": ("mp4", {"movflags": "hybrid_fragmented+frag_keyframe", "frag_duration": "1000000"}),
    ".mkv": ("matroska", {"cluster_time_limit": "1000"}),
}

_BT601 = 6
"""The matrix with which OpenCV makes YUV of BGR; players guess another one for large pictures unless told."""


class VideoWriter:
    """Writes one video. Every second of it is on its way to the disk with the second picture of the next one.

    The newest picture is held back: were it the last one, `close` would say how long it is to be seen.

    Args:
        path: of the file; its suffix, .mp4 or .mkv, says what it becomes.
        file: the same, open to write, unbuffered; it is closed in the end.
        size: (width, height) of the pictures; the video's sides are even, a last row or column is doubled for that.
        encoder: what encodes it.
        began: Unix seconds of the first picture, for the file's metadata.

    Attributes:
        cut_to_s: how long an MP4 plays that could not be finished, in seconds, 0 where it was removed; None of others.

    Raises:
        OSError: the file cannot be written.
        FFmpegError: FFmpeg refuses.
    """

    def __init__(self, path: Path, file: BinaryIO, size: tuple[int, int], encoder: Encoder, began: float) -> None:
        self.path, self.size = path, size
        self._file = WholeWrites(file)
        self._odd = (size[1] % 2, size[0] % 2)
        self._key_tick: int | None = None
        self.cut_to_s: float | None = None
        self._held: av.Packet[av.VideoStream] | None = None  # the last one: `close` says how long it is to be seen
        self._reached = deque([(0, 0.0)], 60)  # how far the file was, in bytes, when so many seconds were in it
        container, options = _MUXERS[path.suffix.lower()]
        try:
            self._container = av.open(self._file, "w", format=container, options=options)
            self._container.metadata["creation_time"] = datetime.fromtimestamp(began, timezone.utc).isoformat()
            self._stream = self._added_stream(encoder)
        except BaseException:
            file.close()
            raise

    def write(self, picture: Frame, at_s: float) -> None:
        """Add a picture.

        Args:
            picture: H x W x 3 uint8 BGR, of `size`.
            at_s: when it is to be seen, seconds from the beginning; greater than that of the picture before.

        Raises:
            OSError: the file cannot be written.
            FFmpegError: FFmpeg refuses.
        """
        bottom, right = self._odd
        if bottom or right:
            picture = np.asarray(cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        tick = round(at_s * TICKS)
        frame.pts, frame.time_base = tick, Fraction(1, TICKS)
        if self._key_tick is None or tick - self._key_tick >= _KEY_S * TICKS:
            frame.pict_type, self._key_tick = PictureType.I, tick
        for packet in self._stream.encode(frame):
            self._mux_held()
            self._held = packet

    def close(self, end_s: float) -> None:
        """Finish the file. Where its end cannot be written, it is cut to what plays, and removed where nothing does.

        Args:
            end_s: until when its last picture is to be seen, seconds from the beginning.

        Raises:
            OSError: the file cannot be finished, and no earlier error said so.
            FFmpegError: likewise.
        """
        known = self._file.broken
        try:
            if known is None:
                for packet in self._stream.encode(None):
                    self._mux_held()
                    self._held = packet
                if self._held is not None and self._held.pts is not None:
                    self._held.duration = max(round(end_s * TICKS) - self._held.pts, 1)
                self._mux_held()
            self._container.close()
        except (OSError, FFmpegError):
            if known is None:
                raise
        finally:
            self._file.close()
            if self._file.broken is not None and self.path.suffix.lower() == ".mp4":
                length = _cut_to_whole(self.path)
                self.cut_to_s = max((seconds for reached, seconds in self._reached if reached <= length), default=None)

    def _mux_held(self) -> None:
        packet, self._held = self._held, None
        if packet is None:
            return
        before = self._file.tell()
        self._container.mux(packet)
        if self._file.tell() > before and packet.pts is not None:  # a fragment of what came before this packet
            self._reached.append((self._file.tell(), packet.pts / TICKS))

    def _added_stream(self, encoder: Encoder) -> av.VideoStream:
        width, height = self.size[0] + self._odd[1], self.size[1] + self._odd[0]
        added = self._container.add_stream(encoder.name, rate=30, options=dict(encoder.options))
        stream = cast(av.VideoStream, added)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, encoder.pixels
        context.time_base = stream.time_base = Fraction(1, TICKS)
        context.colorspace, context.color_range = _BT601, 1
        context.gop_size = 300  # a limit; key frames are asked for by the clock
        context.thread_count = 1  # more would take cores from the network for little
        if encoder.bits_a_pixel:
            context.bit_rate = encoder.bit_rate(width, height)
        return stream


def _cut_to_whole(path: Path) -> int:
    """Its length in bytes afterwards."""
    with path.open("r+b") as file:
        length = whole_fragments(file)
        file.truncate(length)
    if not length:
        path.unlink()
    return length
