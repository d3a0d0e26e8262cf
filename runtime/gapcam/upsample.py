"""From the map's resolution to the input's, and on to the frame's.

Both steps are bilinear with half-pixel centres: map cell (i, j) of an h x w map has its centre at
((j + 0.5) W / w, (i + 0.5) H / h) of the W x H input, which is where its receptive field is centred.
"""

from __future__ import annotations

import cv2
import numpy as np

from gapcam.cam import FloatArray
from gapcam.geometry import Placement


def seen_part(raw: FloatArray, input_size: tuple[int, int], placement: Placement) -> FloatArray:
    """A map at input resolution, without what lies on the letterbox's bars.

    Args:
        raw: [h,w], a class activation map.
        input_size: (H, W) of the network's input.
        placement: of the frame in that input.

    Returns:
        Float32, of the size of `placement.input_rect`.
    """
    height, width = input_size
    full = cv2.resize(raw, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)[placement.input_rect.rows, placement.input_rect.columns]


def on_frame(part: FloatArray, frame_size: tuple[int, int], placement: Placement) -> FloatArray:
    """A map over the whole frame, zero where the network did not look.

    Args:
        part: of the size of `placement.input_rect`, as `seen_part` gives it.
        frame_size: (height, width) of the frame.
        placement: of the frame in the network's input.

    Returns:
        Float32, of the frame's size.
    """
    seen = placement.frame_rect
    resized = np.asarray(cv2.resize(part, (seen.width, seen.height), interpolation=cv2.INTER_LINEAR), np.float32)
    if resized.shape == frame_size:
        return resized
    full = np.zeros(frame_size, np.float32)
    full[seen.rows, seen.columns] = resized
    return full
