"""Brings a network in float16 or bfloat16 to float32: its values are kept exactly, its sums are rounded less."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from gapcam_export.graph import all_graphs, all_tensors, tensors_read

_HALF_TYPES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
# Attributes that name a type: of Cast, of what makes constants or draws numbers, of normalisations and attention.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype", "stash_type", "softmax_precision"})


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
