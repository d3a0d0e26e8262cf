"""Appends nodes and constants to an ONNX graph, under names that it does not have yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gapcam_export.graph import unused_name


class GraphWriter:
    """What is written goes to the end of the graph, after all that it may read.

    Args:
        graph: is changed.
        opset: version of ONNX's operator set that the graph is in.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph, self._opset = graph, opset
        self._numbers: dict[float, str] = {}

    def node(self, operator: str, inputs: list[str], wish: str, **attributes: Any) -> str:
        """Append a node with one output; the output's name is `wish`, or one like it."""
        name = unused_name(self.graph, wish)
        self.graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any], wish: str) -> str:
        """Append an initializer."""
        name = unused_name(self.graph, wish)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        """A float32 scalar among the initializers."""
        if value not in self._numbers:
            self._numbers[value] = self.constant(np.asarray(value, np.float32), f"number_{value:.6g}")
        return self._numbers[value]

    def reshape(self, name: str, shape: tuple[int, ...], wish: str) -> str:
        """A tensor in another shape; 0 keeps an axis, such as the batch, as it is."""
        return self.node("Reshape", [name, self.constant(np.asarray(shape, np.int64), f"{wish}_shape")], wish)

    def mean_of_rows(self, name: str, wish: str) -> str:
        """The mean over the last axis of [N,C]: [N,1]."""
        if self._opset < 18:
            return self.node("ReduceMean", [name], wish, axes=[1], keepdims=1)
        return self.node("ReduceMean", [name, self.constant(np.asarray([1], np.int64), "mean_axis")], wish, keepdims=1)
