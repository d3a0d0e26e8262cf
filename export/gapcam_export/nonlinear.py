"""Reads a tail of affine layers with elementwise activations between, as MobileNetV3's, by probing.

The tensors that every path from the pooled vector to the logits passes through cut the tail into sections. Each is
affine, or applies one known function to every value: `affine` and `activations` tell, by what a section answers. Affine
sections that follow one another are folded into one.

The head's gradient at an image, with A_i the affine layers, z_i what they give and s_i' the activations' derivatives:

    d logit_c / d pooled = A_m[c] diag(s'(z_m-1)) A_m-1 ... diag(s'(z_1)) A_1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gapcam_export.activations import GRID, Activation, recognize
from gapcam_export.affine import TOLERANCE, Affine, Floats, Function, read_affine


@dataclass(frozen=True)
class Layer:
    """An affine map and the activation after it.

    Attributes:
        affine: the map, or None where the activation follows on what was there.
        activation: or None after the last map.
        preactivation: name of the tensor that the activation is applied to; "" where there is none.
        output: name of the tensor that it gives; "" where there is none.
    """

    affine: Affine | None
    activation: Activation | None
    preactivation: str
    output: str


@dataclass(frozen=True)
class Chain:
    """Affine layers with elementwise activations between.

    Attributes:
        layers: in the order of the network; the last one has an affine map and no activation.
        answer: the whole chain as a function, from pooled vectors [n,C] to logits [n,K].
    """

    layers: tuple[Layer, ...]
    answer: Function

    def value(self, pooled: Floats) -> NDArray[np.float64]:
        """What the layers that were read give, in float64: logits [n,K] for pooled vectors [n,C]."""
        values = pooled.astype(np.float64)
        for layer in self.layers:
            if layer.affine is not None:
                values = values @ layer.affine.weights.T.astype(np.float64) + layer.affine.bias
            if layer.activation is not None:
                values = layer.activation.value(values)
        return values

    @property
    def weights(self) -> NDArray[np.float32]:
        """Of the last layer, [K,H]."""
        last = self.layers[-1].affine
        assert last is not None  # noqa: S101  # so it is by construction
        return last.weights


class Sections(Protocol):
    """What a network's sections between two tensors are probed with."""

    def section(self, start: str, target: str) -> Function:
        """The section as a function of vectors."""

    def vectors(self, name: str) -> list[Floats]:
        """What may be fed in a vector's place, each [n,C], at several scales."""

    def constants(self, start: str, target: str) -> dict[str, NDArray[np.generic]]:
        """The graph's constants that the section reads."""


def read_chain(sections: Sections, names: Sequence[str]) -> Chain | None:
    """The chain from the first to the last of these tensors, or None if it is none.

    Args:
        sections: of the network.
        names: the tensors that every path from the pooled vector to the logits passes through, both included.
    """
    layers: list[Layer] = []
    here, last = 0, len(names) - 1
    while True:
        affine, end = _longest_affine(sections, names, here)
        if end == last:
            if affine is None or _is_elementwise(affine):
                return None  # an activation ends it, such as 1 - sigmoid(x)
            layers.append(Layer(affine, None, "", ""))
            return Chain(tuple(layers), sections.section(names[0], names[-1]))
        for after in range(end + 1, last + 1):
            activation = _read_activation(sections, names[end], names[after])
            if activation is not None:
                break
        else:
            return None
        layers.append(Layer(affine, activation, names[end], names[after]))
        here = after


def _is_elementwise(affine: Affine) -> bool:
    """Whether each value that it gives comes from one value of its own."""
    weights = affine.weights
    return weights.shape[0] == weights.shape[1] and not (weights - np.diag(np.diag(weights))).any()


def _longest_affine(sections: Sections, names: Sequence[str], here: int) -> tuple[Affine | None, int]:
    """The affine map to the farthest tensor that one leads to, None for the identity, and that tensor's place."""
    for end in range(len(names) - 1, here, -1):
        start, target = names[here], names[end]
        affine = read_affine(
            sections.section(start, target), sections.vectors(start), sections.constants(start, target)
        )
        if affine is not None:
            return (None if affine.is_identity else affine), end
    return None, here


def _read_activation(sections: Sections, start: str, target: str) -> Activation | None:
    """The activation between two tensors, or None if it is none."""
    function, vectors = sections.section(start, target), sections.vectors(start)
    channels = vectors[0].shape[1]
    values = function(np.repeat(GRID[:, None], channels, axis=1))
    if values.shape[1] != channels:
        return None
    activation = recognize(values)
    if activation is None:
        return None
    # Each value by itself: what mixes them looks the same only where all are alike.
    for probe in (*vectors, 10 * vectors[-1]):
        expected = activation.value(probe.astype(np.float64))
        if not np.abs(function(probe) - expected).max() <= TOLERANCE * np.abs(expected).max():
            return None
    return activation
