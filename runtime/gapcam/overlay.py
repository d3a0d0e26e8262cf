"""A map drawn over a frame: colour it, blend it, box it, caption it.

Made for 1080p on one small core. The map is resized as uint8 and coloured and blended in strips that stay in the
cache; the colours are written straight into the output and blended there. A float map of the frame's size, the obvious
way, costs two to four times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from numbers import Real

import cv2
import numpy as np

from gapcam.box import Box
from gapcam.cam import FloatArray
from gapcam.errors import FrameError, UsageError
from gapcam.frame import Frame
from gapcam.geometry import Placement

COLORMAPS = {
    name.removeprefix("COLORMAP_").lower(): int(getattr(cv2, name)) for name in dir(cv2) if name.startswith("COLORMAP_")
}
"""OpenCV's colour maps by their names in lower case: "jet", "turbo", "viridis" and so on."""

_STRIP_PIXELS = 1 << 16
"""Pixels coloured and blended at a time: 7 bytes each for map, frame and output, so about half a megabyte."""


def blend(
    frame: Frame,
    heat: FloatArray,
    placement: Placement,
    *,
    colormap: str = "jet",
    alpha: float = 0.5,
    alpha_by_heat: bool = False,
    out: Frame | None = None,
) -> Frame:
    """The frame with a coloured map over it: alpha * colour(map) + (1 - alpha) * frame.

    The map is rounded to 256 levels in the input's resolution, and its levels are resized bilinearly in integers, the
    same on every platform: any other implementation can have the same levels.

    Args:
        frame: H x W x 3 uint8 BGR.
        heat: in [0, 1], of the size of `placement.input_rect`.
        placement: of the frame in the network's input. Pixels that the network did not see stay as they are.
        colormap: a key of `COLORMAPS`.
        alpha: of the map, in [0, 1].
        alpha_by_heat: at each pixel alpha times the map, so that only what is warm is covered: in steps of 1/255, and
            each of the two products is rounded, so that the sum may be off by one.
        out: where to write, an array like `frame`; it may be `frame` itself where `frame` may be lost, but no other
            view of its pixels.

    Returns:
        `out`, or a new array.

    Raises:
        UsageError: `colormap` or `alpha` is not one.
        FrameError: `out` is not an array like `frame`, or overlaps it.
    """
    alpha = check_alpha(alpha)
    colors = color_table(colormap)
    out = _checked_out(frame, out)
    seen = placement.frame_rect
    if (seen.height, seen.width) != frame.shape[:2]:
        np.copyto(out, frame)
    on_input = (heat * 255 + 0.5).astype(np.uint8)
    levels = cv2.resize(on_input, (seen.width, seen.height), interpolation=cv2.INTER_LINEAR_EXACT)
    if alpha_by_heat:
        colors, keeps = colors_by_heat(colormap, alpha)
    source = frame[seen.rows, seen.columns]
    target = out[seen.rows, seen.columns]
    rows = max(1, _STRIP_PIXELS // seen.width)
    for top in range(0, seen.height, rows):
        strip = slice(top, top + rows)
        colored = cv2.applyColorMap(levels[strip], colors)
        if alpha_by_heat:
            kept = cv2.applyColorMap(levels[strip], keeps)
            cv2.multiply(source[strip], kept, dst=kept, scale=1 / 255)
            cv2.add(colored, kept, dst=target[strip])
        else:
            cv2.addWeighted(colored, alpha, source[strip], 1 - alpha, 0, dst=target[strip])
    return out


def check_alpha(alpha: object) -> float:
    """The same as a plain float. Refuse what `blend` cannot do.

    Raises:
        UsageError: `alpha` is no number, out of its range, or NaN.
    """
    if not isinstance(alpha, Real) or not 0 <= float(alpha) <= 1:
        raise UsageError(f"alpha is {alpha!r}; give a number from 0 (only the frame) to 1 (only the map)")
    return float(alpha)


def color_table(colormap: str) -> Frame:
    """The 256 colours of a colour map, [256,1,3] uint8 BGR.

    Raises:
        UsageError: OpenCV has no such colour map.
    """
    if not isinstance(colormap, str) or colormap not in COLORMAPS:
        close = get_close_matches(str(colormap).lower(), COLORMAPS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"there is no colour map {colormap!r}.{hint} Give one of: {', '.join(sorted(COLORMAPS))}")
    return _color_table(colormap)


@lru_cache(maxsize=8)
def _color_table(colormap: str) -> Frame:
    return np.asarray(cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLORMAPS[colormap]), np.uint8)


