"""Keeps layers in float32 that were left in float32, also from ONNX Runtime.

Since version 1.21 it quantises, when it loads a model, the float32 weights of each convolution and Gemm whose input
comes from a DequantizeLinear and whose output goes into a QuantizeLinear, be it through an activation (its optimiser
WeightBiasQuantization): with one scale for all weights, which is far coarser than one a channel, so that a layer that
was kept for its sensitivity is worse off than the others. A Clip without bounds between the DequantizeLinear and the
layer changes no value, and the layer is not what that optimiser looks for.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from gapcam_export.graph import unused_name


def shield_float_layers(model: onnx.ModelProto, layers: Collection[str]) -> None:
    """Put a Clip without bounds before each of these layers that reads a DequantizeLinear, in place.

    Args:
        model: in opset 11 or newer.
        layers: names of the nodes that are to compute in float32.
    """
    graph = model.graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    kept = [index for index, node in enumerate(graph.node) if node.name in layers and node.input[0] in dequantized]
    for index in reversed(kept):
        node = graph.node[index]
        shielded = unused_name(graph, f"{node.input[0]}_float32")
        clip = helper.make_node("Clip", [node.input[0]], [shielded], name=f"{node.name}_shield")
        node.input[0] = shielded
        graph.node.insert(index, clip)
