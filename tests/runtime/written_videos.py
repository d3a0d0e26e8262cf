"""Video files that tests write: every frame carries its number in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from camera_servers.stamped_frame import read_stamp, stamped_frame

from gapcam.camera.captured_frame import SourceFrame


def write_video(
    path: Path,
    frames: int = 30,
    *,
    fps: int = 30,
    size: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    audio: bool = False,
) -> Path:
    """A video whose frame n carries n; `times_ms` are the frames' times where they do not come evenly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = 10
        stream.codec_context.bit_rate = 4_000_000
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"bf": "0"} if options is None else options
        sound = container.add_stream("aac", rate=44100) if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(stamped_frame(number, *size, time_ms=0), "bgr24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = Fraction(1, fps) if times_ms is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if sound is not None:
            silence = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            silence.sample_rate, silence.pts = 44100, 0
            for plane in silence.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def number_of(frame: SourceFrame) -> int | None:
    """What a frame carries; None where it cannot be read."""
    stamp = read_stamp(frame.image)
    return None if stamp is None else stamp.number
