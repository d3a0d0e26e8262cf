"""Which images a command line means: files, folders and patterns."""

# ruff: noqa: PTH110, PTH112, PTH113 - Path.exists and its like raise where a name is too long or a folder is closed

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapcam.cli.output import OVERLAY
from gapcam.image_file import SUFFIXES


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to read, or an argument that leads to none.

    Attributes:
        path: of the image, or the argument itself.
        problem: why there is nothing to read; empty where `path` may be an image.
    """

    path: Path
    problem: str = ""


def find_images(arguments: Sequence[str], *, recursive: bool, hint: bool = True) -> list[InputImage]:
    """The images that arguments name, each once, in the order of the arguments and sorted within each.

    A folder means its files that have an image's suffix, without overlays that an earlier run left there; `recursive`
    includes its subfolders. An argument that is no existing file or folder and has a "*", "?" or "[" is a pattern, in
    which "**" spans folders. Two paths of one file, such as a relative and an absolute one, are one image, shown as it
    was named first.

    Args:
        arguments: see above.
        recursive: see above.
        hint: whether the command has an option --recursive to speak of.
    """
    found: dict[str, InputImage] = {}
    for argument in arguments:
        for image in _expanded(argument, recursive, hint and not recursive):
            found.setdefault(os.path.realpath(image.path), image)
    return list(found.values())


def _expanded(argument: str, recursive: bool, hint: bool) -> Iterable[InputImage]:
    path = Path(argument)
    if os.path.isdir(path):
        return _in_folder(path, recursive, hint)
    if not os.path.exists(path) and glob.has_magic(argument):
        names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [InputImage(Path(name)) for name in names if os.path.isfile(name)]
        return files or [InputImage(path, f"no file matches {argument}")]
    return [InputImage(path)]


def _in_folder(folder: Path, recursive: bool, hint: bool) -> list[InputImage]:
    files: list[Path] = []
    closed: list[OSError] = []
    for where, _, names in os.walk(folder, onerror=closed.append):
        files += (Path(where, name) for name in names)
        if not recursive:
            break
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    images = [InputImage(file) for file in pictures if not file.stem.endswith(OVERLAY)]
    images += (
        InputImage(Path(error.filename), f"the folder {error.filename} cannot be read: {error.strerror}")
        for error in closed
    )
    what = "but overlays of an earlier run, which are left out" if pictures else f"({' '.join(SUFFIXES)})"
    cure = "; --recursive looks into its subfolders" if hint else ""
    none = InputImage(folder, f"the folder {folder} has no images {what}{cure}")
    return sorted(images, key=lambda image: image.path) or [none]
