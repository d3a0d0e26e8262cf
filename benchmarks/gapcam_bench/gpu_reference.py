"""What the kernels should give, by the NumPy path of gapcam, and how near they must come."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

import gapcam
from gapcam.cam import FloatArray, class_maps, normalize
from gapcam.cuda.device_frame import FrameLayout
from gapcam.cuda.overlay import palette
from gapcam.frame import Frame
from gapcam.geometry import Placement
from gapcam.overlay import blend
from gapcam.upsample import seen_part
from gapcam_bench.gpu_figures import Check

ALPHA = 0.5
COLORMAP = "jet"
ONE_LEVEL = 1.0
MAPS = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 1e-3}
"""How far maps may be off, of the map's greatest magnitude, by the features' dtype."""

_TIES = 1e-3
"""The share of an input's values that may be averages half way between two grey levels."""

_NEAR_A_TIE = 5e-4
"""Of a level: nearer to half way than that, float32 may round it to the neighbour."""


def as_bgr(frame: Frame, layout: FrameLayout) -> Frame:
    """A frame on the host as OpenCV converts it."""
    if layout.format == "bgr":
        return frame
    code = cv2.COLOR_BGRA2BGR if layout.format == "bgra" else cv2.COLOR_YUV2BGR_NV12
    return np.asarray(cv2.cvtColor(frame, code), np.uint8)


def check_preprocessed(got: FloatArray, frame: Frame, layout: FrameLayout, how: gapcam.Preprocessing) -> list[Check]:
    """Compared with `gapcam.preprocess`. Where both sides shrink, only ties of averages differ, by a grey level."""
    expected = gapcam.preprocess(as_bgr(frame, layout), how)
    levels = np.abs(got - expected) * 255 * np.asarray(how.std, np.float32)[:, None, None]
    return [
        Check(what="input, grey levels", found=float(levels.max()), allowed=ONE_LEVEL + 0.01),
        Check(what="input, share that differs", found=float((levels > 0.01).mean()), allowed=_TIES),
    ]


def check_maps(
    maps: FloatArray,
    classes: NDArray[np.int32],
    *,
    features: NDArray[np.floating],
    logits: NDArray[np.floating],
    weights: FloatArray,
) -> list[Check]:
    """One image's classes and maps: [k,h,w], [k]."""
    wanted = np.argsort(-logits.astype(np.float32), kind="stable")[: len(classes)]
    expected = class_maps(features.astype(np.float32), weights[wanted])
    greatest = float(np.abs(expected).max())
    return [
        Check(what="classes that differ", found=float(np.count_nonzero(classes != wanted)), allowed=0),
        Check(
            what="maps, of the greatest magnitude",
            found=float(np.abs(maps - expected).max()) / greatest,
            allowed=MAPS[features.dtype],
        ),
    ]


def check_overlay(
    got: Frame, frame: Frame, layout: FrameLayout, raw: FloatArray, input_size: tuple[int, int], placement: Placement
) -> Check:
    """A minmax overlay with `ALPHA` and `COLORMAP` compared with `gapcam.overlay.blend`, in grey levels.

    Pixels that a level near a tie reaches may differ by as much as one level's colour does; they are counted.

    Args:
        got: of the layout's shape on the host.
        frame: what it was drawn over.
        layout: of both.
        raw: [h,w], the map that the kernel was given.
        input_size: (H, W) of the network's input.
        placement: of the frame in it; the network saw all of the frame.
    """
    heat = normalize(seen_part(raw, input_size, placement), "minmax")
    size = (layout.width, layout.height)
    exact = heat * 255 + 0.5
    tied = (np.abs(exact - np.rint(exact)) < _NEAR_A_TIE).astype(np.uint8)
    reached = cv2.dilate(tied, np.ones((3, 3), np.uint8))
    reached = cv2.dilate(cv2.resize(reached, size, interpolation=cv2.INTER_NEAREST), np.ones((3, 3), np.uint8))
    if layout.format == "nv12":
        difference = np.abs(got.astype(np.float32) - _blend_nv12(frame, heat, layout))
        pairs = np.repeat(np.maximum(reached[::2, ::2], reached[1::2, 1::2]), 2, axis=1)
        reached = np.concatenate([reached, pairs])
    else:
        bgr = blend(np.ascontiguousarray(frame[..., :3]), heat, placement, colormap=COLORMAP, alpha=ALPHA)
        expected = bgr if layout.format == "bgr" else np.dstack([bgr, frame[..., 3]])
        difference = np.abs(got.astype(np.float32) - expected).max(axis=2)
    colors = palette(layout.format, COLORMAP, ALPHA, by_heat=False)[:, :3].astype(np.float32)
    one_color = ALPHA * float(np.abs(np.diff(colors, axis=0)).max()) + ONE_LEVEL
    excused = (difference > ONE_LEVEL) & (difference <= one_color) & (reached != 0)
    return Check(
        what="overlay, grey levels",
        found=float(difference[~excused].max(initial=0)),
        allowed=ONE_LEVEL,
        counted=int(np.count_nonzero(excused)),
        counted_allowed=int(np.count_nonzero(reached)),
    )


def _blend_nv12(frame: Frame, heat: FloatArray, layout: FrameLayout) -> FloatArray:
    """Colours and blend in the frame's own planes; a pair of chroma has the rounded mean level of its four pixels."""
    levels = cv2.resize(
        (heat * 255 + 0.5).astype(np.uint8), (layout.width, layout.height), interpolation=cv2.INTER_LINEAR_EXACT
    )
    colors = palette("nv12", COLORMAP, ALPHA, by_heat=False).astype(np.float32)
    fours = levels.astype(np.int32).reshape(layout.height // 2, 2, layout.width // 2, 2).sum(axis=(1, 3))
    chroma = colors[(fours + 2) // 4, 1:3].reshape(layout.height // 2, layout.width)
    colored = np.concatenate([colors[levels, 0], chroma])
    return np.asarray(ALPHA * colored + (1 - ALPHA) * frame, np.float32)
