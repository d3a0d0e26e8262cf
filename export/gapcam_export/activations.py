"""The elementwise activations that a nonlinear head may have, each with its derivative as ONNX operators.

They are recognised by their values, not by the operators that compute them: exporters write one GELU in many ways. Each
is a family with parameters that are read off the values: the slope of a leaky ReLU, the bounds of a Clip.

Every operator that is written here is in ONNX's set since version 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from gapcam_export.graph_writer import GraphWriter

Values = NDArray[np.float64]

# Where an unknown function is looked at: where activations bend, and far out, where they have become straight.
GRID: Values = np.concatenate([[-1e3, -30.0], np.linspace(-8, 8, 65), [30.0, 1e3]])
# What float32 and a runtime's own approximation of exp and erf leave; the two GELUs differ by 5e-4.
_TOLERANCE = 3e-5
_STEEP = 1e-3  # a slope above which a saturating function has not saturated


@dataclass(frozen=True)
class Activation:
    """A function of one number, applied to each of a vector's values.

    Attributes:
        name: as the field calls it, with its parameters.
        value: of vectors [n,C].
        write_derivative: appends the derivative at a tensor [N,C] to a graph, and gives its name.
    """

    name: str
    value: Callable[[Values], Values]
    write_derivative: Callable[[GraphWriter, str], str]


def recognize(values: NDArray[np.floating[Any]]) -> Activation | None:
    """The activation that has these values on GRID, or None if it is none that is known.

    Args:
        values: [len(GRID),C], one column a channel.
    """
    columns = values.astype(np.float64)
    if not np.isfinite(columns).all():
        return None
    candidates = [candidate for fit in _FAMILIES if (candidate := fit(columns)) is not None]
    errors = [float(_error(candidate, columns)) for candidate in candidates]
    best = min(zip(errors, candidates, strict=True), key=lambda pair: pair[0], default=None)
    return best[1] if best is not None and best[0] <= 1 else None


def _error(candidate: Activation, columns: Values) -> float:
    """Greatest difference over what is tolerated."""
    expected = candidate.value(np.broadcast_to(GRID[:, None], columns.shape))
    return float((np.abs(columns - expected) / (_TOLERANCE * np.maximum(np.abs(expected), 1))).max())


def _at(columns: Values, x: float) -> float:
    """The first channel's value at one of GRID's points."""
    return float(columns[int(np.argmin(np.abs(GRID - x))), 0])


def _sigmoid(x: Values) -> Values:
    return 0.5 * (1 + np.tanh(0.5 * x))  # overflows nowhere


def _softplus(x: Values) -> Values:
    return np.logaddexp(0, x)


def _erf(x: Values) -> Values:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def _step(w: GraphWriter, x: str) -> str:
    """1 where x is above 0, else 0."""
    return w.node("Cast", [w.node("Greater", [x, w.number(0)], "is_positive")], "step", to=TensorProto.FLOAT)


def _fit_leaky_relu(columns: Values) -> Activation | None:
    """max(x, 0) + slope * min(x, 0); slope 0 is ReLU, one slope a channel PReLU."""
    slope = columns[int(np.argmin(np.abs(GRID + 1)))] / -1
    same = bool(np.ptp(slope) <= _TOLERANCE)
    name = "ReLU" if same and not slope[0] else f"leaky ReLU of slope {slope[0]:.6g}" if same else "PReLU"
    slopes = slope[:1] if same else slope

    def write(w: GraphWriter, x: str) -> str:
        if same and not slope[0]:
            return _step(w, x)
        rise = w.constant((1 - slopes).astype(np.float32), "slope_rise")
        risen = w.node("Mul", [_step(w, x), rise], "risen")
        return w.node("Add", [risen, w.constant(slopes.astype(np.float32), "slope")], "leaky_relu_slope")

    return Activation(name, lambda x: np.where(x > 0, x, slopes * x), write)


def _fit_clip(columns: Values) -> Activation | None:
    """clip(a x + b, low, high): ReLU6, hardtanh, hard sigmoid."""
    first = columns[:, 0]
    low, high = float(first[0]), float(first[-1])
    inside = np.flatnonzero((first > low + _TOLERANCE) & (first < high - _TOLERANCE))
    if len(inside) < 2 or first[1] != low or first[-2] != high:
        return None
    left, right = int(inside[0]), int(inside[-1])
    a = float((first[right] - first[left]) / (GRID[right] - GRID[left]))
    if a < _STEEP:
        return None
    b = float(first[left] - a * GRID[left])

    def write(w: GraphWriter, x: str) -> str:
        above = _step(w, w.node("Sub", [x, w.number((low - b) / a)], "above_low"))
        below = _step(w, w.node("Sub", [w.number((high - b) / a), x], "below_high"))
        return w.node("Mul", [w.node("Mul", [above, below], "is_inside"), w.number(a)], "clip_slope")

    name = f"clip({a:.6g} x + {b:.6g}, {low:.6g}, {high:.6g})"
    return Activation(name, lambda x: np.clip(a * x + b, low, high), write)


def _fit_hard_swish(columns: Values) -> Activation | None:
    """x clip(x/6 + 1/2, 0, 1)."""
    del columns

    def write(w: GraphWriter, x: str) -> str:
        above = _step(w, w.node("Add", [x, w.number(3)], "above_minus_3"))
        beyond = _step(w, w.node("Sub", [x, w.number(3)], "above_3"))
        slope = w.node("Add", [w.node("Div", [x, w.number(3)], "third"), w.number(0.5)], "slope")
        between = w.node("Mul", [w.node("Sub", [above, beyond], "is_between"), slope], "slope_between")
        return w.node("Add", [between, beyond], "hard_swish_slope")

    return Activation("hard swish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), write)


def _fit_swish(columns: Values) -> Activation | None:
    """x sigmoid(b x): SiLU for b = 1, the quick GELU for b = 1.702."""
    ratio = _at(columns, 1)
    if not 0.5 < ratio < 1:
        return None
    b = round(math.log(ratio / (1 - ratio)), 4)

    def write(w: GraphWriter, x: str) -> str:
        scaled = w.node("Mul", [x, w.number(b)], "scaled")
        gate = w.node("Sigmoid", [scaled], "gate")
        closed = w.node("Sub", [w.number(1), gate], "closed")
        inner = w.node("Add", [w.node("Mul", [scaled, closed], "scaled_closed"), w.number(1)], "inner")
        return w.node("Mul", [gate, inner], "swish_slope")

    return Activation("SiLU" if b == 1 else f"swish({b:.6g})", lambda x: x * _sigmoid(b * x), write)


def _fit_gelu_erf(columns: Values) -> Activation | None:
    """x Phi(x), Phi the normal distribution."""
    del columns

    def write(w: GraphWriter, x: str) -> str:
        erf = w.node("Erf", [w.node("Mul", [x, w.number(math.sqrt(0.5))], "over_root_2")], "erf")
        phi = w.node("Mul", [w.node("Add", [erf, w.number(1)], "erf_and_1"), w.number(0.5)], "phi")
        half = w.node("Mul", [w.node("Mul", [x, x], "square"), w.number(-0.5)], "minus_half_square")
        density = w.node("Mul", [w.node("Exp", [half], "bell"), w.number(1 / math.sqrt(2 * math.pi))], "density")
        return w.node("Add", [phi, w.node("Mul", [x, density], "x_density")], "gelu_slope")

    return Activation("GELU", lambda x: x * 0.5 * (1 + _erf(x * math.sqrt(0.5))), write)


def _fit_gelu_tanh(columns: Values) -> Activation | None:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""
    del columns
    root, cubic = math.sqrt(2 / math.pi), 0.044715

    def write(w: GraphWriter, x: str) -> str:
        square = w.node("Mul", [x, x], "square")
        inner = w.node("Add", [w.node("Mul", [square, w.number(root * cubic)], "cubic"), w.number(root)], "inner")
        tanh = w.node("Tanh", [w.node("Mul", [x, inner], "argument")], "tanh")
        gate = w.node("Mul", [w.node("Add", [tanh, w.number(1)], "tanh_and_1"), w.number(0.5)], "gate")
        bend = w.node("Sub", [w.number(1), w.node("Mul", [tanh, tanh], "tanh_squared")], "bend")
        slope = w.node("Add", [w.node("Mul", [square, w.number(3 * root * cubic)], "3_cubic"), w.number(root)], "slope")
        half = w.node("Mul", [x, w.number(0.5)], "half")
        bent = w.node("Mul", [w.node("Mul", [bend, slope], "bend_slope"), half], "half_bent")
        return w.node("Add", [gate, bent], "gelu_slope")

    return Activation("GELU by tanh", lambda x: 0.5 * x * (1 + np.tanh(root * (x + cubic * x**3))), write)


def _fit_sigmoid(columns: Values) -> Activation | None:
    """1 / (1 + exp(-x))."""
    del columns

    def write(w: GraphWriter, x: str) -> str:
        gate = w.node("Sigmoid", [x], "gate")
        return w.node("Mul", [gate, w.node("Sub", [w.number(1), gate], "closed")], "sigmoid_slope")

    return Activation("sigmoid", _sigmoid, write)


def _fit_tanh(columns: Values) -> Activation | None:
    """tanh(x)."""
    del columns

    def write(w: GraphWriter, x: str) -> str:
        tanh = w.node("Tanh", [x], "tanh")
        return w.node("Sub", [w.number(1), w.node("Mul", [tanh, tanh], "tanh_squared")], "tanh_slope")

    return Activation("tanh", np.tanh, write)


def _fit_elu(columns: Values) -> Activation | None:
    """scale * (x above 0, alpha (exp(x) - 1) below): ELU, SELU."""
    scale, floor = _at(columns, 1), -float(columns[0, 0])
    if scale <= _STEEP or floor <= _STEEP:
        return None

    def value(x: Values) -> Values:
        return np.where(x > 0, scale * x, floor * np.expm1(np.minimum(x, 0)))

    def write(w: GraphWriter, x: str) -> str:
        step = _step(w, x)
        below = w.node("Sub", [x, w.node("Relu", [x], "above_0")], "below_0")
        falling = w.node("Mul", [w.node("Exp", [below], "exp"), w.number(floor)], "falling")
        left = w.node("Mul", [falling, w.node("Sub", [w.number(1), step], "is_below")], "slope_below")
        return w.node("Add", [left, w.node("Mul", [step, w.number(scale)], "slope_above")], "elu_slope")

    return Activation(f"ELU({scale:.6g}, {floor:.6g})", value, write)


def _fit_softplus(columns: Values) -> Activation | None:
    """log(1 + exp(x))."""
    del columns
    return Activation("softplus", _softplus, lambda w, x: w.node("Sigmoid", [x], "softplus_slope"))


def _fit_mish(columns: Values) -> Activation | None:
    """x tanh(log(1 + exp(x)))."""
    del columns

    def write(w: GraphWriter, x: str) -> str:
        tanh = w.node("Tanh", [w.node("Softplus", [x], "softplus")], "tanh")
        bend = w.node("Sub", [w.number(1), w.node("Mul", [tanh, tanh], "tanh_squared")], "bend")
        slope = w.node("Mul", [bend, w.node("Sigmoid", [x], "gate")], "bend_gate")
        return w.node("Add", [tanh, w.node("Mul", [x, slope], "x_bend")], "mish_slope")

    return Activation("Mish", lambda x: x * np.tanh(_softplus(x)), write)


_FAMILIES: tuple[Callable[[Values], Activation | None], ...] = (
    _fit_leaky_relu,
    _fit_clip,
    _fit_hard_swish,
    _fit_swish,
    _fit_gelu_erf,
    _fit_gelu_tanh,
    _fit_sigmoid,
    _fit_tanh,
    _fit_elu,
    _fit_softplus,
    _fit_mish,
)
