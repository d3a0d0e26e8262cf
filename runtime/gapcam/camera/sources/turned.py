"""A frame as it was asked for: scaled, then rotated."""

from __future__ import annotations

import cv2
import numpy as np

from gapcam.frame import Frame

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def turned(frame: Frame, rotate: int) -> Frame:
    """A frame rotated clockwise by 0, 90, 180 or 270 degrees; the frame itself by 0."""
    return np.asarray(cv2.rotate(frame, _TURNS[rotate]), np.uint8) if rotate else frame


def scaled_and_turned(frame: Frame, size: tuple[int, int] | None, rotate: int) -> Frame:
    """A frame scaled to (width, height) if one is given, then rotated clockwise."""
    height, width = frame.shape[:2]
    if size is not None and size != (width, height):
        smaller = size[0] * size[1] < width * height
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))
    return turned(np.ascontiguousarray(frame), rotate)
