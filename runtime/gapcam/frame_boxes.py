"""From a class activation map to boxes on the frame."""

from __future__ import annotations

from gapcam.box import Box
from gapcam.boxes import THRESHOLD, boxes_from_map
from gapcam.cam import FloatArray
from gapcam.geometry import Placement
from gapcam.upsample import seen_part


def boxes_on_frame(
    raw: FloatArray,
    input_size: tuple[int, int],
    placement: Placement,
    *,
    threshold: float = THRESHOLD,
    percentile: float | None = None,
    all_components: bool = False,
) -> tuple[Box, ...]:
    """The boxes around what a map marks, found at the resolution of the network's input.

    Args:
        raw: [h,w], the map.
        input_size: (H, W) of the network's input.
        placement: of the frame in that input.
        threshold: as in `gapcam.boxes.boxes_from_map`.
        percentile: likewise.
        all_components: likewise.

    Returns:
        Boxes in frame pixels, half-open, inside the frame.

    Raises:
        UsageError: `threshold` or `percentile` is out of its range.
    """
    left, top = placement.input_rect[:2]
    found = boxes_from_map(
        seen_part(raw, input_size, placement),
        threshold=threshold,
        percentile=percentile,
        all_components=all_components,
    )
    on_input = (Box(box.x0 + left, box.y0 + top, box.x1 + left, box.y1 + top) for box in found)
    return tuple(placement.box_to_frame(box) for box in on_input)
