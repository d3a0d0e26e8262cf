"""Scores in [0, 1] from logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapcam.contract import Scores


def scores_from_logits(logits: NDArray[np.floating[Any]], scoring: Scores) -> NDArray[np.floating[Any]]:
    """What the K classes' logits say.

    Args:
        logits: [K], finite.
        scoring: "softmax", where the classes exclude each other, or "sigmoid", the logistic function of each.

    Returns:
        [K] in [0, 1], of the logits' dtype.
    """
    if scoring == "sigmoid":
        small = np.exp(-np.abs(logits))  # never overflows
        return np.asarray(np.where(logits < 0, small, 1) / (1 + small), logits.dtype)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
