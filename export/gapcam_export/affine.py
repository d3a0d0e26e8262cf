"""Reads an affine section of a network, y = W x + b, by probing, and proves that it is affine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Function = Callable[[Floats], Floats]
"""From vectors [n,C] to vectors [n,K]."""

# A power of two, so that scaling is exact; large, so that the bias costs the weights no digits.
PROBE_SCALE = 1024.0
# float32 sums of a few thousand products, in another order.
TOLERANCE = 1e-4
_FLOAT32_STEP = float(np.finfo(np.float32).eps)
# Rows or columns of W that are looked at together: bounds the memory that a large head takes.
_COLUMNS = 64


@dataclass(frozen=True)
class Affine:
    """An affine map.

    Attributes:
        weights: W, float32 [K,C].
        bias: b, float32 [K].
        stored: name of the graph's constant that holds W bit for bit, perhaps transposed or with axes of length 1;
            "" where W was folded from several constants.
        is_constant: True where b is a constant of the graph, too, or there is none.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    stored: str
    is_constant: bool

    @property
    def is_identity(self) -> bool:
        """Whether it gives what it gets."""
        rows, columns = self.weights.shape
        return rows == columns and not self.bias.any() and np.array_equal(self.weights, np.eye(rows))


def read_affine(function: Function, vectors: Sequence[Floats], constants: Mapping[str, NDArray[Any]]) -> Affine | None:
    """The affine map that a function is, or None if it is none.

    It is run at 0, which gives b, and at multiples of the unit vectors, which gives W. Where a constant of the graph
    equals what was read, its very bits are taken: probing may round the last digit.

    Args:
        function: what is probed.
        vectors: each [n,C], at several scales, to prove it on: what bends for values around 1 looks straight for tiny
            ones.
        constants: of the graph, by name, among which W and b may be.
    """
    channels = vectors[0].shape[1]
    bias = function(np.zeros((1, channels)))[0]
    # Cheap, and enough for most that is not affine: the answers to sums are the sums of answers.
    for probe in (vectors[-1], PROBE_SCALE * vectors[-1]):
        one, other = probe, np.roll(probe, 1, axis=0)
        if not changes_agree(function(one) - bias + (function(other) - bias), function(one + other) - bias, bias):
            return None
    weights = unit_responses(function, channels, bias)
    for probe in vectors:
        if not changes_agree(probe.astype(np.float32) @ weights.T, function(probe) - bias, bias):
            return None
    stored, own_weights = _constant(weights, constants)
    _, own_bias = _constant(bias, constants)
    if own_bias is None and not bias.any():  # a layer without a bias adds none, or zeros
        own_bias = np.zeros_like(bias, np.float32)
    return Affine(
        weights=weights if own_weights is None else own_weights,
        bias=bias.astype(np.float32) if own_bias is None else own_bias,
        stored=stored,
        is_constant=own_weights is not None and own_bias is not None,
    )


def unit_responses(function: Function, channels: int, bias: Floats) -> NDArray[np.float32]:
    """float32 [K,C]: column k is what a large multiple of unit vector k adds to the bias, over that multiple."""
    responses = np.empty((len(bias), channels), np.float32)
    for begin in range(0, channels, _COLUMNS):
        end = min(begin + _COLUMNS, channels)
        vectors = np.zeros((end - begin, channels), np.float32)
        vectors[np.arange(end - begin), np.arange(begin, end)] = PROBE_SCALE
        responses[:, begin:end] = ((function(vectors) - bias) / PROBE_SCALE).T
    return responses


def changes_agree(expected: Floats, change: Floats, bias: Floats) -> bool:
    """Whether a function's change from its bias is what was expected, up to float32's rounding; NaN never is."""
    rounding = 8 * _FLOAT32_STEP * np.abs(bias).max()
    return bool(np.abs(change - expected).max() <= TOLERANCE * np.abs(change).max() + rounding)


def _constant(probed: Floats, constants: Mapping[str, NDArray[Any]]) -> tuple[str, NDArray[np.float32] | None]:
    """The constant that probing has read, bit for bit, if there is one, and its name.

    What probing rounds is far less than the 5e-6 by which a fresh BatchNorm, 1 / sqrt(1 + 1e-5), scales a constant.
    """
    tolerance = 3e-7 * float(np.abs(probed).max())
    for name, constant in constants.items():
        candidates = [constant.reshape(probed.shape)] if constant.size == probed.size else []
        if constant.ndim == 2 and constant.T.shape == probed.shape:
            candidates.append(constant.T)
        for candidate in candidates:
            # A part at a time, since a head of many classes is large.
            parts = (slice(begin, begin + _COLUMNS) for begin in range(0, len(probed), _COLUMNS))
            if all(np.allclose(candidate[part], probed[part], rtol=1e-6, atol=tolerance) for part in parts):
                return name, np.ascontiguousarray(candidate, np.float32)
    return "", None
