"""What goes wrong with cameras and with what their results are sent to, as types: each says what is done about it."""

from __future__ import annotations

from gapcam.errors import DataError, GapcamError


class SourceLostError(DataError):
    """A source gives no frames at present: unplugged, stalled, not answering. It is reopened."""


class BrokenFrameError(DataError):
    """One frame could not be read. It is counted, and the next one is read."""


class SinkEndedError(DataError):
    """A sink has no use for more frames and is not opened again: its disk is full, say. The camera goes on."""


class StopRequestedError(Exception):
    """The user asked at a sink that everything stop: they closed the window. No error for people."""


def in_words(error: BaseException) -> str:
    """One line for a log or a status; of an error that is not gapcam's, with its type."""
    text = str(error) if isinstance(error, GapcamError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
