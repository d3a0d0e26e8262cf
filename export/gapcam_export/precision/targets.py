"""What int8 looks like on each target: types, symmetry, and which operators have an int8 form there.

- tensorrt: symmetric int8 (its only kind). Q/DQ stand before the layers, and on one input of a residual addition, so
  that a convolution, the addition and the activation after it run as one kernel; biases are float32. Source: NVIDIA,
  TensorRT documentation, "Q/DQ Layer-Placement Recommendations".
- cpu-x86: uint8 activations, int8 weights: the operands of AVX-512 VNNI's and AMX's instructions.
- cpu-arm: int8 for both: the operands of Arm's dot product instructions.

On CPUs ONNX Runtime runs an operator in int8 where Q/DQ stand before and after it.

Matrix products of two activations (attention) stay in float32 everywhere: measured on a ViT, quantising them lost as
much of the maps as all other layers together, and no time was gained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxruntime.quantization import QuantType

from gapcam.contract import Target

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights; what a search may leave in float32."""

# ONNX Runtime's int8 matrix products give float32, too; after them come norms, additions and softmax, which take it.
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_MOVES = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Concat", "Pad", "Resize"}
    | {"MaxPool", "AveragePool", "GlobalAveragePool"}
)
_CPU = _MOVES | {"Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid"}
# What TensorRT fuses with a layer, or carries int8 through.
_TENSORRT = _MOVES | {"Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Elu", "Tanh"}


@dataclass(frozen=True)
class Form:
    """How int8 is written for a target.

    Attributes:
        activations: type of the activations.
        symmetric: whether 0 is the integer 0.
        followers: operators that go with the layer before them.
        float_outputs: layers that no Q/DQ follow, unless what comes next wants them.
        quantizes_followers: whether Q/DQ stand around followers, too, and biases are int32.
    """

    activations: QuantType
    symmetric: bool
    followers: frozenset[str]
    float_outputs: frozenset[str]
    quantizes_followers: bool


FORMS: Mapping[Target, Form] = {
    "tensorrt": Form(
        QuantType.QInt8, symmetric=True, followers=_TENSORRT, float_outputs=LAYERS, quantizes_followers=False
    ),
    "cpu-x86": Form(
        QuantType.QUInt8, symmetric=False, followers=_CPU, float_outputs=_PRODUCTS, quantizes_followers=True
    ),
    "cpu-arm": Form(
        QuantType.QInt8, symmetric=False, followers=_CPU, float_outputs=_PRODUCTS, quantizes_followers=True
    ),
}
