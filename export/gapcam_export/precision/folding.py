"""Folds what a network computes from constants alone, and BatchNorm into convolutions, before it is quantised.

What is quantised should be the weights that a device multiplies with: those after the BatchNorm, as initializers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from gapcam_export.graph import tensors_read, unused_name
from gapcam_export.section import Array, onnx_session, run_session

# They draw numbers, or give more than they are given: a few constants may become a large one.
_NOT_FOLDED = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
    | {"ConstantOfShape", "Expand", "Tile", "Range", "EyeLike", "OneHot"}
)


def fold_constants(model: onnx.ModelProto) -> None:
    """Compute, in place, what follows from constants alone, such as a transposed weight; Constant nodes first."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)
    outputs = {value.name for value in graph.output}
    known = {tensor.name for tensor in graph.initializer}
    foldable = []
    for node in graph.node:
        reads = list(tensors_read(node))
        is_fit = node.op_type not in _NOT_FOLDED and outputs.isdisjoint(node.output)
        if reads and is_fit and all(name in known for name in reads):
            foldable.append(node)
            known.update(node.output)
    if not foldable:
        return
    names = [name for node in foldable for name in node.output if name]
    read = {name for node in foldable for name in tensors_read(node)}
    part = onnx.helper.make_graph(
        foldable,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        initializer=[tensor for tensor in graph.initializer if tensor.name in read],
    )
    session = onnx_session(
        onnx.helper.make_model(
            part, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
        )
    )
    for name, value in run_session(session, names, {}).items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for node in foldable:
        graph.node.remove(node)


def fold_batch_norms(model: onnx.ModelProto) -> None:
    """Fold, in place, each BatchNormalization that follows a convolution alone into its weights and bias.

    y = (conv(x) - mean) * gamma / sqrt(var + epsilon) + beta is a convolution, too (Jacob et al. 2018, section 3.2).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        maker = next((node for node in graph.node if norm.input[0] in node.output), None)
        readers = [node for node in graph.node if norm.input[0] in tensors_read(node)]
        attributes = {attribute.name: attribute for attribute in norm.attribute}
        is_training = "training_mode" in attributes and attributes["training_mode"].i
        if maker is None or len(readers) > 1 or norm.input[0] in outputs or is_training or len(norm.output) > 1:
            continue
        if not all(name in constants for name in (*maker.input[1:], *norm.input[1:]) if name):
            continue
        axis = _channel_axis(maker)
        if axis is None:
            continue
        weights, *given_bias = (_float64(constants[name]) for name in maker.input[1:] if name)
        gamma, beta, mean, variance = (_float64(constants[name]) for name in norm.input[1:])
        epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
        factor = gamma / np.sqrt(variance + epsilon)
        bias = (given_bias[0] if given_bias else np.zeros_like(mean)) - mean
        shape = [1] * weights.ndim
        shape[axis] = -1
        names = []
        for wish, value in ((maker.input[1], weights * factor.reshape(shape)), (norm.output[0], bias * factor + beta)):
            names.append(unused_name(graph, f"{wish}_folded"))
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), names[-1]))
            constants[names[-1]] = graph.initializer[-1]
        del maker.input[1:]
        maker.input.extend(names)
        maker.output[0] = norm.output[0]
        graph.node.remove(norm)


def _channel_axis(node: onnx.NodeProto) -> int | None:
    """The axis of a convolution's weights that its output's channels lie on, or None for other nodes."""
    if node.op_type == "Conv":
        return 0
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return 1 if node.op_type == "ConvTranspose" and groups == 1 else None


def _float64(tensor: onnx.TensorProto) -> Array:
    return numpy_helper.to_array(tensor).astype(np.float64)
