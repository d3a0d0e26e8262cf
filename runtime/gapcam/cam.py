"""The class activation map, in NumPy: the reference that every faster way is compared with.

    M_c(x,y) = sum_k W[c,k] f_k(x,y)

Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", section 2. The bias is left out, as in the
paper: it has no place on the image.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from gapcam.errors import UsageError

FloatArray: TypeAlias = NDArray[np.float32]
Normalization: TypeAlias = Literal["minmax", "max", "fixed"]


def class_maps(
    features: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]], *, clamp_negative: bool = False
) -> FloatArray:
    """Class activation maps, M_c = sum_k W[c,k] f_k.

    Args:
        features: [N,C,h,w] or [C,h,w], the tensor f that the network pools.
        weights: [n,C], the rows of W of the classes whose maps are wanted.
        clamp_negative: set negative weights to zero first, so that features that speak against a class do not erase
            those that speak for it: Bae et al. 2020, "Rethinking Class Activation Mapping for Weakly Supervised
            Object Localization". The identity logit_c = mean(M_c) + b_c then no longer holds.

    Returns:
        [N,n,h,w] or [n,h,w] float32, in the logits' unit.

    Raises:
        UsageError: the two do not fit.

    Example:
        >>> features = np.array([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> class_maps(features, np.array([[3.0, -1.0]]))
        array([[[ 3., -1.],
                [ 6., -1.]]], dtype=float32)
    """
    if features.ndim not in (3, 4) or weights.ndim != 2 or features.shape[-3] != weights.shape[1]:
        raise UsageError(
            f"got features of shape {features.shape} and weights of shape {weights.shape}; "
            "expected [N,C,h,w] or [C,h,w], and [n,C] with the same C"
        )
    rows = weights.astype(np.float32, copy=False)
    if clamp_negative:
        rows = np.maximum(rows, 0)
    *batch, channels, height, width = features.shape
    flat = features.astype(np.float32, copy=False).reshape(*batch, channels, height * width)
    return np.asarray(rows @ flat, dtype=np.float32).reshape(*batch, len(rows), height, width)


def normalize(
    values: NDArray[np.floating[Any]],
    method: Normalization = "minmax",
    limits: tuple[float, float] | None = None,
) -> FloatArray:
    """A map brought to [0, 1].

    Args:
        values: of any shape; all of it is one map.
        method: "minmax" maps the least value to 0 and the greatest to 1. "max" drops what is negative and divides by
            the maximum, so that 0 stays 0, as in Zhou et al. 2016. "fixed" maps `limits` to 0 and 1 and clips: frames
            of a video stay comparable, where each frame's own maximum would make it flicker.
        limits: (low, high) in the logits' unit, for "fixed" only.

    Returns:
        float32 in [0, 1], of the same shape. All zeros, never NaN, where there is nothing to show: a flat map, one
        without a positive value under "max", one that holds NaN or infinity.

    Raises:
        UsageError: `method` is unknown, or `limits` is missing, superfluous or not increasing.
    """
    check_normalization(method, limits)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        return np.zeros(values.shape, np.float32)
    if limits is not None:
        low, high = limits
    elif is_flat(low, high):
        return np.zeros(values.shape, np.float32)
    elif method == "max":
        low = 0.0
        if high <= 0:
            return np.zeros(values.shape, np.float32)
    # float64, and clipped first: neither a tiny nor a huge span overflows.
    scaled = values.astype(np.float64)
    np.clip(scaled, low, high, out=scaled)
    scaled -= low
    scaled /= high - low
    return scaled.astype(np.float32)


def check_normalization(method: str, limits: tuple[float, float] | None) -> None:
    """Refuse what `normalize` cannot do.

    Raises:
        UsageError: `method` is unknown, or `limits` is missing, superfluous or not increasing.
    """
    if method not in get_args(Normalization):
        raise UsageError(f"normalization is {method!r}; give one of {', '.join(get_args(Normalization))}")
    if (limits is not None) != (method == "fixed"):
        got = "no limits" if limits is None else f"limits {limits}"
        raise UsageError(f"got normalization {method!r} with {got}; 'fixed' wants limits (low, high), the others none")
    if limits is None:
        return
    try:
        low, high = limits
        increasing = bool(np.isfinite(high - low) and low < high)
    except (TypeError, ValueError):  # not two, or not numbers
        increasing = False
    if not increasing:
        raise UsageError(f"limits are {limits}; give two numbers, the lower first")


def is_flat(low: float, high: float) -> bool:
    """Whether a map between these two values says nothing: it differs by no more than float32 arithmetic errs."""
    return high - low <= 1e-6 * max(abs(low), abs(high))
