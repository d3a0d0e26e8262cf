"""Which nodes stay in float32 where a model is lowered to float16 or bfloat16, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from gapcam_export.graph import graph_inputs, tensors_read
from gapcam_export.precision.half_forms import has_half_form
from gapcam_export.precision.normalizations import normalization_nodes
from gapcam_export.precision.observed_tensors import greatest_value
from gapcam_export.section import Array

_FLOAT16 = np.finfo(np.float16)
LARGEST_FLOAT16 = float(_FLOAT16.max) / 4
"""What a tensor may reach on the images that were looked at: another image has another greatest value."""
SMALLEST_FLOAT16 = float(_FLOAT16.tiny)
"""What a tensor's greatest value must reach: of smaller numbers float16 has fewer digits, of those below 6e-8 none."""

_SCALING = frozenset({"Cast", "Mul", "Add", "Sub", "Div", "Transpose"})
_NAMES_SHOWN = 5


def kept_nodes(
    model: onnx.ModelProto,
    head: Collection[str],
    dtypes: Mapping[str, int],
    greatest: Mapping[str, float],
    half: int,
    notes: list[str],
) -> set[str]:
    """Names of the nodes that stay in float32.

    Args:
        model: in float32, without Constant nodes; each node has a name of its own.
        head: names of the nodes that stay because they are the head.
        dtypes: of the tensors that nodes make.
        greatest: their greatest absolute values.
        half: TensorProto.FLOAT16 or TensorProto.BFLOAT16.
        notes: gets what stays beside the head, and why.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    name = "float16" if half == TensorProto.FLOAT16 else "bfloat16"
    reasons = {
        f"{name} would lose what their normalisations divide by": normalization_nodes(graph, constants),
        f"there is no {name} form of them": _without_half_form(model, dtypes, half),
    }
    if half == TensorProto.FLOAT16:
        sizes = dict(greatest)
        large = {name for name, value in constants.items() if greatest_value(value) > LARGEST_FLOAT16}
        large |= {name for name, size in sizes.items() if size > LARGEST_FLOAT16}
        # Small weights of many are added to larger ones; a small number alone is a factor or an epsilon.
        sizes.update({name: greatest_value(value) for name, value in constants.items() if value.size == 1})
        small = {name for name, size in sizes.items() if 0 < size < SMALLEST_FLOAT16}
        reasons["their values are too large for float16"] = _makers_and_readers(graph, large)
        reasons["their values are too small for float16"] = _makers_and_readers(graph, small)
        reasons["their variances are too small for float16"] = _small_variances(graph, constants)
    kept = {*head, *_scaling_of_pixels(graph, constants)}
    for reason, nodes in reasons.items():
        shown = [node for node in graph.node if node.name in nodes and node.name not in kept]
        if shown:
            listed = ", ".join(f"{node.op_type} {node.name}" for node in shown[:_NAMES_SHOWN])
            more = f" and {len(shown) - _NAMES_SHOWN} more" if len(shown) > _NAMES_SHOWN else ""
            notes.append(f"left in float32, since {reason}: {listed}{more}")
        kept |= nodes
    return kept


def _without_half_form(model: onnx.ModelProto, dtypes: Mapping[str, int], half: int) -> set[str]:
    """Nodes with float32 among what they read or make that cannot be in half precision."""
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types.update({value.name: value.type.tensor_type.elem_type for value in graph_inputs(graph)})
    types.update(dtypes)
    found = set()
    for node in graph.node:
        touched = [types.get(name, TensorProto.UNDEFINED) for name in (*tensors_read(node), *node.output) if name]
        is_tensor = TensorProto.UNDEFINED not in touched
        if (TensorProto.FLOAT in touched or not is_tensor) and not (is_tensor and has_half_form(node, model, half)):
            found.add(str(node.name))
    return found


def _makers_and_readers(graph: onnx.GraphProto, tensors: set[str]) -> set[str]:
    """Neither may see these tensors in float16."""
    return {str(node.name) for node in graph.node if not tensors.isdisjoint((*tensors_read(node), *node.output))}


def _small_variances(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> set[str]:
    """BatchNormalizations with variances that float16 has only a few digits of, or none."""
    found = set()
    for node in graph.node:
        variance = constants.get(node.input[4]) if node.op_type == "BatchNormalization" else None
        if variance is not None and bool((variance < _FLOAT16.tiny).any()):
            found.add(str(node.name))
    return found


def _scaling_of_pixels(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> set[str]:
    """What brings uint8 pixels to the network's range: rounded once, when it is done, as the runtime's own."""
    (fed,) = graph_inputs(graph)
    if fed.type.tensor_type.elem_type != TensorProto.UINT8:
        return set()
    scaled, found = {fed.name}, set()
    for node in graph.node:
        reads = {name for name in node.input if name not in constants}
        if node.op_type in _SCALING and reads and reads <= scaled:
            scaled.update(node.output)
            found.add(str(node.name))
    return found
