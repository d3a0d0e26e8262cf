"""Checks the rows that a graph gives for a nonlinear head against the head's own changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gapcam_export.activations import GRID, Activation, Values
from gapcam_export.affine import Floats
from gapcam_export.graph_writer import GraphWriter
from gapcam_export.nonlinear import Chain
from gapcam_export.section import onnx_session, run_session

# float32 leaves some 1e-6; the derivatives of the two GELUs differ by 1e-3.
GRADIENT_TOLERANCE = 1e-4

_DIRECTIONS = 8
# In parts of the pooled vector, in float64: far above its rounding, and too short to go past a bend.
_STEP = 1e-6
# Where the layers that were read are compared with the network's own, beside the image itself.
_AROUND = 0.1
# Operators that derivatives are written in are all there.
_OPSET, _IR_VERSION = 10, 5


class GradientCheck:
    """Differences of a head's logits along random directions, against what its rows say of them.

    At a bend the row may be that of either side.

    They are taken in float64 of the layers as they were read: float32 loses short steps in rounding, and long ones go
    past the activations' bends. The layers answer as the network does, or the check fails. So it does where an
    activation's derivative, as it is written into a graph, is not that of its values: few images reach all of it.

    Args:
        chain: the head.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain, self._random = chain, np.random.default_rng(0)
        self._error = _error_of_derivatives(chain)

    def measure(self, pooled: Floats, classes: NDArray[Any], rows: Floats) -> None:
        """Take one image in.

        Args:
            pooled: [C].
            classes: [k].
            rows: [k,C], what should be d logit / d pooled of these classes.
        """
        here = pooled.astype(np.float64)
        directions = self._random.standard_normal((_DIRECTIONS, len(here))) * np.sqrt(np.mean(here**2))
        around = here + np.concatenate([np.zeros((1, len(here))), _AROUND * directions])
        answers = self._chain.answer(around)
        misread = np.abs(self._chain.value(around) - answers).max() / max(np.abs(answers).max(), np.finfo(float).tiny)
        slopes = _slopes(lambda steps: self._chain.value(here + steps * directions)[:, classes], _STEP)
        self._error = float(np.max([self._error, misread, _error(slopes, directions @ rows.T)]))  # NaN stays NaN

    @property
    def error(self) -> float:
        """The greatest difference of an image over its greatest change; NaN if something is not finite."""
        return self._error


def _slopes(value: Callable[[float], Values], step: float) -> Values:
    """A function's slopes on either side of 0, [2,...]: from one step away, past what may be a bend, to two."""
    return np.stack([value(-step) - value(-2 * step), value(2 * step) - value(step)]) / step


def _error(slopes: Values, given: Floats) -> float:
    """The greatest difference from the nearer of the slopes, over the greatest slope."""
    greatest = float(np.abs(slopes).max())
    return float(np.abs(slopes - given).min(axis=0).max()) / (greatest or 1.0)


def _error_of_derivatives(chain: Chain) -> float:
    """The greatest error of what the chain's activations write as their derivatives, on GRID."""
    *before, last = chain.layers
    assert last.affine is not None  # noqa: S101  # so it is by construction
    width, error = last.affine.weights.shape[1], 0.0
    for layer in reversed(before):
        if layer.activation is not None:
            error = float(np.maximum(error, _error_of_derivative(layer.activation, width)))
        if layer.affine is not None:
            width = layer.affine.weights.shape[1]
    return error


def _error_of_derivative(activation: Activation, channels: int) -> float:
    points = np.repeat(GRID[:, None], channels, axis=1)
    fed = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, channels])
    graph = helper.make_graph([], "derivative", [fed], [])
    name = activation.write_derivative(GraphWriter(graph, _OPSET), "x")
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    given = run_session(onnx_session(model), [name], {"x": points.astype(np.float32)})[name]
    return _error(_slopes(lambda step: activation.value(points + step), _STEP), given)
