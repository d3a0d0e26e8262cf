"""The pictures of a page: an image, and a model's map over it, as data: URIs."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from gapcam.box import Box
from gapcam.cam import normalize
from gapcam.frame import Frame
from gapcam.overlay import blend, draw_boxes, line_width
from gapcam.upsample import seen_part
from gapcam_export.comparison.answers import Answer

WIDTH = 480
"""Greatest width, in pixels."""
_QUALITY = 85
_LONGEST = 4 * WIDTH
"""Greatest height, for what is narrow and high."""


def shrunk(image: Frame) -> Frame:
    """An image scaled down to the size of a page's pictures; a smaller one as it is.

    Args:
        image: H x W x 3 uint8 BGR.
    """
    height, width = image.shape[:2]
    scale = min(WIDTH / width, _LONGEST / height, 1.0)
    if scale == 1:
        return image
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def with_map(frame: Frame, it: Answer, colormap: str) -> Frame:
    """A picture of the frame with a map's colours, box and peak over it; without them where there is no map.

    Args:
        frame: H x W x 3 uint8 BGR.
        it: the answer of which the map is; its least and greatest values are the ends of the colours.
        colormap: a key of `gapcam.overlay.COLORMAPS`.
    """
    if it.map is None:
        return shrunk(frame)
    part = normalize(seen_part(it.map, it.input_size, it.placement))
    image = shrunk(blend(frame, part, it.placement, colormap=colormap))
    # Box and peak are drawn after the scaling, so that their lines stay visible.
    across, down = image.shape[1] / frame.shape[1], image.shape[0] / frame.shape[0]
    if it.box is not None:
        draw_boxes(image, [Box(it.box.x0 * across, it.box.y0 * down, it.box.x1 * across, it.box.y1 * down)])
    if it.peak is not None:
        _draw_peak(image, (it.peak[0] * across, it.peak[1] * down))
    return image


def data_uri(image: Frame) -> str:
    """An image as a JPEG in the text of a page.

    Args:
        image: H x W x 3 uint8 BGR.
    """
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _draw_peak(image: Frame, peak: tuple[float, float]) -> None:
    """A cross, white between black as boxes are."""
    center, width = (int(peak[0]), int(peak[1])), line_width(image)
    for color, thickness in (((0, 0, 0), 3 * width), ((255, 255, 255), width)):
        cv2.drawMarker(image, center, color, cv2.MARKER_CROSS, 12 * width, thickness)
