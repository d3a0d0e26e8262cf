"""The overlay of an NV12 frame in NumPy, with `gapcam.overlay.blend`'s levels: what the kernel is compared with."""

from __future__ import annotations

import cv2
import numpy as np

from gapcam.geometry import Placement
from gapcam.overlay import color_table


def yuv_colors(colormap: str) -> np.ndarray:
    """[256,3] Y, U, V of the colour map, by OpenCV's conversion of one colour at a time."""
    colors = []
    for color in color_table(colormap)[:, 0]:
        planes = cv2.cvtColor(np.full((2, 2, 3), color, np.uint8), cv2.COLOR_BGR2YUV_I420)
        colors.append([planes[0, 0], planes[2, 0], planes[2, 1]])
    return np.array(colors, np.uint8)


def blend_nv12(
    frame: np.ndarray,
    heat: np.ndarray,
    placement: Placement,
    *,
    colormap: str = "jet",
    alpha: float = 0.5,
    alpha_by_heat: bool = False,
) -> np.ndarray:
    """As `gapcam.overlay.blend`, plane by plane.

    Luma is blended pixel by pixel; a pair of chroma with the colour of the mean level of its four pixels, rounded, if
    the network saw all four.

    Args:
        frame: [3H/2,W] uint8, as OpenCV has NV12.
        heat: in [0, 1], of the size of `placement.input_rect`.
        placement: of the frame in the network's input.
        colormap: a key of `gapcam.overlay.COLORMAPS`.
        alpha: of the map, in [0, 1].
        alpha_by_heat: at each pixel alpha times the map.
    """
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    seen = placement.frame_rect
    levels, inside = np.zeros((height, width), np.int64), np.zeros((height, width), bool)
    levels[seen.rows, seen.columns] = cv2.resize(
        (heat * 255 + 0.5).astype(np.uint8), (seen.width, seen.height), interpolation=cv2.INTER_LINEAR_EXACT
    )
    inside[seen.rows, seen.columns] = True
    squares = levels.reshape(height // 2, 2, width // 2, 2).sum(axis=(1, 3))
    chroma_levels = np.repeat((squares + 2) // 4, 2, axis=1)
    chroma_inside = np.repeat(inside.reshape(height // 2, 2, width // 2, 2).all(axis=(1, 3)), 2, axis=1)
    colors = yuv_colors(colormap)
    chroma_colors = colors[chroma_levels, 1 + np.arange(width) % 2]
    return np.concatenate(
        [
            _blended(frame[:height], colors[levels, 0], levels, inside, alpha, alpha_by_heat),
            _blended(frame[height:], chroma_colors, chroma_levels, chroma_inside, alpha, alpha_by_heat),
        ]
    )


def _blended(
    plane: np.ndarray, colors: np.ndarray, levels: np.ndarray, inside: np.ndarray, alpha: float, by_heat: bool
) -> np.ndarray:
    if by_heat:
        covers = np.rint(alpha * levels).astype(np.int64)
        blended = (covers * colors + 127) // 255 + ((255 - covers) * plane + 127) // 255
    else:
        blended = cv2.addWeighted(colors, alpha, plane, 1 - alpha, 0)
    return np.where(inside, blended, plane).astype(np.uint8)
