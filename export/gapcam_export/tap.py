"""Taps a classifier's graph: the outputs of gapcam's contract are added, the head's affine map is put in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gapcam.contract import (
    CAM_BIAS,
    CAM_SCALE,
    CAM_WEIGHTS,
    FEATURES,
    IMAGE,
    LOGITS,
    MAPS,
    METADATA_KEY,
    TOPK_BIAS,
    TOPK_CLASSES,
    TOPK_MAPS,
    TOPK_WEIGHTS,
    Contract,
    HeadKind,
    Preprocessing,
    contract_to_json,
)
from gapcam.errors import UsageError
from gapcam_export.affine import Affine
from gapcam_export.graph import graph_inputs, opset_of, remove_unused, rename_tensor, tensor_names, unused_name
from gapcam_export.graph_writer import GraphWriter
from gapcam_export.head import FoundHead
from gapcam_export.layernorm import Normed
from gapcam_export.nonlinear import Chain
from gapcam_export.tangent import Tangent

# Outputs that are this package's own; `logits` may be somebody's.
ADDED_OUTPUTS = (
    FEATURES,
    CAM_WEIGHTS,
    CAM_BIAS,
    CAM_SCALE,
    MAPS,
    TOPK_CLASSES,
    TOPK_WEIGHTS,
    TOPK_BIAS,
    TOPK_MAPS,
)


def untap(model: onnx.ModelProto) -> None:
    """Take out what an earlier export has added, so that the model can be exported again."""
    outputs = [value for value in model.graph.output if value.name not in ADDED_OUTPUTS]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    _remove_contract(model)
    remove_unused(model.graph)


def strip_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove what an exporter wrote about the machine that it ran on: stack traces with file names, mostly."""
    for described in (*model.functions, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del described.metadata_props[:]
        described.doc_string = ""
    _strip_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            _strip_node(node)


def _strip_graph(graph: onnx.GraphProto) -> None:
    del graph.metadata_props[:]
    graph.doc_string = ""
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: onnx.NodeProto) -> None:
    del node.metadata_props[:]
    node.doc_string = ""
    for attribute in node.attribute:
        attribute.doc_string = ""
        if attribute.HasField("g"):
            _strip_graph(attribute.g)
        for subgraph in attribute.graphs:
            _strip_graph(subgraph)


def free_names(graph: onnx.GraphProto) -> dict[str, str]:
    """Rename, in place, what has one of the contract's names and is something else.

    `logits` among the outputs is left to `claim_logits`: it may be the logits.

    Returns:
        Old and new names of the outputs among them.
    """
    (fed,) = graph_inputs(graph)
    outputs = {value.name for value in graph.output}
    renamed = {}
    for name in (IMAGE, LOGITS, *ADDED_OUTPUTS):
        is_in_place = (name == IMAGE and fed.name == IMAGE) or (name == LOGITS and LOGITS in outputs)
        if name in tensor_names(graph) and not is_in_place:
            new = unused_name(graph, f"{name}_source")
            rename_tensor(graph, name, new)
            if name in outputs:
                renamed[name] = new
    rename_tensor(graph, fed.name, IMAGE)
    return renamed


def claim_logits(graph: onnx.GraphProto, head: FoundHead) -> tuple[FoundHead, str]:
    """Rename, in place, an output `logits` that is not the logits [N,K]: a Softmax of them, or [N,K,1,1].

    Returns:
        The head, with its logits' new name if they were renamed, and the output's new name, or "".
    """
    if LOGITS not in tensor_names(graph) or (head.logits == LOGITS and len(head.logits_shape) == 1):
        return head, ""
    new = unused_name(graph, f"{LOGITS}_source")
    rename_tensor(graph, LOGITS, new)
    return (replace(head, logits=new) if head.logits == LOGITS else head), new


def tap(model: onnx.ModelProto, head: FoundHead, *, maps: bool, topk_maps: bool, topk: int) -> None:
    """Add the contract's outputs to a model, in place. Those that were there keep their names.

    Where W and b are the graph's own constants, the tail between the pooled vector and the logits is replaced by one
    Gemm with `cam_weights` and `cam_bias`, so that the model holds no second copy of them. Where they were folded from
    several layers, or more than they stands there, the tail stays, and with it every bit of the logits.

    Args:
        model: a classifier in which `free_names` and `claim_logits` have made room.
        head: what `find_head` found in it.
        maps: add `maps`, every class's map.
        topk_maps: add `topk_maps`, and with it `topk_classes`.
        topk: for how many classes; at most there are classes.

    Raises:
        UsageError: the model's opset has no operators for the k best classes.
    """
    tail, k = head.tail, min(topk, head.classes)
    _check_opset(model, head, topk_maps)
    tapping = _Tapping(model, head)
    if isinstance(tail, Chain):
        tapping.expose_logits()
        tapping.expose_features()
        tapping.add_rows(tail, k)
    elif head.kind is HeadKind.CLASS_MAPS:
        tapping.expose_logits()
        tapping.expose_features()
    else:
        tapping.add_weights(tail)
        if isinstance(tail, Affine) and tail.is_constant:
            tapping.replace_tail()
        else:
            tapping.expose_logits()
        tapping.expose_features()
        tapping.output_weights(tail)
        if isinstance(tail, Normed):
            tapping.add_scale(tail)
    if maps:
        tapping.add_maps()
    if topk_maps:
        tapping.add_topk_maps(k)
    remove_unused(model.graph)


