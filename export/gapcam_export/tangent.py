"""Writes a nonlinear head's gradient at each image into the graph: Grad-CAM (Selvaraju et al. 2017) without autograd.

For the k best classes the gradient is taken backwards, from the classes' rows of the last layer to the pooled vector;
for the maps of all classes forwards, from the features at each position to the logits, which costs fewer products where
classes outnumber positions. Both use the layers' own constants.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from gapcam.contract import FEATURES, TOPK_BIAS, TOPK_CLASSES, TOPK_WEIGHTS
from gapcam_export.affine import Affine
from gapcam_export.graph import rename_tensor
from gapcam_export.graph_writer import GraphWriter
from gapcam_export.nonlinear import Chain, Layer


class Tangent:
    """A chain's gradient in a graph.

    Args:
        writer: to the graph.
        chain: what leads from the pooled vector to the logits in it.
    """

    def __init__(self, writer: GraphWriter, chain: Chain) -> None:
        self._writer, self._layers = writer, chain.layers
        self._slopes = [
            None
            if layer.activation is None
            else layer.activation.write_derivative(
                writer, writer.node("Flatten", [layer.preactivation], "preactivation", axis=1)
            )
            for layer in chain.layers
        ]
        self._matrices = [None if layer.affine is None else self._matrix(layer.affine) for layer in chain.layers]

    def write_rows(self, k: int) -> None:
        """`topk_weights` [N,k,C], d logit / d pooled of `topk_classes`; `topk_bias` [N,k], logit - row . pooled.

        The bias is summed up on the way back through the layers, without the logit and the finished row, so that the
        runtime's check finds a wrong one of them.

        Args:
            k: how many classes.
        """
        writer = self._writer
        *before, last = zip(self._layers, self._matrices, self._slopes, strict=True)
        assert last[0].affine is not None and last[1] is not None  # noqa: S101, PT018  # so it is in every chain
        rows = writer.node("Gather", [last[1], TOPK_CLASSES], "topk_rows", axis=0)
        bias = writer.node("Gather", [writer.constant(last[0].affine.bias, "cam_shift"), TOPK_CLASSES], TOPK_BIAS)
        for layer, matrix, slope in reversed(before):
            if slope is not None:
                column = writer.reshape(self._left_over(layer, slope), (0, -1, 1), "left_over_column")
                share = writer.reshape(writer.node("MatMul", [rows, column], "topk_shares"), (0, k), "topk_share")
                bias = writer.node("Add", [bias, share], TOPK_BIAS)
                rows = writer.node("Mul", [rows, writer.reshape(slope, (0, 1, -1), "slope_row")], "topk_rows")
            if matrix is not None:
                rows = writer.node("MatMul", [rows, matrix], "topk_rows")
        rename_tensor(writer.graph, rows, TOPK_WEIGHTS)
        rename_tensor(writer.graph, bias, TOPK_BIAS)

    def write_maps(self, channels: int, positions: int) -> str:
        """Every class's map, [N,K,h*w]: gives its name.

        Args:
            channels: C of `features`.
            positions: h * w.
        """
        writer = self._writer
        moved = writer.reshape(FEATURES, (0, channels, positions), "tangent")
        for matrix, slope in zip(self._matrices, self._slopes, strict=True):
            if matrix is not None:
                moved = writer.node("MatMul", [matrix, moved], "tangent")
            if slope is not None:
                moved = writer.node("Mul", [moved, writer.reshape(slope, (0, -1, 1), "slope_column")], "tangent")
        return moved

    def _left_over(self, layer: Layer, slope: str) -> str:
        """What a layer's tangent adds to A x, x what goes into it: y - s'(z) (z - b), of z = A x + b and y = s(z)."""
        writer = self._writer
        product = writer.node("Flatten", [layer.preactivation], "preactivation", axis=1)
        if layer.affine is not None and layer.affine.bias.any():
            product = writer.node("Sub", [product, writer.constant(layer.affine.bias, "cam_shift")], "without_bias")
        moved = writer.node("Mul", [slope, product], "slope_product")
        return writer.node("Sub", [writer.node("Flatten", [layer.output], "activated", axis=1), moved], "left_over")

    def _matrix(self, affine: Affine) -> str:
        """The name of W [K,C]: the graph's own constant, turned where it lies otherwise, or a new one."""
        writer = self._writer
        stored = next((tensor for tensor in writer.graph.initializer if tensor.name == affine.stored), None)
        if stored is None:
            return writer.constant(affine.weights, "cam_layer")
        name, value = str(stored.name), numpy_helper.to_array(stored)
        if value.dtype != np.float32:
            name = writer.node("Cast", [name], "cam_layer_float", to=TensorProto.FLOAT)
        if value.ndim == 2 and np.array_equal(value.T, affine.weights):
            return writer.node("Transpose", [name], "cam_layer", perm=[1, 0])
        if value.shape == affine.weights.shape:
            return name
        return writer.reshape(name, affine.weights.shape, "cam_layer")
