"""A frame as a source gives it, and as the pipeline hands it on."""

from __future__ import annotations

from dataclasses import dataclass

from gapcam.frame import Frame


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """What a source read.

    Attributes:
        image: H x W x 3 uint8 BGR, contiguous, nobody else's: it is never written to again.
        taken_at: `time.monotonic()` seconds when the driver, the decoder or the file handed it over. Up to 1 s ahead of
            now counts as now. What is further off, or over an hour before the pipeline began, or no number, fails the
            source as its first frame; later the frame counts as broken.
        position_s: seconds from the beginning of a file; None of what has no beginning.
        still: a picture of its own, one photograph of many, say: nothing of the frames before it holds for it.
    """

    image: Frame
    taken_at: float
    position_s: float | None = None
    still: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class CapturedFrame:
    """A frame on its way to the network.

    Attributes:
        source: the name of the source.
        number: of the frame among all that this source gave, from 0; it goes on when the source is reopened.
        image: H x W x 3 uint8 BGR.
        taken_at: `time.monotonic()` seconds, see `SourceFrame`.
        time: the same moment in Unix seconds, for people and files.
        position_s: see `SourceFrame`.
        still: likewise.
    """

    source: str
    number: int
    image: Frame
    taken_at: float
    time: float
    position_s: float | None = None
    still: bool = False

    @property
    def moment_s(self) -> float:
        """Seconds by which durations are measured: the place in a file, however fast that is read, else `taken_at`."""
        return self.taken_at if self.position_s is None else self.position_s
