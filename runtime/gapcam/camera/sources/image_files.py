"""Images of a folder or a pattern as frames."""

# ruff: noqa: PTH110 - Path.exists raises where a name is too long or a folder is closed

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Event

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.sources.pace import Pace
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.turned import scaled_and_turned
from gapcam.cli.inputs import find_images
from gapcam.errors import DataError
from gapcam.image_file import read_image


class ImageFiles:
    """One frame an image, in the order in which people count: frame2.png comes before frame10.png.

    Images that cannot be read are broken frames. Without `fps` they come as fast as they are read, and each is a
    picture of its own; with it they are a film, paced or not.

    Args:
        where: a folder, one image, or a pattern with "*", "?" or "[".
        name: see `Source`.
        options: see `SourceOptions`.
    """

    live = False

    def __init__(self, where: str, *, name: str, options: SourceOptions) -> None:
        self.name, self.uri = name, where
        self.paced = options.fps is not None if options.pace is None else options.pace
        self._options = options
        self._interrupted = Event()
        self._paths: list[Path] | None = None

    def open(self) -> None:
        """See `Source`."""
        found = find_images([self.uri], recursive=False, hint=False)
        if len(found) == 1 and not os.path.exists(found[0].path) and not found[0].problem:
            raise DataError(f"there is no file {self.uri}; check the name")
        if found[0].problem:
            raise DataError(found[0].problem)
        self._paths = sorted((image.path for image in found), key=_as_people_count)
        self._pace = Pace(self._interrupted)
        self._next = round(self._options.seek_s * self._rate)
        if self._next >= len(self._paths):
            raise DataError(
                f"{self.uri} has {len(self._paths)} images, {len(self._paths) / self._rate:g} s; "
                f"seek is {self._options.seek_s:g}"
            )
        self._count = 0  # of images, since then
        self._good = 0  # of frames, in this round

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        if self._paths is None:
            raise SourceLostError(f"{self.uri} is not open")
        if self._interrupted.is_set():
            raise SourceLostError(f"{self.uri} was interrupted")
        if self._next >= len(self._paths):
            if not (self._options.loop and self._good):
                return None
            self._next, self._good = round(self._options.seek_s * self._rate), 0
        path, position_s, due_s = self._paths[self._next], self._next / self._rate, self._count / self._rate
        self._next += 1
        self._count += 1
        try:
            frame = scaled_and_turned(read_image(path), self._options.size, self._options.rotate)
        except DataError as error:
            raise BrokenFrameError(str(error)) from None
        self._good += 1
        taken_at = self._pace.wait_for(due_s if self.paced else None)
        return SourceFrame(frame, taken_at, position_s, still=self._options.fps is None)

    def interrupt(self) -> None:
        """See `Source`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source`."""
        self._paths = None

    @property
    def _rate(self) -> float:
        """Images a second, for positions, whether or not they are paced."""
        return self._options.fps or 1.0


def _as_people_count(path: Path) -> tuple[str, list[tuple[int, str]]]:
    """Sorts "a10" after "a2"."""
    parts = re.findall(r"\d+|\D+", path.name)
    return str(path.parent), [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
