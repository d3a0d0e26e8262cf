"""Finds the images that a network is trained and validated on, and their classes, in folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gapcam.cli.console import progress_bar
from gapcam.errors import DataError
from gapcam.image_file import SUFFIXES, read_image

_AT_ONCE = 256
"""Images that are handed to the threads which read or check them."""
_PART = 1 << 20
"""Bytes of an image that are read at a time."""
_Answer = TypeVar("_Answer")

_TRAIN, _VAL = ("train", "training"), ("val", "valid", "validation")
"""What the folders of training and validation images are called, in small letters or capitals."""


@dataclass(frozen=True)
class LabelledImage:
    """An image and the index of its class in the logits."""

    path: Path
    label: int


@dataclass(frozen=True)
class ClassFolders:
    """Images by class, as they lie in folders.

    Attributes:
        root: the folder that holds all of it.
        train: class name to images, in the order of their paths.
        val: likewise, of the same classes; a class may have none.
        split: how the two came about, in words.
        others: files in the classes' folders that are no images by their suffix.
    """

    root: Path
    train: dict[str, tuple[Path, ...]]
    val: dict[str, tuple[Path, ...]]
    split: str
    others: tuple[Path, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, sorted as torchvision's ImageFolder sorts them."""
        return tuple(sorted(self.train))

    @property
    def count(self) -> int:
        """Of all images."""
        return sum(len(images) for part in (self.train, self.val) for images in part.values())

    def fingerprint(self) -> str:
        """SHA-256 of every image's place and content: the same for a copy of the folder elsewhere. Reads all of it."""
        images = [
            (f"{part} {path.relative_to(self.root).as_posix()}", path)
            for part, classes in (("train", self.train), ("val", self.val))
            for name in sorted(classes)
            for path in classes[name]
        ]
        digest = hashlib.sha256()
        contents = _for_each([path for _, path in images], _sha256, "reading images")
        for (place, _), content in zip(images, contents, strict=True):
            digest.update(b"%s %s\0" % (os.fsencode(place), content))
        return digest.hexdigest()


def find_class_folders(root: Path, *, val_fraction: float, seed: int) -> ClassFolders:
    """The images in DIR/train/CLASS and DIR/val/CLASS, or in DIR/CLASS with a part of each class for validation.

    The split depends on the seed and on each image's place alone: not on the order in which the disk lists them, and
    little on what is added later.

    Args:
        root: DIR; its parts may be called training, valid or validation, too, with capitals or without. Subfolders of
            a CLASS belong to it; what begins with a dot is left out.
        val_fraction: of each class's images, in (0, 1); at least one image, and not all.
        seed: of the split.

    Raises:
        DataError: there is no such folder, there are fewer than two classes, or a class without images.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; expected {root}/train/CLASS/*.jpg and {root}/val/CLASS/*.jpg.")
    parts = _parts_of(root)
    if parts is not None:
        others: list[Path] = []
        train, val = _classes_in(parts[0], others), _classes_in(parts[1], others, may_be_empty=True)
        unknown = sorted(val.keys() - train.keys())
        if unknown:
            raise DataError(f"{parts[1]} has classes that {parts[0]} has not: {_listed(unknown)}.")
        val = {name: val.get(name, ()) for name in train}
        if not any(val.values()):
            raise DataError(f"{parts[1]} has no images; expected some to validate on.")
        return ClassFolders(root, train, val, f"{parts[0].name}/ and {parts[1].name}/ as they are", tuple(others))
    _refuse_other_parts(root)
    train, val, others = {}, {}, []
    for name, images in _classes_in(root, others).items():
        if len(images) == 1:
            raise DataError(f"class {name!r} has one image ({images[0]}); a split needs two or more.")
        taken = set(_drawn(images, root, val_fraction, seed))
        train[name] = tuple(image for image in images if image not in taken)
        val[name] = tuple(image for image in images if image in taken)
    split = f"{val_fraction:.0%} of each class for validation, seed {seed}"
    return ClassFolders(root, train, val, split, tuple(others))


def labelled(
    classes: dict[str, tuple[Path, ...]], order: Sequence[str], without: Collection[Path] = ()
) -> tuple[LabelledImage, ...]:
    """Images with the indices of their classes.

    Args:
        classes: class name to images.
        order: the classes' names in the order of the logits.
        without: images to leave out.
    """
    left_out = set(without)
    return tuple(
        LabelledImage(path, label) for label, name in enumerate(order) for path in classes[name] if path not in left_out
    )


def unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """The images that cannot be read, and why; every one is decoded, with a bar on a terminal."""
    answers = zip(paths, _for_each(paths, _problem, "checking images"), strict=True)
    return {path: problem for path, problem in answers if problem}


def _for_each(paths: Sequence[Path], ask: Callable[[Path], _Answer], what: str) -> Iterator[_Answer]:
    """Answers in the order of the paths, from threads, with a bar on a terminal."""
    with progress_bar() as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        task = progress.add_task(what, total=len(paths))
        for begin in range(0, len(paths), _AT_ONCE):
            some = paths[begin : begin + _AT_ONCE]
            yield from threads.map(ask, some)
            progress.advance(task, len(some))


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        if path.is_file():  # a pipe would be waited for
            with path.open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
    except OSError:  # the image will be skipped, and named
        return b""
    return digest.digest()


def _problem(path: Path) -> str:
    try:
        read_image(path)
    except DataError as error:
        return str(error)
    return ""


def _parts_of(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and validation images, or None where a folder is a class."""
    folders = _folders_in(root)
    found = [[folder for folder in folders if folder.name.casefold() in names] for names in (_TRAIN, _VAL)]
    for some in found:
        if len(some) > 1 and all(found):
            raise DataError(f"{root} has the folders {some[0].name} and {some[1].name}; expected one of them.")
    if all(found):
        return found[0][0], found[1][0]
    # By itself "valid" may be a class, beside "invalid"; "train" and "val" are taken for what they say.
    half = next((folder for some in found for folder in some if folder.name.casefold() in (_TRAIN[0], _VAL[0])), None)
    if half is not None:
        lack = _VAL[0] if found[0] else _TRAIN[0]
        raise DataError(
            f"{root} has a folder {half.name} and no {lack}; expected both, or one folder a class. Make {lack}, or let "
            f"a part of the images be taken for validation with --data {half}."
        )
    return None


