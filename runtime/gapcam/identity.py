"""The identity that everything rests on: a class's logit is the mean of its map, plus its bias.

    logit_c = mean_xy M_c(x,y) + b_c        M_c = sum_k W[c,k] f_k

It holds for every class and image of a network whose head is global average pooling and one affine layer. A wrong
tap, a forgotten ReLU, a wrong row of W breaks it at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEVICE_TOLERANCE = 1e-3
"""What `identity_error` may be when a float32 model is loaded on a device. A model of lower precision brings the
tolerance that its export held it to."""

GREATEST_TOLERANCE = 0.1
"""What a model may bring: with more, the check would pass maps that have little to do with the logits."""


def identity_error(
    logits: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    weights: NDArray[np.floating[Any]] | None,
    bias: NDArray[np.floating[Any]] | None,
) -> float:
    """How far the identity is from holding: max over images and classes of |logit_c - mean(M_c) - b_c|, relative.

    Args:
        logits: [N,K].
        features: [N,C,h,w].
        weights: [K,C], or None where the features are the class maps (W is the identity).
        bias: [K], or None for zeros.

    Returns:
        The greatest difference over max_c |logit_c| of its image; NaN if something is not finite.
    """
    # float64, so that what is measured is the model's error and not this sum's; the mean and W commute.
    expected = features.astype(np.float64).mean(axis=(2, 3))
    if weights is not None:
        expected = expected @ weights.astype(np.float64).T
    if bias is not None:
        expected = expected + bias
    given = logits.astype(np.float64)
    scale = np.abs(given).max(axis=1, keepdims=True)
    scale[scale == 0] = 1  # all logits zero: the difference itself
    return float((np.abs(given - expected) / scale).max())
