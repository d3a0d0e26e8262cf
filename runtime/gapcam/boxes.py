"""Boxes from a map: threshold, connected components, tightest box around each.

The rule of Zhou et al. 2016, "Learning Deep Features for Discriminative Localization": keep the values above 20 % of
the map's maximum, take the largest connected component, and draw the tightest box around it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gapcam.box import Box
from gapcam.cam import is_flat
from gapcam.errors import UsageError

THRESHOLD = 0.2


def boxes_from_map(
    values: NDArray[np.floating[Any]],
    *,
    threshold: float = THRESHOLD,
    percentile: float | None = None,
    all_components: bool = False,
) -> tuple[Box, ...]:
    """The boxes around what a map marks.

    Values strictly above `threshold` times the map's maximum are kept. Pixels that touch at a side or a corner are
    connected.

    Args:
        values: [H,W], a class activation map, of any range.
        threshold: in [0, 1).
        percentile: in (0, 100]; where given, the threshold is relative to this percentile of the map instead of its
            maximum, which one outstanding peak moves less. 100 is the maximum. From Bae et al. 2020, "Rethinking
            Class Activation Mapping for Weakly Supervised Object Localization".
        all_components: a box for every component instead of one for the largest.

    Returns:
        Boxes in the map's pixels, half-open, the one around the component with the most pixels first; among equals
        the upper, then the left one first. Empty for a map that marks nothing: one that is flat, holds NaN or
        infinity, or whose maximum (or percentile) is not positive.

    Raises:
        UsageError: `threshold` or `percentile` is out of its range.
    """
    check_threshold(threshold, percentile)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low) or is_flat(low, high):
        return ()
    standard = high if percentile is None else float(np.percentile(values, percentile))
    if standard <= 0:
        return ()
    marked = (values > threshold * standard).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    components = sorted(stats[1:].tolist(), key=lambda row: (-row[cv2.CC_STAT_AREA], row[1], row[0]))  # 0: background
    boxes = tuple(Box(x, y, x + width, y + height) for x, y, width, height, _ in components)
    return boxes if all_components else boxes[:1]


def check_threshold(threshold: float, percentile: float | None) -> None:
    """Refuse what `boxes_from_map` cannot do.

    Raises:
        UsageError: `threshold` or `percentile` is out of its range, or NaN.
    """
    if not 0 <= threshold < 1:
        raise UsageError(f"threshold is {threshold}; give a number from 0 up to, not including, 1 (the paper's is 0.2)")
    if percentile is not None and not 0 < percentile <= 100:
        raise UsageError(f"percentile is {percentile}; give a number above 0 and at most 100")
