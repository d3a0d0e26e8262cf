"""From a frame to the network's input tensor, as the model's contract says."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from gapcam.contract import Interpolation, Preprocessing
from gapcam.errors import UsageError
from gapcam.frame import Frame, check_frame
from gapcam.geometry import Placement, place

_FLAGS: dict[Interpolation, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


def preprocess(frame: Frame, preprocessing: Preprocessing) -> NDArray[np.float32] | NDArray[np.uint8]:
    """The network's input for one frame, without the batch axis.

    Args:
        frame: H x W x 3 uint8 BGR.
        preprocessing: of the model's contract.

    Returns:
        [3,H,W] float32, (pixel / 255 - mean) / std; or [H,W,3] uint8 if `preprocessing.embedded`.

    Raises:
        FrameError: `frame` has another dtype or layout.
        UsageError: `preprocessing` was made by hand, and one of its values is none that `Preprocessing` documents.
    """
    check_frame(frame)
    try:  # msgspec checks what it decodes, not what is constructed
        msgspec.convert(msgspec.to_builtins(preprocessing, enc_hook=float), Preprocessing)
    except (msgspec.ValidationError, TypeError) as error:
        raise UsageError(f"the preprocessing is not right: {error}") from error
    tensor = empty_input(1, preprocessing)
    fill_input(frame, preprocessing, place((frame.shape[0], frame.shape[1]), preprocessing), tensor[0])
    return tensor.reshape(tensor.shape[1:])


def empty_input(batch: int, preprocessing: Preprocessing) -> NDArray[np.float32] | NDArray[np.uint8]:
    """An uninitialised input tensor: [N,3,H,W] float32, or [N,H,W,3] uint8 if `preprocessing.embedded`."""
    height, width = preprocessing.size
    if preprocessing.embedded:
        return np.empty((batch, height, width, 3), np.uint8)
    return np.empty((batch, 3, height, width), np.float32)


def fill_input(
    frame: Frame,
    preprocessing: Preprocessing,
    placement: Placement,
    out: NDArray[np.float32] | NDArray[np.uint8],
) -> None:
    """Write one frame's input into `out`, a slot of the tensor that `empty_input` made. The frame is not checked."""
    pixels = _placed(frame, preprocessing, placement)
    order = (2, 1, 0) if preprocessing.color == "rgb" else (0, 1, 2)
    if preprocessing.embedded:
        for channel, source in enumerate(order):
            out[:, :, channel] = pixels[:, :, source]
        return
    for plane, source, mean, std in zip(out, order, preprocessing.mean, preprocessing.std, strict=True):
        # One multiply-add a pixel: (p / 255 - mean) / std = p * (1 / (255 std)) - mean / std.
        np.multiply(pixels[:, :, source], np.float32(1 / (255 * std)), out=plane, dtype=np.float32)
        plane -= np.float32(mean / std)


def _placed(frame: Frame, preprocessing: Preprocessing, placement: Placement) -> Frame:
    """The seen part of the frame at its place in the input, still uint8 BGR; padding elsewhere."""
    height, width = preprocessing.size
    target = placement.input_rect
    seen = frame[placement.frame_rect.rows, placement.frame_rect.columns]
    resized = _resize(seen, target.width, target.height, preprocessing.interpolation)
    if (target.height, target.width) == (height, width):
        return resized
    padded = np.full((height, width, 3), preprocessing.pad, np.uint8)
    padded[target.rows, target.columns] = resized
    return padded


def _resize(image: Frame, width: int, height: int, interpolation: Interpolation) -> Frame:
    """Antialiased along each side that shrinks, except with "nearest"; the named interpolation along the others."""
    if interpolation != "nearest":
        # Halving is far faster than a fractional average: with it a 1080p frame takes half the time. It moves the
        # averages' edges by less than a pixel of the frame: on a photograph the mean difference is below 0.6 of 255.
        while _halves(image, width, height):
            image = _shrunk(image, image.shape[1] // 2, image.shape[0] // 2)
        # INTER_AREA averages only if no side grows, so the sides that shrink go first.
        image = _shrunk(image, min(width, image.shape[1]), min(height, image.shape[0]))
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=_FLAGS[interpolation]), np.uint8)


def _halves(image: Frame, width: int, height: int) -> bool:
    """Whether both sides can be halved without a rest and then still are twice as long as needed."""
    rows: int = image.shape[0]
    columns: int = image.shape[1]
    return rows % 2 == columns % 2 == 0 and rows >= 4 * height and columns >= 4 * width


def _shrunk(image: Frame, width: int, height: int) -> Frame:
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
