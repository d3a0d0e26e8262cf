"""Checks that feature maps lie like the image: the identity sums over space, and cannot see where anything is."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from gapcam.errors import VerificationError
from gapcam_export.head import FoundHead
from gapcam_export.section import Array, observe

# Where patches of a quarter of the image's height and width are put: above and below, left and right of the centre.
_CENTRES = ((0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75))
# Movement of the features' response, in parts of the map, below which nothing can be said: a network that mixes all
# positions answers everywhere.
_NOTICEABLE = 0.05


def check_positions(model: onnx.ModelProto, head: FoundHead, image: Array) -> bool:
    """Change the image at one place after another, and see that the feature maps change there.

    Args:
        model: a classifier with input `image`.
        head: what `find_head` found in it.
        image: [N,...] to change; its first image is used. N is 1 where the batch is fixed.

    Returns:
        True where the maps follow the image; False where that cannot be told, since the network answers everywhere.

    Raises:
        VerificationError: what moves down or right in the image moves elsewhere in the maps.
    """
    changed = [image[:1]] + [_with_patch(image[:1], centre) for centre in _CENTRES]
    batches = changed if len(image) == 1 else [np.concatenate(changed)]  # the batch is fixed at 1, or symbolic
    before, *after = np.concatenate([observe(model, [head.features], batch)[head.features] for batch in batches])
    above, below, left, right = (_centroid(np.abs(each - before), head) for each in after)
    down, across = below - above, right - left
    rows, columns = head.feature_shape[1] > 1, head.feature_shape[2] > 1
    follows = True
    for what, straight, aside, visible in (
        ("down", down[0], down[1], rows),
        ("to the right", across[1], across[0], columns),
    ):
        if visible and max(-straight, abs(aside)) > max(_NOTICEABLE, 2 * abs(straight)):
            raise VerificationError(
                f"the feature maps {head.features!r} do not lie like the image: what moves {what} in the image moves "
                "elsewhere in them (are they transposed, or tokens in another order than row by row?). Their maps "
                "would point at the wrong places. Nothing was written. Pool them in the order of the image."
            )
        follows &= not visible or straight > _NOTICEABLE
    return follows


def _with_patch(image: Array, centre: tuple[float, float]) -> Array:
    """The image [1,...] with other noise in a patch."""
    channels_last = image.shape[-1] == 3
    height, width = image.shape[1:3] if channels_last else image.shape[2:4]
    rows, columns = (
        slice(int((middle - 0.125) * side), max(int((middle + 0.125) * side), int((middle - 0.125) * side) + 1))
        for middle, side in zip(centre, (height, width), strict=True)
    )
    patched: Array = image.copy()
    patch = patched[:, rows, columns] if channels_last else patched[:, :, rows, columns]
    patch[...] = np.random.default_rng(1).permuted(patch.reshape(-1)).reshape(patch.shape)
    return patched


def _centroid(change: Array, head: FoundHead) -> NDArray[np.float64]:
    """Where features [C,h,w] (in their own layout) have changed: (y, x) in parts of the map, the centre if nowhere."""
    axis = {"nchw": 0, "channels-tokens": 0, "nhwc": 2, "tokens": 1}[head.layout]
    response = change.astype(np.float64).sum(axis=axis).reshape(head.feature_shape[1:])
    total = response.sum()
    if not total > 0:
        return np.full(2, 0.5)
    rows, columns = ((np.arange(side) + 0.5) / side for side in response.shape)
    return np.array([rows @ response.sum(axis=1) / total, columns @ response.sum(axis=0) / total])
