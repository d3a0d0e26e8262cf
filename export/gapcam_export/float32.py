"""What a network computes in that is less than float32, and how one in float16 or bfloat16 is brought to float32.

There its values are kept exactly, and its sums are rounded less.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

from gapcam_export.graph import all_graphs, all_tensors, tensors_read

_HALF_TYPES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
# Attributes that name a type: of Cast, of what makes constants or draws numbers, of normalisations and attention.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision"})

_INTEGER_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
    # ONNX Runtime's own
    | {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits", "MatMulBnb4"}
    | {"MatMulFpQ4", "GatherBlockQuantized", "QAttention", "QGemm", "QEmbedLayerNormalization", "QMoE"}
)
# Types of so few bits that what a layer multiplies with was rounded to them.
_FEW_BITS = {
    number: name.lower()
    for name, number in TensorProto.DataType.items()
    if name.startswith(("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2", "FLOAT8", "FLOAT4"))
}
_FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, *_HALF_TYPES})
_LAYERS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}
    | {"FusedConv", "FusedGemm", "FusedMatMul"}
)
# From integers to weights: what gives its first input's values in another place, and what computes with them.
_PLACES = frozenset(
    {
        "Identity",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
        "Expand",
        "Tile",
        "Gather",
    }
    | {"Pad", "DepthToSpace", "SpaceToDepth"}
)
_ARITHMETIC = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Concat"}
)


def integer_arithmetic(model: onnx.ModelProto) -> str:
    """How a model is quantised, in words: "DequantizeLinear nodes", "int8 weights 'w'", or "" if it is not.

    Weights are quantised, too, where integers (or floats of eight bits and fewer) are cast to what a layer multiplies
    with. Integers that say where something is, or that are added to an image, are no weights.
    """
    operators = {node.op_type for graph in all_graphs(model) for node in graph.node}
    integer = sorted(
        name for name in operators if name in _INTEGER_OPERATORS or "QLinear" in name or "QOrdered" in name
    )
    return f"{integer[0]} nodes" if integer else _narrow_weights(model)


def _narrow_weights(model: onnx.ModelProto) -> str:
    """The first weights that are stored in few bits, in words, or ""."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    constant: set[str] = set()
    narrow: dict[str, str] = {}  # tensors that follow from constants in few bits, and which
    floats: set[str] = set()  # those of them that are floats
    for graph in all_graphs(model):
        stored = list(graph.initializer) if isinstance(graph, onnx.GraphProto) else []
        for tensor in stored:
            _note_constant(tensor, tensor.name, constant, narrow)
        for node in graph.node:
            read = list(tensors_read(node))
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                _note_constant(node.attribute[0].t, node.output[0], constant, narrow)
            elif node.op_type in _LAYERS:
                weights = next((narrow[name] for name in read if name in floats), "")
                if weights:
                    return weights
            elif all(name in constant for name in read):
                constant.update(node.output)
                of_values = read if node.op_type in _ARITHMETIC else read[:1]
                before = [name for name in of_values if name in narrow]
                if before and node.op_type in _PLACES | _ARITHMETIC | {"Cast", "CastLike"}:
                    narrow.update((name, narrow[before[0]]) for name in node.output)
                    casts = any(each.name == "to" and each.i in _FLOAT_TYPES for each in node.attribute)
                    if casts or node.op_type == "CastLike" or not floats.isdisjoint(before):
                        floats.update(node.output)
    return ""


def _note_constant(tensor: onnx.TensorProto, name: str, constant: set[str], narrow: dict[str, str]) -> None:
    constant.add(name)
    if tensor.data_type in _FEW_BITS and prod(tensor.dims) > 1:
        narrow[name] = f"{_FEW_BITS[tensor.data_type]} weights {name!r}"


def half_type(model: onnx.ModelProto) -> str:
    """What a model computes in if it is less than float32: "float16", "bfloat16", or "".

    Weights that are cast to float32 before anything is computed with them are only stored in less.
    """
    used = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    for graph in all_graphs(model):
        stored = {}
        if isinstance(graph, onnx.GraphProto):
            stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES:
                    used.add(attribute.i)
                if attribute.HasField("t") and node.op_type == "Constant":
                    stored[node.output[0]] = attribute.t.data_type
                elif attribute.HasField("t"):
                    used.add(attribute.t.data_type)
        read = {name for node in graph.node if node.op_type != "Cast" for name in tensors_read(node)}
        used.update(dtype for name, dtype in stored.items() if name in read)
    return next((name for dtype, name in _HALF_TYPES.items() if dtype in used), "")


def to_float32(model: onnx.ModelProto) -> None:
    """Make every float16 and bfloat16 of a model a float32, in place: constants, casts, and what describes tensors."""
    for tensor in all_tensors(model):
        if tensor.data_type in _HALF_TYPES:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in all_graphs(model):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF_TYPES:
                    attribute.i = TensorProto.FLOAT
                if attribute.HasField("tp"):
                    _retype(attribute.tp)
        described = [*graph.value_info]
        if isinstance(graph, onnx.GraphProto):
            described += [*graph.input, *graph.output]
        for value in described:
            _retype(value.type)


def _retype(described: onnx.TypeProto) -> None:
    kind = described.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(described, kind)
        if tensor.elem_type in _HALF_TYPES:
            tensor.elem_type = TensorProto.FLOAT
    elif kind in ("sequence_type", "optional_type"):
        _retype(getattr(described, kind).elem_type)
    elif kind == "map_type":
        _retype(described.map_type.value_type)
