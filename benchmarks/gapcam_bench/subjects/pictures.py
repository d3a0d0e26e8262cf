"""The photographs that every subject is given: alike in size, as a camera would send them."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gapcam.errors import DataError
from gapcam.frame import Frame
from gapcam.image_file import read_image
from gapcam_bench.subjects.protocol import Picture, StageTimes
from gapcam_export.photographs import PHOTOGRAPHS, photograph, photograph_paths

JPEG_QUALITY = 90
"""Of 100; what cameras send."""


def pictures(images: str | None, frame: tuple[int, int], count: int) -> list[Picture]:
    """So many pictures of one size, the same ones in every process.

    A photograph is cut to the frame's aspect ratio around its centre and resized to it, without distortion. Where there
    are fewer photographs than pictures, they come a second time mirrored, then again from the first. A picture's frame
    is what its JPEG decodes to, so that subjects see the same pixels whether they decode or not.

    Args:
        images: a folder of photographs; None for those that come with scikit-image.
        frame: (height, width) in pixels.
        count: of the pictures, at least 1.

    Raises:
        DataError: the folder is none, has no images, or one of them cannot be read.
        MissingExtraError: scikit-image is not installed, and no folder is given.
    """
    paths = None if images is None else photograph_paths(Path(images), "--images")
    names = list(PHOTOGRAPHS) if paths is None else [path.name for path in paths]
    found: list[Picture] = []
    for index in range(min(count, 2 * len(names))):
        turn, which = divmod(index, len(names))
        photo = _installed(names[which]) if paths is None else read_image(paths[which])
        fitted = fit(photo, frame)
        mirrored = np.ascontiguousarray(fitted[:, ::-1]) if turn else fitted
        found.append(_picture(names[which] + ", mirrored" * turn, mirrored))
    return [found[index % len(found)] for index in range(count)]


def pictures_sha256(shown: Sequence[Picture]) -> str:
    """Of all pictures in their order, as JPEG and as frames; one that comes again counts as one that is new."""
    found = {id(picture): _sha256(picture) for picture in {id(each): each for each in shown}.values()}
    return hashlib.sha256(b"".join(found[id(picture)] for picture in shown)).hexdigest()


def _sha256(picture: Picture) -> bytes:
    shape = np.array(picture.frame.shape, "<i8").tobytes()
    parts = (picture.jpeg, shape, np.ascontiguousarray(picture.frame).data)
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def fit(photo: Frame, frame: tuple[int, int]) -> Frame:
    """The middle of a photograph with the frame's aspect ratio, at the frame's size.

    Args:
        photo: H x W x 3 uint8 BGR.
        frame: (height, width) in pixels.
    """
    height, width = frame
    there_height, there_width = photo.shape[:2]
    scale = max(height / there_height, width / there_width)
    cut_height = min(there_height, max(1, round(height / scale)))
    cut_width = min(there_width, max(1, round(width / scale)))
    top, left = (there_height - cut_height) // 2, (there_width - cut_width) // 2
    cut = photo[top : top + cut_height, left : left + cut_width]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (width, height), interpolation=how), np.uint8)


def _picture(name: str, frame: Frame) -> Picture:
    done, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise DataError(f"{name}: OpenCV {cv2.__version__} writes no JPEG of {frame.shape[1]} x {frame.shape[0]}")
    return Picture(name, encoded.tobytes(), decode(encoded))


def decode(jpeg: bytes | NDArray[np.uint8]) -> Frame:
    """H x W x 3 uint8 BGR of a JPEG of `Picture`."""
    data = np.frombuffer(jpeg, np.uint8) if isinstance(jpeg, bytes) else jpeg
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def frames_of(pictures: Sequence[Picture], work: Container[str], times: StageTimes) -> list[Frame]:
    """What a query's pictures show: decoded here, under "decode", where that is part of the work."""
    if "decode" not in work:
        return [picture.frame for picture in pictures]
    with times.timed("decode"):
        return [decode(picture.jpeg) for picture in pictures]


def _installed(name: str) -> Frame:
    """One of scikit-image's photographs, read without importing it: 50 MB would be counted as the subject's memory."""
    package = find_spec("skimage")
    if package is not None and package.origin is not None:
        for suffix in (".png", ".jpg"):
            path = Path(package.origin).parent / "data" / (name + suffix)
            if path.is_file():
                return read_image(path)
    return photograph(name)
