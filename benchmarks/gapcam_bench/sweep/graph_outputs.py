"""The same graph with other outputs: what a cell's `emit` asks for, and no more.

ONNX Runtime computes every output of a graph, asked for or not; so a graph that is to be measured must not have more.

`maps` and `topk` come with `features`, as `gapcam export --emit` writes them: what is measured is what a user of that
option gets. A map's check computes it from those features. No subject asks for them there; where an engine writes all
its outputs anyhow (TensorRT), these [C,h,w] floats are part of such a row's inference and price.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gapcam import contract as names
from gapcam.atomic_file import write_atomically
from gapcam.contract import HeadKind
from gapcam.errors import ModelError
from gapcam_bench.cell import Emit
from gapcam_export.graph import opset_of, remove_unused
from gapcam_export.graph_writer import GraphWriter

TOP = 5
"""Classes whose maps `topk` gives, where the model itself does not say."""

_MADE = (names.MAPS, names.TOPK_CLASSES, names.TOPK_MAPS)


def write_with_outputs(model: Path, output: Path, emit: Emit, head: HeadKind | None) -> bool:
    """Write a model's graph with the outputs that `emit` asks for; nothing where it has just these.

    | emit       | outputs                                                                               |
    | ---------- | ------------------------------------------------------------------------------------- |
    | `plain`    | `logits` alone; of a model without a contract, all that it has                         |
    | `features` | those that the contract's head needs for a map                                         |
    | `maps`     | these, and `maps`: M_c = sum_k W[c,k] f_k of every class                                |
    | `topk`     | these, and `topk_classes` and `topk_maps`: the same of the 5 best classes               |

    Args:
        model: an ONNX file.
        output: the file to write, weights inside.
        emit: see above.
        head: of the model's contract; None without.

    Returns:
        Whether it was written.

    Raises:
        ModelError: the graph does not have what the head needs.
        DataError: the file cannot be written.
    """
    if head is None:
        return False
    proto = onnx.load(model)
    before = [value.name for value in proto.graph.output]
    kept = [value for value in proto.graph.output if _stays(value.name, emit, head)]
    if not any(value.name == names.LOGITS for value in kept):
        raise ModelError(f"{model.name} has no output {names.LOGITS}; export it again")
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    there = {value.name for value in kept}
    if emit == "maps" and names.MAPS not in there:
        _add_maps(proto, head, model.name)
    if emit == "topk" and names.TOPK_MAPS not in there:
        _add_topk_maps(proto, head, model.name)
    if [value.name for value in proto.graph.output] == before:
        return False
    remove_unused(proto.graph)
    write_atomically(output, proto.SerializeToString())
    return True


def _stays(name: str, emit: Emit, head: HeadKind) -> bool:
    if emit == "plain":
        return name == names.LOGITS
    if name == names.TOPK_CLASSES and head is HeadKind.NONLINEAR:
        return True
    if name in _MADE:
        return (name == names.MAPS) == (emit == "maps") and emit in ("maps", "topk")
    return True


def _add_maps(proto: onnx.ModelProto, head: HeadKind, name: str) -> None:
    """Zhou et al. 2016, equation 2, as one matrix product; of a head that gives class maps, these."""
    graph, writer = proto.graph, GraphWriter(proto.graph, opset_of(proto))
    batch, channels, height, width = _features(graph, name)
    if head is HeadKind.CLASS_MAPS:
        writer.node("Identity", [names.FEATURES], names.MAPS)
        classes = channels
    else:
        classes = _shape(graph, names.CAM_WEIGHTS, name)[0]
        _weighted_sum(writer, names.CAM_WEIGHTS, names.MAPS, (channels, height, width), classes, head)
    _output(graph, names.MAPS, TensorProto.FLOAT, [batch, classes, height, width])


def _add_topk_maps(proto: onnx.ModelProto, head: HeadKind, name: str) -> None:
    graph, writer = proto.graph, GraphWriter(proto.graph, opset_of(proto))
    batch, channels, height, width = _features(graph, name)
    if head is HeadKind.NONLINEAR:
        best = _shape(graph, names.TOPK_WEIGHTS, name)[1]
        _weighted_sum(writer, names.TOPK_WEIGHTS, names.TOPK_MAPS, (channels, height, width), best, head)
        _output(graph, names.TOPK_MAPS, TensorProto.FLOAT, [batch, best, height, width])
        return
    best = min(TOP, int(_shape(graph, names.LOGITS, name)[1]))
    if names.TOPK_CLASSES not in {value.name for value in graph.output}:
        count = writer.constant(np.asarray([best], np.int64), "topk_count")
        graph.node.append(helper.make_node("TopK", [names.LOGITS, count], ["topk_logits", names.TOPK_CLASSES], axis=1))
        _output(graph, names.TOPK_CLASSES, TensorProto.INT64, [batch, best])
    if head is HeadKind.CLASS_MAPS:
        index = writer.reshape(names.TOPK_CLASSES, (0, best, 1), "topk_index")
        writer.node("GatherND", [names.FEATURES, index], names.TOPK_MAPS, batch_dims=1)
    else:
        rows = writer.node("Gather", [names.CAM_WEIGHTS, names.TOPK_CLASSES], "topk_rows", axis=0)
        _weighted_sum(writer, rows, names.TOPK_MAPS, (channels, height, width), best, head)
    _output(graph, names.TOPK_MAPS, TensorProto.FLOAT, [batch, best, height, width])


def _weighted_sum(
    writer: GraphWriter, weights: str, name: str, features: tuple[int, int, int], rows: int, head: HeadKind
) -> None:
    channels, height, width = features
    flat = writer.reshape(names.FEATURES, (0, channels, height * width), f"{name}_features")
    product = writer.node("MatMul", [weights, flat], f"{name}_flat")
    if head is HeadKind.LAYERNORM:
        scale = writer.reshape(names.CAM_SCALE, (-1, 1, 1), f"{name}_scale")
        product = writer.node("Mul", [product, scale], f"{name}_scaled")
    writer.reshape(product, (0, rows, height, width), name)


def _features(graph: onnx.GraphProto, name: str) -> tuple[int | str, int, int, int]:
    batch, *sides = _shape(graph, names.FEATURES, name)
    if len(sides) != 3 or not all(isinstance(side, int) for side in sides):
        raise ModelError(f"{name} leaves the sides of {names.FEATURES} open ({sides}); export it with a fixed --size")
    channels, height, width = (int(side) for side in sides)
    return batch, channels, height, width


def _shape(graph: onnx.GraphProto, output: str, name: str) -> list[Any]:
    for value in graph.output:
        if value.name == output:
            return [dim.dim_value or dim.dim_param or "N" for dim in value.type.tensor_type.shape.dim]
    raise ModelError(f"{name} has no output {output}, which its head needs for a map; export it again")


def _output(graph: onnx.GraphProto, name: str, dtype: int, shape: list[int | str]) -> None:
    graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
