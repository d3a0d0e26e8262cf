"""Class names: a user's file, or ImageNet-1k's for a network with 1000 classes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec

from gapcam_export.errors import LabelsError


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 names of ImageNet-1k in index order, as torchvision gives them (see NOTICE)."""
    return tuple(files(__package__).joinpath("imagenet1k.txt").read_text("utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Names from a text file with one a line, or from a JSON file with an array of names.

    Raises:
        LabelsError: the file cannot be read or holds something else.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"the labels file {path} cannot be read: {error}") from error
    if path.suffix == ".json":
        try:
            return msgspec.json.decode(text, type=tuple[str, ...])
        except msgspec.DecodeError as error:
            raise LabelsError(f"{path} should hold a JSON array of names in class order: {error}.") from error
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if "" in names:
        raise LabelsError(
            f"line {names.index('') + 1} of {path} is empty; expected a name on each line, in class order."
        )
    return names


def labels_for(classes: int, given: Path | None, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of a network with so many classes.

    Args:
        classes: K.
        given: the user's file, or None.
        inherited: what the source had on record, or nothing.

    Raises:
        LabelsError: the file has not K names.
    """
    if given is not None:
        labels = read_labels(given)
        if len(labels) != classes:
            raise LabelsError(
                f"{given} has {len(labels)} names, the network {classes} classes. Give one name a line, in class order."
            )
        return labels
    if len(inherited) == classes:
        return inherited
    return imagenet_labels() if classes == 1000 else ()
