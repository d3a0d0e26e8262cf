"""What a source of frames must do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gapcam.camera.captured_frame import SourceFrame


@runtime_checkable
class Source(Protocol):
    """A camera, a stream, a file. One thread opens it, reads it and closes it, over and over where it is lost.

    Attributes:
        name: short, for people and files; a pipeline's sources have different ones.
        uri: where the frames come from, without credentials.
        live: whether frames come when they come. One that is not live waits until it is read.
        paced: whether frames come at a rate of their own, as always where it is live, and of a file that is played in
            real time. Of one that is not paced, the pipeline drops no frames unless it is told to.
    """

    name: str
    uri: str
    live: bool
    paced: bool

    def open(self) -> None:
        """Get ready to read. Called again after `close`, where the source was lost.

        Raises:
            SourceLostError: not now, but it is worth trying again.
            GapcamError: it can never work: there is no such file.
        """

    def read(self) -> SourceFrame | None:
        """The next frame; None at the end of what has one.

        It returns or raises within some seconds (a stall is an error), and soon after `interrupt`.

        Raises:
            BrokenFrameError: this frame could not be read, the next one may.
            SourceLostError: there will be none until it is opened again.
        """

    def interrupt(self) -> None:
        """Make a `read` or `open` in another thread return or raise soon: the pipeline stops. For good."""

    def close(self) -> None:
        """Give everything back. Closing twice, or before `open`, does nothing."""
