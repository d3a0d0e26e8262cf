"""Which video encoder there is here: of those that FFmpeg was built with, the first that really encodes a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import cast

import av
from av.error import FFmpegError

from gapcam.camera.errors import SinkEndedError

log = logging.getLogger("gapcam.camera")

TICKS = 60_000
"""A second in the unit of time of a recorded video; MPEG-4 has no smaller one than 1/65535 s."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders, and how it is used.

    Attributes:
        name: FFmpeg's.
        pixels: the format of pixels that it takes.
        options: its own.
        bits_a_pixel: of a bit rate to ask for; 0 where its options say what quality is wanted.
    """

    name: str
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict, hash=False)
    bits_a_pixel: float = 0

    def bit_rate(self, width: int, height: int) -> int:
        """Bits a second, for 15 frames a second or so."""
        return round(self.bits_a_pixel * width * height * 15)


ENCODERS = (
    # `ultrafast` costs a third of `veryfast` at 720p, for a fifth more bits; no frame waits for later ones.
    Encoder("libx264", options={"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"}),
    Encoder("h264_nvenc", options={"preset": "p3", "tune": "ll", "forced-idr": "1"}, bits_a_pixel=0.2),
    Encoder("h264_v4l2m2m", bits_a_pixel=0.2),
    Encoder("h264_videotoolbox", options={"realtime": "1"}, bits_a_pixel=0.2),
    Encoder("h264_qsv", "nv12", {"preset": "veryfast", "forced_idr": "1"}, bits_a_pixel=0.2),
    Encoder("h264_amf", bits_a_pixel=0.2),
    Encoder("h264_mf", "nv12", bits_a_pixel=0.2),
    Encoder("libopenh264", bits_a_pixel=0.2),
    Encoder("mpeg4", bits_a_pixel=0.4),
    Encoder("mjpeg", "yuvj420p", bits_a_pixel=1.0),
)
"""The best first: H.264, and what plays nearly everywhere besides."""


@lru_cache(maxsize=16)
def encoder_for(width: int, height: int, candidates: tuple[Encoder, ...] = ENCODERS) -> Encoder:
    """The first of these that encodes pictures of this size here.

    Raises:
        SinkEndedError: none does.
    """
    for encoder in candidates:
        if encoder.name in av.codec.codecs_available and _encodes(encoder, width, height):
            if not encoder.name.startswith(("h264", "libx264", "libopenh264")):
                log.warning("no H.264 encoder works here: videos are recorded as %s", encoder.name)
            return encoder
    tried = ", ".join(encoder.name for encoder in candidates)
    raise SinkEndedError(f"no video encoder works for {width} x {height} pixels; FFmpeg was asked for {tried}")


def _encodes(encoder: Encoder, width: int, height: int) -> bool:
    """Whether it does, tried with one picture: hardware encoders are listed where the hardware is not."""
    try:
        context = cast(av.VideoCodecContext, av.CodecContext.create(encoder.name, "w"))
        context.width, context.height, context.pix_fmt = width, height, encoder.pixels
        context.time_base, context.framerate = Fraction(1, TICKS), Fraction(30)
        context.options = dict(encoder.options)
        if encoder.bits_a_pixel:
            context.bit_rate = encoder.bit_rate(width, height)
        picture = av.VideoFrame(width, height, "yuv420p")
        picture.pts, picture.time_base = 0, context.time_base
        return bool([*context.encode(picture), *context.encode(None)])
    except (FFmpegError, ValueError, OSError) as error:
        log.debug("the video encoder %s does not work here: %s", encoder.name, error)
        return False
