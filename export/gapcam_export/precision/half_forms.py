"""Which operators there are in float16 and bfloat16, by the schemas that the package `onnx` carries."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, defs

_TEXTS: dict[int, str] = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}
# What ONNX has and TensorRT-RTX 1.7 refuses, to parse or to build.
_NOT_IN_TENSORRT: dict[int, frozenset[str]] = {
    TensorProto.FLOAT16: frozenset(),
    TensorProto.BFLOAT16: frozenset({"HardSwish", "Mish", "LpPool", "ConvTranspose"}),
}
FLOAT32_INPUTS = {"Resize": {2}}
"""Inputs that stay float32 beside data in half precision, by operator and position: Resize's scales."""


def has_half_form(node: onnx.NodeProto, model: onnx.ModelProto, half: int) -> bool:
    """Whether a node may have the type `half` wherever it has float32, in ONNX and in TensorRT.

    Args:
        node: of the main graph. One with subgraphs, one with constants among its attributes, and one of an operator
            that is not ONNX's own has no such form here.
        model: that it is in.
        half: TensorProto.FLOAT16 or TensorProto.BFLOAT16.
    """
    if any(_holds_graphs_or_constants(attribute) for attribute in node.attribute):
        return False
    domain = _domain(node.domain)
    if node.op_type in _NOT_IN_TENSORRT[half] and not domain:
        return False
    opset = next((each.version for each in model.opset_import if _domain(each.domain) == domain), 0)
    try:
        schema = defs.get_schema(node.op_type, opset, domain)
    except defs.SchemaError:
        return False
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    stay = FLOAT32_INPUTS.get(node.op_type, set())
    kinds = [schema.inputs[_formal(position, schema.inputs)].type_str for position in _used(node.input) - stay]
    kinds += [schema.outputs[_formal(position, schema.outputs)].type_str for position in _used(node.output)]
    types = [allowed.get(kind, [kind]) for kind in kinds]
    return all(_TEXTS[half] in each for each in types if "tensor(float)" in each)


def _used(names: Sequence[str]) -> set[int]:
    return {position for position, name in enumerate(names) if name}


def _formal(position: int, formals: Sequence[defs.OpSchema.FormalParameter]) -> int:
    """The last one may stand for several."""
    return min(position, len(formals) - 1)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _holds_graphs_or_constants(attribute: onnx.AttributeProto) -> bool:
    return (
        attribute.HasField("g")
        or attribute.HasField("t")
        or attribute.HasField("sparse_tensor")
        or bool(len(attribute.graphs) or len(attribute.tensors) or len(attribute.sparse_tensors))
    )
