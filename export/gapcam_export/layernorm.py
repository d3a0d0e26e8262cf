"""Reads a tail that normalises the pooled vector and is affine then, as ConvNeXt's, by probing.

With p the pooled vector, g and beta the normalisation's own weights, A and d the affine map's:

    logits = A (g * (p - mean p) / sigma + beta) + d        sigma = sqrt(var(p) + epsilon)

Let U be A with its columns scaled by g. Row c of W is U_c - mean_k U_ck, so that the mean of p need not be taken out:

    logits = W p / sigma + b        b = A beta + d

W and b are constants, and each image brings one positive scale, 1 / sigma. A normalisation by the root mean square
(RMSNorm), or by the length, has no mean to take out: then W is U, and mean(p^2) stands for the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gapcam_export.affine import PROBE_SCALE, TOLERANCE, Floats, Function, changes_agree, unit_responses

# In float32 its root is 1e-12, which a normalisation without an epsilon does not notice.
_LEAST_EPSILON = 1e-24


@dataclass(frozen=True)
class Normed:
    """A normalisation, then an affine map.

    Attributes:
        weights: W, float32 [K,C].
        bias: b, float32 [K].
        centred: True where the mean is taken out (LayerNorm), False where not (RMSNorm).
        epsilon: what is added to the variance.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    centred: bool
    epsilon: float

    def scale(self, pooled: Floats) -> Floats:
        """1 / sigma, [n,1], of pooled vectors [n,C]."""
        scale: Floats = 1 / np.sqrt(_spread(pooled.astype(np.float64), self.centred) + self.epsilon)
        return scale


def read_normed(function: Function, vectors: Sequence[Floats]) -> Normed | None:
    """The normalisation and affine map that a function is, or None if it is none.

    Args:
        function: from pooled vectors [n,C] to logits [n,K].
        vectors: each [n,C], to prove it on, at the scales that occur.
    """
    random = vectors[-1]
    channels = random.shape[1]
    bias = function(np.zeros((1, channels)))[0]
    straight = random - random.mean(axis=1, keepdims=True)
    straight /= np.sqrt(_spread(straight, centred=False))
    full = function(PROBE_SCALE**2 * straight) - bias
    # What is normalised does not grow.
    if not full.any() or not changes_agree(function(PROBE_SCALE * straight) - bias, full, bias):
        return None
    epsilon = _read_epsilon(function, straight, full, bias)
    responses = unit_responses(function, channels, bias)
    unit = np.zeros((1, channels))
    unit[0, 0] = PROBE_SCALE
    for centred in (True, False):
        sigma = float(np.sqrt(_spread(unit, centred) + epsilon)[0, 0])
        weights = responses * np.float32(sigma)
        if centred:  # what probing rounds must not weigh the mean, which may be far above the deviation
            weights -= weights.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        normed = Normed(weights, bias.astype(np.float32), centred, epsilon)
        if _holds(function, normed, vectors):
            return normed
    return None


def _holds(function: Function, normed: Normed, vectors: Sequence[Floats]) -> bool:
    for seen in (*vectors, vectors[-1] + 1):
        for scale in (1e-6, 1e-3, 1.0, 1e3):
            probe = (scale * seen).astype(np.float32).astype(np.float64)  # as the network is fed
            expected = normed.scale(probe) * (probe @ normed.weights.T)
            if not changes_agree(expected, function(probe) - normed.bias, normed.bias):
                return False
    return True


def _read_epsilon(function: Function, straight: Floats, full: Floats, bias: Floats) -> float:
    """What is added to the variance: t x / sqrt(t^2 + epsilon) for vectors t x of mean 0 and variance t^2.

    Args:
        function: what is probed.
        straight: x, [n,C].
        full: what large multiples of x add to the bias.
        bias: the answer to 0.
    """

    def measure(t: float) -> tuple[float, float]:
        """How far t x is from what large multiples give, and the epsilon that makes it so."""
        ratio = float(np.vdot(function(t * straight) - bias, full) / np.vdot(full, full))
        return abs(ratio**2 - 0.5), t * t * (1 / ratio**2 - 1) if ratio else np.inf

    # Best where the epsilon is about the variance: find that, then measure there.
    _, rough = min(measure(10.0**exponent) for exponent in range(1, -10, -1))
    if not TOLERANCE**4 < rough < np.inf:
        return _LEAST_EPSILON
    return max(measure(float(np.sqrt(rough)))[1], _LEAST_EPSILON)


def _spread(vectors: Floats, centred: bool) -> Floats:
    """The variance, or the mean square, of vectors [n,C]: [n,1]."""
    if centred:
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
    squares: Floats = np.mean(vectors**2, axis=1, keepdims=True)
    return squares
