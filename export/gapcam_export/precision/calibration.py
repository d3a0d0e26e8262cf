"""The images that an int8 model's ranges are found on: read as the runtime reads them, checked before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import gapcam
from gapcam.backends.protocol import Array
from gapcam.contract import IMAGE, Preprocessing
from gapcam.errors import DataError
from gapcam_export.photographs import photograph_paths

LEAST_IMAGES = 16
"""With fewer the ranges are those of these images rather than of the network."""
ADVISED_IMAGES = 100
"""With this many, more change little."""
MOST_IMAGES = 1000
"""Of more, this many are drawn."""

_WANTED = f"at least {LEAST_IMAGES}, better {ADVISED_IMAGES} or more, like those that the network will see."
_SEED = 0
_NAMED = 5  # files that a message names; of more it says how many


def calibration_images(
    folder: Path,
    preprocessing: Preprocessing,
    notes: list[str],
    on_image: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """The images of a folder and its subfolders that a network can be calibrated on, by name.

    Of more than `MOST_IMAGES`, as many are drawn at random, the same ones every time.

    Args:
        folder: of images like those that the network will see.
        preprocessing: of the network; its size tells thumbnails from images.
        notes: files that cannot be read, images that have to be enlarged, and few of them, are said here.
        on_image: is called after each image with how many are checked and how many there are.

    Returns:
        Between `LEAST_IMAGES` and `MOST_IMAGES` files, all of which can be read.

    Raises:
        DataError: there is no such folder, it has no or too few images that can be read, or some are thumbnails: a side
            is less than half of the network's input.
    """
    paths = calibration_paths(folder)
    found = len(paths)
    if found > MOST_IMAGES:
        drawn = np.random.default_rng(_SEED).choice(found, MOST_IMAGES, replace=False)
        paths = [paths[index] for index in sorted(drawn)]
        notes.append(f"{MOST_IMAGES} of the {found} images in {folder} were drawn at random to calibrate on")
    height, width = preprocessing.size
    readable: list[Path] = []
    damaged: list[str] = []
    thumbnails: list[str] = []
    enlarged = 0
    for number, path in enumerate(paths, start=1):
        try:
            rows, columns = gapcam.read_image(path).shape[:2]
        except DataError:
            damaged.append(path.name)
        else:
            readable.append(path)
            if 2 * rows < height or 2 * columns < width:
                thumbnails.append(f"{path.name} ({columns} x {rows})")
            enlarged += rows < height or columns < width
        if on_image is not None:
            on_image(number, len(paths))
    if thumbnails:
        raise DataError(
            f"{len(thumbnails)} of {len(paths)} images in {folder} are thumbnails, less than half of the network's "
            f"{width} x {height}: {_some(thumbnails)}. Calibrate on images of the size that the network will see."
        )
    _check_count(folder, len(readable), damaged)
    if damaged:
        notes.append(f"{len(damaged)} files in {folder} cannot be read and were skipped: {_some(damaged)}")
    if len(readable) < ADVISED_IMAGES:
        notes.append(f"calibrated on {len(readable)} images; {ADVISED_IMAGES} or more are better")
    if enlarged:
        notes.append(
            f"{enlarged} of {len(readable)} calibration images are smaller than the network's {width} x {height} and "
            "were enlarged"
        )
    return readable


def calibration_paths(folder: Path) -> list[Path]:
    """All images of a folder and its subfolders, by name; whether they can be read is not looked at.

    Raises:
        DataError: there is no such folder, or there are less than `LEAST_IMAGES`.
    """
    paths = photograph_paths(folder, "--calibrate", f"Expected {_WANTED}")
    _check_count(folder, len(paths))
    return paths


def _check_count(folder: Path, count: int, damaged: Sequence[str] = ()) -> None:
    """Refuse too few images to calibrate on: `count` that can be read, beside some that cannot."""
    if count < LEAST_IMAGES:
        unread = f", beside {len(damaged)} that cannot be read ({_some(damaged)})" if damaged else ""
        raise DataError(f"{folder} holds {count} images to calibrate on{unread}; expected {_WANTED}")


def network_inputs(paths: Sequence[Path], preprocessing: Preprocessing) -> Iterator[dict[str, Array]]:
    """What a session feeds its engine for each image: {"image": [1,3,H,W] float32, or [1,H,W,3] uint8 if embedded}.

    Raises:
        DataError: an image cannot be read (any more).
    """
    for path in paths:
        yield {IMAGE: gapcam.preprocess(gapcam.read_image(path), preprocessing)[None]}


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
