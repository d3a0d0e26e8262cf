"""Photographs to verify an export on: a few that scikit-image carries, or the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import gapcam
from gapcam.errors import DataError, MissingExtraError
from gapcam.image_file import SUFFIXES

PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
# Enough to notice what is wrong, few enough to wait for.
MOST_IMAGES = 64


def default_photographs() -> list[NDArray[np.uint8]]:
    """Four photographs, each H x W x 3 uint8 BGR: a cat, an astronaut, a cup of coffee, a rocket."""
    return [photograph(name) for name in PHOTOGRAPHS]


def photograph(name: str) -> NDArray[np.uint8]:
    """One of scikit-image's photographs that come with the package, H x W x 3 uint8 BGR."""
    try:
        import skimage.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-image", "export") from error
    rgb: NDArray[np.uint8] = getattr(skimage.data, name)()
    return np.ascontiguousarray(rgb[..., ::-1])


def photographs_in(folder: Path) -> list[NDArray[np.uint8]]:
    """The first images of a folder, by name, at most `MOST_IMAGES`; each H x W x 3 uint8 BGR.

    Raises:
        DataError: it is no folder, has no images, or one of them cannot be read.
    """
    return [gapcam.read_image(path) for path in photograph_paths(folder, "--verify")[:MOST_IMAGES]]


def photograph_paths(folder: Path, option: str, wanted: str = "") -> list[Path]:
    """The images in a folder and its subfolders, by name.

    Args:
        folder: where to look.
        option: how messages call what named it.
        wanted: what a message about a folder without images adds.

    Raises:
        DataError: it is no folder, or has no images.
    """
    if folder.is_file():
        raise DataError(f"{option} {folder}: that is a file; expected a folder of images.")
    if not folder.is_dir():
        raise DataError(f"{option} {folder}: there is no such folder.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(
            f"{option} {folder}: the folder holds no image ({' '.join(SUFFIXES)}).{wanted and ' ' + wanted}"
        )
    return paths
