"""Writing results so that what is done is never lost and never half written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from gapcam.errors import DataError
from gapcam.frame import Frame


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON, in UTF-8 whatever file names it holds."""
    return _encodable(json.dumps(row, ensure_ascii=False, allow_nan=False))


def display_name(path: Path) -> str:
    """A path as text that can be encoded; a file name may hold bytes that are no UTF-8."""
    return _encodable(str(path))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class JsonLines:
    """A new file of JSON lines. Each goes to the disk when it is written, so that an interrupted run keeps them.

    Args:
        path: of the file; an older one is replaced.

    Raises:
        DataError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row.

        Raises:
            DataError: it cannot be written.
        """
        try:
            self._file.write(json_line(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"cannot write {self._path}: {error.strerror}; choose another folder with -o")


def encode_image(image: Frame, suffix: str) -> bytes:
    """An image as the bytes of a file.

    Raises:
        DataError: the format cannot hold it: JPEG ends at 65535 pixels.
    """
    why = "OpenCV gave no reason"
    try:
        fits, data = cv2.imencode(suffix, image)
        if fits:
            return data.tobytes()
    except cv2.error as error:
        why = " ".join(str(error).split())
    height, width = image.shape[:2]
    raise DataError(f"an overlay of {width} x {height} pixels does not fit {suffix[1:]}: {why}. Try another --format.")