@lru_cache(maxsize=8)
def colors_by_heat(colormap: str, alpha: float) -> tuple[Frame, Frame]:
    """What `blend` with `alpha_by_heat` makes of each level: colour + keep * frame / 255, rounded each.

    A level covers alpha * level of 255, rounded.

    Returns:
        The 256 colours times what they cover, and what the frame keeps of 255, [256,1,3] uint8 each.
    """
    covers = np.rint(alpha * np.arange(256)).astype(np.int64)[:, None, None]
    colors = (color_table(colormap) * covers + 127) // 255
    return colors.astype(np.uint8), np.repeat(255 - covers, 3, axis=2).astype(np.uint8)


def draw_boxes(image: Frame, boxes: Sequence[Box]) -> None:
    """Draw boxes into an image, white between black so that they show on any ground, as wide as suits its size."""
    width = line_width(image)
    for box in boxes:
        first = (round(box.x0), round(box.y0))
        last = (max(round(box.x1) - 1, first[0]), max(round(box.y1) - 1, first[1]))
        cv2.rectangle(image, first, last, (0, 0, 0), 3 * width)
        cv2.rectangle(image, first, last, (255, 255, 255), width)


def draw_caption(image: Frame, text: str) -> None:
    """Write a line of text into an image's top left corner, on black, in a size that suits the image.

    The text shrinks until it fits the image's width. Where it could not be read, it is left out. OpenCV's font has
    ASCII only: other characters are drawn as question marks.
    """
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, line_width(image)
    text = text.encode("ascii", "replace").decode()
    height, width = image.shape[:2]
    (unit_width, unit_height), _ = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(max(height / 720, 0.4), width * 0.96 / max(unit_width, 1))
    margin = max(2, round(unit_height * scale * 0.4))
    if unit_height * scale < 6 or unit_height * scale + 2 * margin > height / 2:
        return
    (text_width, text_height), below = cv2.getTextSize(text, font, scale, thickness)
    bottom = text_height + below + 2 * margin
    cv2.rectangle(image, (0, 0), (min(text_width + 2 * margin, width) - 1, bottom - 1), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, text, (margin, margin + text_height), font, scale, (255, 255, 255), thickness, cv2.LINE_AA)


def line_width(image: Frame) -> int:
    """In pixels: 1 for small images, 3 at 1080p."""
    short: int = min(image.shape[:2])
    return max(1, round(short / 360))


def check_out(out: object, shape: tuple[int, ...]) -> None:
    """Refuse what a picture of this shape cannot be written into.

    Raises:
        FrameError: it is no writeable C-contiguous uint8 array of this shape.
    """
    if not isinstance(out, np.ndarray):
        raise FrameError(f"got {type(out).__name__} as out; expected an array like the frame: np.empty_like(frame)")
    if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous or not out.flags.writeable:
        raise FrameError(
            f"got an out of shape {out.shape} and dtype {out.dtype}; expected a writeable contiguous array like the "
            f"frame, shape {shape} and dtype uint8: np.empty_like(frame)"
        )


def _checked_out(frame: Frame, out: Frame | None) -> Frame:
    if out is None:
        return np.empty(frame.shape, np.uint8)
    check_out(out, frame.shape)
    same = out.ctypes.data == frame.ctypes.data and out.strides == frame.strides
    if not same and np.shares_memory(out, frame):
        raise FrameError(
            "got an out that overlaps the frame; expected the frame itself, or memory of its own: np.empty_like(frame)"
        )
    return out
