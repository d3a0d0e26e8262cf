"""The ways to the first frame that is shown of a film: the quick ones first, the sure one last."""

from __future__ import annotations

from dataclasses import dataclass

_BACK_S = 10.0
"""So far before the position there is an earlier key frame in most films, and few frames to decode."""


@dataclass(frozen=True, slots=True)
class FilmStart:
    """One way.

    Attributes:
        seek_s: where FFmpeg is asked to begin; None: with the file's first packet.
        frame_threads: whether the decoder may use a thread a frame, which is faster. H.264 that begins in an open
            group of pictures, it then cannot decode at all where FFmpeg is to report damage; without them it can.
    """

    seek_s: float | None
    frame_threads: bool


def film_starts(position_s: float) -> list[FilmStart]:
    """Each is tried where those before it did not come by the frame of that position whole.

    Args:
        position_s: of the frame that is wanted, or that comes next; 0 is the film's beginning.
    """
    if not position_s:
        return [FilmStart(None, frame_threads=True), FilmStart(None, frame_threads=False)]
    return [
        FilmStart(position_s, frame_threads=True),
        FilmStart(position_s, frame_threads=False),
        FilmStart(max(0.0, position_s - _BACK_S), frame_threads=False),
        FilmStart(None, frame_threads=False),
    ]