def _check_opset(model: onnx.ModelProto, head: FoundHead, topk_maps: bool) -> None:
    opset, least = opset_of(model), 12 if head.kind is HeadKind.CLASS_MAPS else 10
    if topk_maps and opset < least:
        raise UsageError(f"topk needs operators of opset {least}; the model has opset {opset}. Leave topk out.")
    if head.kind is HeadKind.NONLINEAR and opset < least:
        raise UsageError(
            f"the head's gradient needs operators of opset {least}; the model has opset {opset}. Convert it with "
            "onnx.version_converter."
        )


def embed_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Let a model with input [N,3,H,W] float32 take [N,H,W,3] uint8 pixels instead, in place."""
    graph = model.graph
    (fed,) = graph_inputs(graph)
    batch = fed.type.tensor_type.shape.dim[0]
    network_input = unused_name(graph, f"{fed.name}_normalized")
    scale = 1 / (255 * np.asarray(preprocessing.std))
    shift = -np.asarray(preprocessing.mean) / np.asarray(preprocessing.std)
    name = {
        wish: unused_name(graph, wish) for wish in ("pixels_float", "pixels_scale", "pixels_shift", "scaled", "nhwc")
    }
    graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), name["pixels_scale"]))
    graph.initializer.append(numpy_helper.from_array(shift.astype(np.float32), name["pixels_shift"]))
    pixels = helper.make_tensor_value_info(
        fed.name, TensorProto.UINT8, [batch.dim_value or batch.dim_param, *preprocessing.size, 3]
    )
    rename_tensor(graph, fed.name, network_input)
    graph_inputs(graph)[0].CopyFrom(pixels)
    nodes = [
        helper.make_node("Cast", [pixels.name], [name["pixels_float"]], to=TensorProto.FLOAT),
        helper.make_node("Mul", [name["pixels_float"], name["pixels_scale"]], [name["scaled"]]),
        helper.make_node("Add", [name["scaled"], name["pixels_shift"]], [name["nhwc"]]),
        helper.make_node("Transpose", [name["nhwc"]], [network_input], perm=[0, 3, 1, 2]),
    ]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)


def write_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Put the contract among the model's metadata, in place; one that was there goes."""
    _remove_contract(model)
    model.metadata_props.add(key=METADATA_KEY, value=contract_to_json(contract))


def _remove_contract(model: onnx.ModelProto) -> None:
    entries = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)


