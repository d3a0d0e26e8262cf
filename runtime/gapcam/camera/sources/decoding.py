"""Pictures out of FFmpeg's packets, for files and streams alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gapcam.camera.errors import BrokenFrameError
from gapcam.errors import DataError
from gapcam.frame import Frame
from gapcam.image_file import jpeg_is_whole

_GREATEST_HELD_BACK = 30
"""Frames."""

_GREATEST_JOIN = 300
"""Packets: ten seconds of a stream whose key frames are far apart."""

_GREATEST_ERRORS = 3
"""In reading packets, one after another."""


class Decoding:
    """The video of an open container.

    A frame that the decoder knows to be damaged is not shown, and neither are those that build upon it, as far as the
    next key frame: they would be grey or smeared. Streams without key frames are shown again after 30 frames.

    Args:
        container: which is read from here on.
        low_delay: whether a frame comes out as soon as its packet went in; else the decoder takes some in at a time.
        frame_threads: whether it may use a thread a frame, which is faster; without `low_delay` alone.

    Raises:
        DataError: it has no video, or one that this FFmpeg cannot decode.
    """

    def __init__(self, container: InputContainer, *, low_delay: bool, frame_threads: bool = True) -> None:
        videos = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not videos:
            kinds = sorted({stream.type for stream in container.streams})
            raise DataError(f"it has no video stream; it has {', '.join(kinds) if kinds else 'none at all'}")
        self.stream: VideoStream = videos[0]
        codec = self.stream.codec_context
        if codec is None:
            raise DataError("this FFmpeg has no decoder for its video")
        codec.options = {"err_detect": "explode"}  # rather than fill what is missing with something
        # Threads that take a frame each hold back as many frames; with those that share a frame's slices, FFmpeg no
        # longer sees damage in H.264.
        self.stream.thread_type = "AUTO" if frame_threads and not low_delay else "NONE"
        if low_delay:
            codec.flags |= Flags.low_delay
        self._is_jpeg = codec.name == "mjpeg"
        self._container = container
        self._packets: Iterator[Packet[VideoStream]] = container.demux(self.stream)
        self._frames: deque[VideoFrame] = deque()
        self._errors = 0  # one after another
        self._held_back = 0  # frames that may still be
        # A stream is joined in its middle: until the first whole frame, so many packets and frames are no damage.
        self._until_joined = _GREATEST_JOIN if low_delay else 0

    def take_first_packet(self) -> None:
        """Show the decoder the first packet, before a seek: x264 names its version in it alone, and FFmpeg decodes some
        versions' 4:4:4 video otherwise than the others'.
        """
        with suppress(av.error.FFmpegError):  # what is wrong with it will be said if it is to be shown
            packet = next(self._packets, None)
            if packet is not None:
                packet.decode()
        self._packets = self._container.demux(self.stream)

    def close(self) -> None:
        """Let go of the decoder, whose threads end with it: FFmpeg's has no other end in PyAV."""
        self._packets = iter(())
        self._frames.clear()
        del self.stream, self._container

    def next_packet(self) -> bool:
        """Read and decode one packet, in which there may be no frame, or several; False at the end.

        Raises:
            BrokenFrameError: the packet could not be read or decoded, the next one may.
            av.error.FFmpegError, OSError: it could not be read, and the next one will not either.
        """
        try:
            packet = next(self._packets, None)
        except (av.error.InvalidDataError, av.error.ArgumentError) as error:
            self._errors += 1
            if self._errors > _GREATEST_ERRORS:
                raise
            self._packets = self._container.demux(self.stream)  # the error ended it
            raise self._broken(f"the video is damaged ({error.strerror})") from None
        self._errors = 0
        if packet is None:
            return False
        if packet.size and self._is_jpeg and not jpeg_is_whole(bytes(packet)):
            raise self._broken(f"a JPEG of the video is cut off after {packet.size} bytes")
        try:
            self._frames.extend(packet.decode())
        except av.error.InvalidDataError as error:
            broken = self._broken(f"a packet of the video is damaged ({error.strerror})")
            if not self._is_joining():  # else it builds upon what came before
                raise broken from None
        return True

    def frames(self) -> Iterator[VideoFrame]:
        """The frames of the packets that were decoded, each once.

        Raises:
            BrokenFrameError: a frame is damaged, or builds upon one that is; more may follow.
        """
        while self._frames:
            frame = self._frames.popleft()
            if frame.is_corrupt:
                broken = self._broken("a frame of the video is damaged")
            elif self._held_back and not frame.key_frame:
                self._held_back -= 1
                broken = BrokenFrameError("a frame of the video builds upon a damaged one")
            else:
                self._held_back = self._until_joined = 0
                yield frame
                continue
            if not self._is_joining():
                raise broken

    def _is_joining(self) -> bool:
        """Whether what is broken was to be expected, since the stream was joined in its middle."""
        self._until_joined = max(0, self._until_joined - 1)
        return self._until_joined > 0

    def _broken(self, why: str) -> BrokenFrameError:
        self._held_back = _GREATEST_HELD_BACK
        return BrokenFrameError(why)


def pixels(frame: VideoFrame) -> Frame:
    """H x W x 3 uint8 BGR: any pixel format, without its alpha channel, with the upper 8 of more bits."""
    return np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)


def rotation_of(frame: VideoFrame) -> int:
    """Clockwise degrees by which a player turns the frame: 0, 90, 180 or 270. A phone writes it into its films."""
    return round(-frame.rotation / 90) % 4 * 90


def _is_cover(stream: VideoStream) -> bool:
    """Whether it is the picture of a piece of music."""
    return "attached_pic" in str(stream.disposition)
