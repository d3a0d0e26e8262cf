"""Writing results so that what is done is never lost and never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from gapcam.errors import DataError
from gapcam.frame import Frame

OVERLAY = ".overlay"
"""What an overlay's name has between the image's and the suffix."""

_LONGEST_NAME = 255
"""Of a file, in bytes, on the file systems in use."""


def check_output_folder(folder: Path) -> None:
    """Make the output folder and try it, before any work is done.

    Raises:
        DataError: it cannot be made or written to.
    """
    probe = folder / ".gapcam-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another run may have tried the same folder meanwhile
    except OSError as error:
        raise DataError(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another with -o"
        ) from error


def output_names(images: Sequence[Path], folder: Path, suffix: str) -> list[Path]:
    """An output file in `folder` for each image, no two the same and none of them one of the images.

    photos/cat.jpg becomes cat.overlay.png; another cat becomes cat-2.overlay.png, in the order of the images. A name
    that would be too long for a file is cut off.
    """
    # Compared without case, since some file systems do not know it.
    taken = {os.path.realpath(image).casefold() for image in images}
    real_folder = os.path.realpath(folder)
    longest = _LONGEST_NAME - len(f"-9999999{OVERLAY}{suffix}")
    last_number: dict[str, int] = {}
    names = []
    for image in images:
        stem = display_name(Path(image.stem)).encode()[:longest].decode(errors="ignore")
        while True:
            number = last_number[stem] = last_number.get(stem, 0) + 1
            name = f"{stem}{OVERLAY}{suffix}" if number == 1 else f"{stem}-{number}{OVERLAY}{suffix}"
            full = os.path.join(real_folder, name).casefold()  # noqa: PTH118 - of thousands, and compared as text
            if full not in taken:
                break
        taken.add(full)
        names.append(folder / name)
    return names


def json_line(row: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """A row as a line of JSON, in UTF-8 whatever file names it holds; or with escapes for all that is not ASCII."""
    return encodable(json.dumps(row, ensure_ascii=ascii_only, allow_nan=False))


def display_name(path: Path) -> str:
    """A path as text that can be encoded."""
    return encodable(str(path))


def encodable(text: str) -> str:
    """A text as UTF-8 can hold it; a file name in it may have bytes that are no UTF-8."""
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
        try:
            self._file.close()
        except OSError as error:  # where `write` failed, this tries once more to write the rest
            raise self._unwritable(error) from error

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