def _refuse_other_parts(root: Path) -> None:
    """Folders that hold no images but each the same folders are the parts of a data set, by names not known here."""
    try:
        folders = _folders_in(root)
        inside = [list(folder.iterdir()) for folder in folders]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if any(path.suffix.lower() in SUFFIXES and path.is_file() for paths in inside for path in paths):
        return
    names = [{path.name for path in paths if path.is_dir() and not path.name.startswith(".")} for paths in inside]
    shared = sorted(set.intersection(*names)) if len(names) > 1 else []
    if len(shared) > 1:  # one alone may be "images"
        raise DataError(
            f"{root} has the folders {_listed([folder.name for folder in folders])} without images in them, and in "
            f"each of these the folders {_listed(shared)}; expected train/CLASS and val/CLASS, or CLASS with its "
            "images in it. Call the folders train and val, or give the one to be split with --data."
        )


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(part for part in folder.iterdir() if part.is_dir() and not part.name.startswith("."))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error


def _classes_in(folder: Path, others: list[Path], *, may_be_empty: bool = False) -> dict[str, tuple[Path, ...]]:
    try:
        classes = {part.name: tuple(_images_in(part, others)) for part in _folders_in(folder)}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if len(classes) < 2:
        raise DataError(
            f"{folder} has {len(classes)} folders; expected two or more, one a class, with its images in it."
        )
    empty = [name for name, images in classes.items() if not images]
    if empty and not may_be_empty:
        raise DataError(
            f"{len(empty)} of the {len(classes)} class folders in {folder} have no images: {_listed(empty)}. Put "
            f"images ({' '.join(SUFFIXES)}) into them, or remove them."
        )
    return classes


def _images_in(folder: Path, others: list[Path]) -> Iterable[Path]:
    found = []
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    others += sorted(path for path in found if path.suffix.lower() not in SUFFIXES)
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _raise(error: OSError) -> None:
    raise error


def _drawn(images: Sequence[Path], root: Path, fraction: float, seed: int) -> list[Path]:
    """Images that look drawn by chance: the first when sorted by a hash of the seed and their place."""

    def key(image: Path) -> bytes:
        return hashlib.sha256(b"%d %s" % (seed, os.fsencode(image.relative_to(root).as_posix()))).digest()

    count = min(max(1, round(fraction * len(images))), len(images) - 1)
    return sorted(images, key=key)[:count]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
