"""What a user may say of a network's input, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence

from gapcam.errors import UsageError


def check_preprocessing(
    size: tuple[int, int] | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Refuse what no preprocessing can be.

    Args:
        size: (H, W) in pixels, or None.
        mean: per channel on the scale 0..1, or None.
        std: likewise.

    Raises:
        UsageError: a value is out of its range.
    """
    if size is not None and min(size) < 1:
        raise UsageError(f"size is {size[0]} {size[1]}; expected a height and a width in pixels, each 1 or more.")
    if mean is not None and not all(abs(value) <= 1 for value in mean):
        raise UsageError(f"mean is {tuple(mean)}; expected values on the scale 0..1. Divide pixel values by 255.")
    if std is not None and not all(0 < value <= 1 for value in std):
        raise UsageError(f"std is {tuple(std)}; expected values above 0 on the scale 0..1. Divide pixel values by 255.")
