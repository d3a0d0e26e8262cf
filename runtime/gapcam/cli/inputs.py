"""Which images a command line means: files, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gapcam.cli.output import display_name
from gapcam.errors import DataError
from gapcam.image_file import SUFFIXES

_OVERLAY = ".overlay"
"""What an overlay's name has between the image's and the suffix."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to read, or an argument that leads to none.

    Attributes:
        path: of the image, or the argument itself.
        problem: why there is nothing to read; empty where `path` may be an image.
    """

    path: Path
    problem: str = ""


def find_images(arguments: Sequence[str], *, recursive: bool) -> list[InputImage]:
    """The images that arguments name, each once, in the order of the arguments and sorted within each.

    A folder means its files that have an image's suffix, without overlays that an earlier run left there;
    `recursive` includes its subfolders. An argument that is no
    existing file or folder and has a "*", "?" or "[" is a pattern, in which "**" spans folders.
    """
    found: dict[Path, InputImage] = {}
    for argument in arguments:
        for image in _expanded(argument, recursive):
            found.setdefault(image.path, image)
    return list(found.values())


def _expanded(argument: str, recursive: bool) -> Iterable[InputImage]:
    path = Path(argument)
    if path.is_dir():
        try:
            inside = sorted(path.rglob("*") if recursive else path.iterdir())
        except OSError as error:
            return [InputImage(path, f"the folder {path} cannot be read: {error.strerror}")]
        images = [InputImage(file) for file in inside if _is_image(file)]
        hint = "" if recursive else "; --recursive looks into its subfolders"
        return images or [InputImage(path, f"the folder {path} has no images ({' '.join(SUFFIXES)}){hint}")]
    if not path.exists() and glob.has_magic(argument):
        names = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [InputImage(Path(name)) for name in names if Path(name).is_file()]
        return files or [InputImage(path, f"no file matches {argument}")]
    return [InputImage(path)]


def _is_image(file: Path) -> bool:
    """By its suffix; an overlay that an earlier run left in the folder is none."""
    return file.suffix.lower() in SUFFIXES and not file.stem.endswith(_OVERLAY) and file.is_file()


def output_names(images: Sequence[InputImage], folder: Path, suffix: str) -> list[Path]:
    """An output file in `folder` for each image, no two the same and none of them one of the images.

    photos/cat.jpg becomes cat.overlay.png; another cat becomes cat-2.overlay.png, in the order of the images.
    """
    # Compared without case, since some file systems do not know it.
    taken = {str(image.path.resolve()).casefold() for image in images}
    names = []
    for image in images:
        stem = display_name(Path(image.path.stem))
        number, name = 1, folder / f"{stem}{_OVERLAY}{suffix}"
        while str(name.resolve()).casefold() in taken:
            number += 1
            name = folder / f"{stem}-{number}{_OVERLAY}{suffix}"
        taken.add(str(name.resolve()).casefold())
        names.append(name)
    return names


def check_writable(folder: Path) -> None:
    """Make the output folder and try it, before any work is done.

    Raises:
        DataError: it cannot be made or written to.
    """
    probe = folder / ".gapcam-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(
            f"cannot write to the output folder {folder}: {error.strerror}; choose another with -o"
        ) from error
