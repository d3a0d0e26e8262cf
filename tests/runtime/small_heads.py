"""Small models whose heads are not affine, as real ONNX files and as fake backends.

Their features are the input's red and blue channels, as in `small_models`; p is the pooled vector (red, blue).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, parser
from small_models import BIAS, WEIGHTS, a_contract

from gapcam.backends import TensorInfo
from gapcam.backends.fake import FakeBackend
from gapcam.contract import METADATA_KEY, Contract, HeadKind, contract_to_json

# A LayerNorm of p with epsilon 1/4, then WEIGHTS and BIAS. Row c of W is that of WEIGHTS less its mean.
CENTRED = np.array([[2.0, -2.0], [-0.5, 0.5]], np.float32)
EPSILON = 0.25

_NORMED = """
<ir_version: 10, opset_import: ["" : 18]>
normed (float[N,3,H,W] image)
  => (float[N,2] logits, float[N,2,H,W] features, float[2,2] cam_weights, float[2] cam_bias, float[N] cam_scale)
<int64[2] channels = {0, 2}, int64[1] last = {-1}, float[2] ones = {1, 1}, float epsilon = {0.25},
 float[2,2] linear = {3, -1, 1, 2}, float[2,2] cam_weights = {2, -2, -0.5, 0.5}, float[2] cam_bias = {0.5, -0.25},
 float factor = {1}>
{
  features = Gather <axis = 1> (image, channels)
  averaged = GlobalAveragePool (features)
  p = Flatten (averaged)
  normal = LayerNormalization <axis = -1, epsilon = 0.25> (p, ones)
  logits = Gemm <transB = 1> (normal, linear, cam_bias)
  mean = ReduceMean (p, last)
  centred = Sub (p, mean)
  squared = Mul (centred, centred)
  variance = ReduceMean <keepdims = 0> (squared, last)
  raised = Add (variance, epsilon)
  sigma = Sqrt (raised)
  cam_scale = Div (factor, sigma)
}
"""

# z = A p + a, h = z * z, logits = B h + d. With s = 2 z the gradient of logit c is (B[c] * s) A, and its tangent at p
# has the bias B[c] (s * a - h) + d[c].
A = np.array([[4.0, 0.0], [4.0, -4.0]], np.float32)
a = np.array([0.0, 1.0], np.float32)
B = np.array([[1.0, 1.0], [2.0, -1.0], [0.0, 1.0]], np.float32)
d = np.array([0.0, 1.0, -1.0], np.float32)
LABELS = ("red", "blue", "green")

_SQUARED = """
<ir_version: 10, opset_import: ["" : 18]>
squared (float[N,3,H,W] image)
  => (float[N,3] logits, float[N,2,H,W] features, int64[N,2] topk_classes, float[N,2,2] topk_weights,
      float[N,2] topk_bias, float[N,3,H,W] maps)
