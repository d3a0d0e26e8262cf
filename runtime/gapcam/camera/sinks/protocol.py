"""What a sink of results must do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gapcam.camera.explained_frame import ExplainedFrame


@runtime_checkable
class Sink(Protocol):
    """A file, a window, a broker. A thread of its own opens it, writes to it and closes it.

    Attributes:
        name: short, for people, without credentials; a pipeline's sinks have different ones.
        capacity: how many frames may wait for it. When one more comes, the oldest is dropped and counted; its events
            are handed over with the next frame of its source.

    A sink that sends in the background, after `write` has come back, may also have an attribute `undelivered`: how many
    frames or messages it took and could not deliver, so far. `SinkStatus` says it on.
    """

    name: str
    capacity: int

    def open(self) -> None:
        """Get ready to write. Called again after `close`, where it failed.

        Raises:
            SinkEndedError: it can never work.
            GapcamError, OSError: not now, but it is worth trying again.
        """

    def write(self, frame: ExplainedFrame) -> None:
        """Take one frame. It may take its time: nothing but this sink waits for it.

        Where no frame comes any more that could tell events (a class leaves as its source ends), the source's last one
        comes once more with these: `frame.again`. Who writes pictures or counts frames leaves it out.

        Raises:
            SinkEndedError: no more frames; `close` is called, `open` is not called again.
            StopRequestedError: the user wants everything to stop.
            GapcamError, OSError: it failed; it is closed and opened again after a while.
        """

    def close(self) -> None:
        """Finish what was written, so that it can be used. Closing twice, or before `open`, does nothing."""
