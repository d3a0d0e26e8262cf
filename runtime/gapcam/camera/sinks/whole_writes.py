"""A file for FFmpeg to write to: all of a write or an error, and the errors are the operating system's."""

from __future__ import annotations

import os
from typing import BinaryIO


class WholeWrites:
    """An unbuffered file. After its first failure nothing is written to it any more.

    Attributes:
        broken: that failure.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.broken: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of it.

        Raises:
            OSError: it could not be written, or an earlier one could not.
        """
        if self.broken is not None:
            raise self.broken
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a full disk takes a part of it first
        except OSError as error:
            self.broken = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As files have it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As files have it."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Whether its beginning can be written to at the end."""
        return self._file.seekable()

    def writable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