class _Tapping:
    """One graph while it is being tapped."""

    def __init__(self, model: onnx.ModelProto, head: FoundHead) -> None:
        self._graph, self._head = model.graph, head
        batch = graph_inputs(model.graph)[0].type.tensor_type.shape.dim[0]
        self._batch: int | str = batch.dim_value or batch.dim_param
        self._writer = GraphWriter(model.graph, opset_of(model))
        self._channels, self._height, self._width = head.feature_shape
        self._tangent: Tangent | None = None

    def add_weights(self, tail: Affine | Normed) -> None:
        """W and b among the constants."""
        self._writer.constant(tail.weights, CAM_WEIGHTS)
        self._writer.constant(tail.bias, CAM_BIAS)

    def output_weights(self, tail: Affine | Normed) -> None:
        """W and b among the outputs."""
        for name, value in ((CAM_WEIGHTS, tail.weights), (CAM_BIAS, tail.bias)):
            self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))

    def replace_tail(self) -> None:
        """logits = W pooled + b, in the place of what computed them."""
        graph, head = self._graph, self._head
        index = next(i for i, node in enumerate(graph.node) if head.logits in node.output)
        tail_end = graph.node[index]
        tail_end.output[list(tail_end.output).index(head.logits)] = unused_name(graph, f"{head.logits}_source")
        vector = unused_name(graph, "pooled_vector")
        nodes = [
            helper.make_node("Flatten", [head.pooled], [vector], axis=1),
            helper.make_node("Gemm", [vector, CAM_WEIGHTS, CAM_BIAS], [LOGITS], transB=1),
        ]
        if head.logits != LOGITS:
            shape = self._writer.constant(np.asarray([0, *head.logits_shape], np.int64), f"{head.logits}_shape")
            nodes.append(helper.make_node("Reshape", [LOGITS, shape], [head.logits]))
        for position, node in enumerate(nodes, start=index):
            graph.node.insert(position, node)
        self._output_logits()

    def expose_logits(self) -> None:
        """The logits as they are, as [N,K]."""
        if self._head.logits != LOGITS:
            self._writer.node("Flatten", [self._head.logits], LOGITS, axis=1)
        self._output_logits()

    def expose_features(self) -> None:
        """The feature maps as [N,C,h,w]."""
        name, layout = self._head.features, self._head.layout
        if layout == "nchw":
            rename_tensor(self._graph, name, FEATURES)
        elif layout == "nhwc":
            self._writer.node("Transpose", [name], FEATURES, perm=[0, 3, 1, 2])
        else:
            if layout == "tokens":
                name = self._writer.node("Transpose", [name], "channels_tokens", perm=[0, 2, 1])
            self._writer.reshape(name, (0, *self._head.feature_shape), FEATURES)
        self._output(FEATURES, TensorProto.FLOAT, self._head.feature_shape)

    def add_scale(self, tail: Normed) -> None:
        """1 / sqrt(spread + epsilon) of the pooled vector, where the spread is its variance or mean square."""
        writer = self._writer
        vector = writer.node("Flatten", [self._head.pooled], "pooled_vector", axis=1)
        if tail.centred:
            vector = writer.node("Sub", [vector, writer.mean_of_rows(vector, "pooled_mean")], "pooled_centred")
        spread = writer.mean_of_rows(writer.node("Mul", [vector, vector], "pooled_squares"), "pooled_spread")
        shifted = writer.node(
            "Add", [spread, writer.constant(np.float32(tail.epsilon), "pooled_epsilon")], "pooled_sum"
        )
        scale = writer.node("Reciprocal", [writer.node("Sqrt", [shifted], "pooled_sigma")], "pooled_scale")
        writer.reshape(scale, (-1,), CAM_SCALE)
        self._output(CAM_SCALE, TensorProto.FLOAT, ())

    def add_rows(self, tail: Chain, k: int) -> None:
        """The k best classes, and the gradient's rows and biases for them."""
        self._tangent = Tangent(self._writer, tail)
        self._add_topk_classes(k)
        self._tangent.write_rows(k)
        self._output(TOPK_WEIGHTS, TensorProto.FLOAT, (k, self._channels))
        self._output(TOPK_BIAS, TensorProto.FLOAT, (k,))

    def add_maps(self) -> None:
        """Every class's map."""
        shape = (self._head.classes, self._height, self._width)
        if self._head.kind is HeadKind.CLASS_MAPS:
            self._writer.node("Identity", [FEATURES], MAPS)
        elif self._tangent is not None:
            flat = self._tangent.write_maps(self._channels, self._height * self._width)
            self._writer.reshape(flat, (0, *shape), MAPS)
        else:
            self._add_weighted_sum(CAM_WEIGHTS, MAPS, shape)
        self._output(MAPS, TensorProto.FLOAT, shape)

    def add_topk_maps(self, k: int) -> None:
        """The k best classes' maps."""
        writer = self._writer
        if self._tangent is not None:
            self._add_weighted_sum(TOPK_WEIGHTS, TOPK_MAPS, (k, self._height, self._width))
        elif self._head.kind is HeadKind.CLASS_MAPS:
            self._add_topk_classes(k)
            index = writer.reshape(TOPK_CLASSES, (0, k, 1), "topk_index")
            writer.node("GatherND", [FEATURES, index], TOPK_MAPS, batch_dims=1)
        else:
            self._add_topk_classes(k)
            rows = writer.node("Gather", [CAM_WEIGHTS, TOPK_CLASSES], "topk_rows", axis=0)
            self._add_weighted_sum(rows, TOPK_MAPS, (k, self._height, self._width))
        self._output(TOPK_MAPS, TensorProto.FLOAT, (k, self._height, self._width))

    def _add_topk_classes(self, k: int) -> None:
        """The k best classes."""
        count = self._writer.constant(np.asarray([k], np.int64), "topk_count")
        logits = unused_name(self._graph, "topk_logits")
        self._graph.node.append(helper.make_node("TopK", [LOGITS, count], [logits, TOPK_CLASSES], axis=1))
        self._output(TOPK_CLASSES, TensorProto.INT64, (k,))

    def _add_weighted_sum(self, weights: str, name: str, shape: tuple[int, int, int]) -> None:
        """Zhou et al. 2016, equation 2: M_c(x,y) = sum_k W[c,k] f_k(x,y), as one matrix product."""
        writer = self._writer
        flat = writer.reshape(FEATURES, (0, self._channels, self._height * self._width), f"{name}_features")
        product = writer.node("MatMul", [weights, flat], f"{name}_flat")
        if isinstance(self._head.tail, Normed):
            scale = writer.reshape(CAM_SCALE, (-1, 1, 1), f"{name}_scale")
            product = writer.node("Mul", [product, scale], f"{name}_scaled")
        writer.reshape(product, (0, *shape), name)

    def _output_logits(self) -> None:
        if self._head.logits != LOGITS or LOGITS not in {value.name for value in self._graph.output}:
            self._output(LOGITS, TensorProto.FLOAT, (self._head.classes,))

    def _output(self, name: str, dtype: int, shape: tuple[int, ...]) -> None:
        self._graph.output.append(helper.make_tensor_value_info(name, dtype, [self._batch, *shape]))
