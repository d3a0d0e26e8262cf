"""The identity that everything rests on: a class's logit is the mean of its map, plus its bias.

    logit_c = mean_xy M_c(x,y) + b_c        M_c = sum_k W[c,k] f_k

It holds for every class and image of a network whose head is global average pooling and one affine layer, and with one
scale an image where a layer normalisation lies between. A wrong tap, a forgotten ReLU, a wrong row of W breaks it at
once. Of a nonlinear head it holds for the tangent at that image, with rows and biases of its own.
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
    scale: NDArray[np.floating[Any]] | None = None,
) -> float:
    """How far the identity is from holding: max over images and classes of |logit_c - mean(M_c) - b_c|, relative.

    Args:
        logits: [N,K].
        features: [N,C,h,w].
        weights: [K,C], or None where the features are the class maps (W is the identity).
        bias: [K], or None for zeros.
        scale: [N], the factor of each image's maps that a layer normalisation brings, or None for ones.

    Returns:
        The greatest difference over the greatest |logit_c|, |mean(M_c)| or |b_c| of its image; NaN if something is not
        finite, or a scale not positive. Near a decision boundary a logit is a small difference of large terms.
    """
    if scale is not None and not (scale > 0).all():
        return float("nan")
    # The mean, W and the scale commute.
    expected = _pooled(features)
    if weights is not None:
        expected = expected @ weights.astype(np.float64).T
    if scale is not None:
        expected = expected * scale.astype(np.float64)[:, None]
    given = logits.astype(np.float64)
    shift = np.zeros_like(given) if bias is None else np.broadcast_to(bias.astype(np.float64), given.shape)
    return _relative(np.abs(given - expected - shift), given, expected, shift)


def tangent_error(
    logits: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    topk_classes: NDArray[np.integer[Any]],
    topk_weights: NDArray[np.floating[Any]],
    topk_bias: NDArray[np.floating[Any]],
) -> float:
    """How far the identity is from holding for a nonlinear head's k best classes, with the tangent's rows and biases.

    Two differences count, both relative: |logit_c - mean(M_c) - topk_bias_c| with M_c = sum_k topk_weights[c,k] f_k,
    and that of each class's logit from the greatest, the second greatest and so on, since the classes are to be the k
    best, best first. A row that is not the gradient is seen where its bias was not made to fit it; both from the same
    wrong slope of an activation are not, since the tangent touches at any slope.

    Args:
        logits: [N,K].
        features: [N,C,h,w].
        topk_classes: [N,k], indices into the logits, best first.
        topk_weights: [N,k,C].
        topk_bias: [N,k].

    Returns:
        The greatest difference over the greatest |logit_c|, |mean(M_c)| or |topk_bias_c| of its image; NaN if something
        is not finite, or if an index is no class.
    """
    if ((topk_classes < 0) | (topk_classes >= logits.shape[1])).any() or not np.isfinite(logits).all():
        return float("nan")
    every = logits.astype(np.float64)
    given = np.take_along_axis(every, topk_classes, axis=1)
    best = -np.sort(-every, axis=1)[:, : given.shape[1]]
    if best.shape != given.shape:  # more than there are classes
        return float("nan")
    expected = np.einsum("nkc,nc->nk", topk_weights.astype(np.float64), _pooled(features))
    shift = topk_bias.astype(np.float64)
    missed = _relative(np.abs(given - expected - shift), every, expected, shift)
    return float(np.maximum(missed, _relative(np.abs(given - best), every)))  # NaN stays NaN


def maps_error(
    maps: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    topk_classes: NDArray[np.integer[Any]],
    topk_weights: NDArray[np.floating[Any]],
) -> float:
    """How far the maps that a graph computed are from M_c = sum_k topk_weights[c,k] f_k, over the k best classes.

    Args:
        maps: [N,K,h,w].
        features: [N,C,h,w].
        topk_classes: [N,k], indices into the maps.
        topk_weights: [N,k,C].

    Returns:
        The greatest difference over the greatest |value| of its image's k maps; NaN if something is not finite.
    """
    given = np.take_along_axis(maps.astype(np.float64), topk_classes[:, :, None, None], axis=1)
    expected = np.einsum("nkc,nchw->nkhw", topk_weights.astype(np.float64), features.astype(np.float64))
    flat, differences = (array.reshape(len(array), -1) for array in (expected, np.abs(given - expected)))
    return _relative(differences, flat)


def _pooled(features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """In float64, so that what is measured is the model's error and not this sum's."""
    return np.asarray(features.astype(np.float64).mean(axis=(2, 3)))


def _relative(differences: NDArray[np.float64], *terms: NDArray[np.float64]) -> float:
    """The greatest difference [N,...] over the greatest |term| [N,...] of its image, or over 1 where all are zero."""
    if not np.isfinite(differences).all():
        return float("nan")
    greatest = np.max([np.abs(term).max(axis=1, keepdims=True) for term in terms], axis=0)
    greatest[greatest == 0] = 1
    return float((differences / greatest).max())
