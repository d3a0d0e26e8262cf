"""Whether there is anything to read for a source of this machine's disk: looked at before a model is loaded."""

# ruff: noqa: PTH110, PTH112, PTH113 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import os
import re

from gapcam.camera.sources.image_files import ImageFiles
from gapcam.camera.sources.moving_clock import MovingClock
from gapcam.camera.sources.protocol import Source
from gapcam.camera.uri import without_credentials
from gapcam.errors import DataError

_SCHEME = re.compile(r"(?:rtsps?|https?):", re.IGNORECASE)
_HOST = re.compile(r"(?:[^/]*@)?(?:localhost|\[[0-9A-Fa-f:.]+\]|[\w-]+(?:\.[\w-]+)+)(?::\d+)?")


def check_local(source: Source) -> None:
    """Refuse a file, a folder or a pattern that has nothing to read. Other sources may come later, or draw themselves.

    Args:
        source: one of `source_from_uri`; not open.

    Raises:
        DataError: there is nothing; the message says what was perhaps meant.
    """
    if source.live or isinstance(source, MovingClock):
        return
    if isinstance(source, ImageFiles):
        source.open()  # lists them; none is read
        source.close()
        return
    from gapcam.camera.sources.video_file import VideoFile  # it is loaded if it is one

    if isinstance(source, VideoFile):
        check_video_file(source.uri)


def check_video_file(path: str) -> None:
    """Refuse what is no regular file, is empty, or may not be read. Whether it is a video, FFmpeg will say.

    Raises:
        DataError: it is so.
    """
    shown = without_credentials(path)
    if os.path.isdir(path):
        raise DataError(f"{shown} is a folder; expected a video file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{shown} is a pipe or a device; expected a video file")
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see above
            if not file.read(1):
                raise DataError(f"{shown} is empty; expected a video file")
    except FileNotFoundError:
        raise DataError(f"there is no file {shown}; check the name{_hint(path)}") from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror}") from None


def _hint(path: str) -> str:
    """For what looks like a camera's address."""
    first, slash, _ = path.partition("/")
    is_host = slash and _HOST.fullmatch(first) and not os.path.exists(first)
    return "; for a camera, write rtsp://HOST/PATH" if _SCHEME.match(path) or is_host else ""