<int64[2] channels = {0, 2}, int64[1] k = {2}, int64[1] one = {1}, int64[1] two = {2}, int64[3] flat = {0, 2, -1},
 float[2,2] A = {4, 0, 4, -4}, float[2] a = {0, 1}, float[3,2] B = {1, 1, 2, -1, 0, 1}, float[3] d = {0, 1, -1},
 float twice = {2}, float row_factor = {1}, float map_factor = {1}>
{
  features = Gather <axis = 1> (image, channels)
  averaged = GlobalAveragePool (features)
  p = Flatten (averaged)
  z = Gemm <transB = 1> (p, A, a)
  h = Mul (z, z)
  logits = Gemm <transB = 1> (h, B, d)
  values, topk_classes = TopK (logits, k)

  s = Mul (twice, z)
  slope = Unsqueeze (s, one)
  best = Gather <axis = 0> (B, topk_classes)
  sloped = Mul (best, slope)
  rows = MatMul (sloped, A)
  topk_weights = Mul (rows, row_factor)
  shift = Mul (s, a)
  rest = Sub (shift, h)
  column = Unsqueeze (rest, two)
  product = MatMul (best, column)
  without_d = Squeeze (product, two)
  best_d = Gather <axis = 0> (d, topk_classes)
  topk_bias = Add (without_d, best_d)

  all_sloped = Mul (B, slope)
  all_rows = MatMul (all_sloped, A)
  flattened = Reshape (features, flat)
  flat_maps = MatMul (all_rows, flattened)
  shape = Shape <start = 2> (features)
  classes = Shape <end = 2> (logits)
  sides = Concat <axis = 0> (classes, shape)
  shaped = Reshape (flat_maps, sides)
  maps = Mul (shaped, map_factor)
}
"""


def normed_contract(**settings: object) -> Contract:
    """Of `normed`."""
    return a_contract(kind=HeadKind.LAYERNORM, **settings)  # type: ignore[arg-type]


def normed(
    path: Path,
    *,
    contract: Contract | None = None,
    factor: float = 1,
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> Path:
    """Write an ONNX model with a LayerNorm after the pooling; its `cam_scale` is wrong by `factor`."""
    model = _parsed(_NORMED, contract or normed_contract())
    _set(model, "factor", factor)
    return _written(model, path, change)


def fake_normed() -> FakeBackend:
    """The same model without an engine."""

    def compute(image: np.ndarray) -> dict[str, np.ndarray]:
        features = image[:, [0, 2]]
        p = features.mean(axis=(2, 3))
        sigma = np.sqrt(p.var(axis=1) + np.float32(EPSILON))
        normal = (p - p.mean(axis=1, keepdims=True)) / sigma[:, None]
        return {
            "logits": normal @ WEIGHTS.T + BIAS,
            "features": features,
            "cam_weights": CENTRED,
            "cam_bias": BIAS,
            "cam_scale": 1 / sigma,
        }

    return _fake(compute, normed_contract())


def squared_contract(**settings: object) -> Contract:
    """Of `squared`."""
    named = {"labels": LABELS, **settings}
    return a_contract(kind=HeadKind.NONLINEAR, exact=False, **named)  # type: ignore[arg-type]


def squared(
    path: Path,
    *,
    contract: Contract | None = None,
    maps: bool = False,
    row_factor: float = 1,
    map_factor: float = 1,
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> Path:
    """Write an ONNX model with a nonlinear head that gives the rows of the 2 best of 3 classes.

    Its rows are wrong by `row_factor`; `maps` leaves in every class's map, wrong by `map_factor`.
    """
    model = _parsed(_SQUARED, contract or squared_contract())
    _set(model, "row_factor", row_factor)
    _set(model, "map_factor", map_factor)
    if not maps:
        assert model.graph.output.pop().name == "maps"
    return _written(model, path, change)


def fake_squared() -> FakeBackend:
    """The same model without an engine, and without `maps`."""

    def compute(image: np.ndarray) -> dict[str, np.ndarray]:
        features = image[:, [0, 2]]
        z = features.mean(axis=(2, 3)) @ A.T + a
        logits = z**2 @ B.T + d
        best = np.argsort(-logits, axis=1, kind="stable")[:, :2]
        return {
            "logits": logits,
            "features": features,
            "topk_classes": best,
            "topk_weights": (B[best] * (2 * z)[:, None]) @ A,
            "topk_bias": np.einsum("nkj,nj->nk", B[best], 2 * z * a - z**2) + d[best],
        }

    return _fake(compute, squared_contract())


def _fake(compute: Callable[[np.ndarray], dict[str, np.ndarray]], contract: Contract) -> FakeBackend:
    info = TensorInfo("image", (None, 3, *contract.preprocessing.size), "float32")
    return FakeBackend(compute, info, {METADATA_KEY: contract_to_json(contract)})


def _parsed(text: str, contract: Contract) -> onnx.ModelProto:
    height, width = contract.preprocessing.size
    model = parser.parse_model(text.replace("H,W", f"{height},{width}"))
    helper.set_model_props(model, {METADATA_KEY: contract_to_json(contract)})
    return model


def _set(model: onnx.ModelProto, name: str, value: float) -> None:
    (constant,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), name))


def _written(model: onnx.ModelProto, path: Path, change: Callable[[onnx.ModelProto], None] | None) -> Path:
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path
