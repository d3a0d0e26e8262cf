"""Finds what must not be rounded to half precision in a graph's normalisations, be they one operator or many.

A normalisation divides by a deviation, x / sqrt(mean(x^2) + epsilon). In float16 an epsilon below 6e-8 is zero, squares
of values below 2.4e-4 are too, and those of values above 255 are infinite: a flat image then gives 0 / 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import onnx

from gapcam_export.section import Array

# What is added only so that nothing is divided by zero is this small, and one number.
_LARGEST_EPSILON = 1e-2
# They compute in the type of their data: in ONNX Runtime 1.31 GroupNormalization and MeanVarianceNormalization of a
# flat image are NaN in float16.
_OPERATORS = frozenset(
    {"InstanceNormalization", "GroupNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN"}
)
_RESHAPES = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Transpose", "Flatten"})
_ROOTS = frozenset({"Sqrt", "Reciprocal", "Pow"})
# From x to the mean of its squares.
_TO_SPREAD = _RESHAPES | {
    "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Abs", "Sqrt", "Pow", "Sub", "Neg",
}  # fmt: skip


def normalization_nodes(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> set[str]:
    """Names of the nodes, from x to the quotient, that normalisations are made of.

    LayerNormalization and RMSNormalization are not among them where they compute in float32 inside (`stash_type`).

    Args:
        graph: in float32; each of its nodes has a name of its own.
        constants: the graph's, by name.
    """
    search = _Search(graph, constants)
    found = {str(node.name) for node in graph.node if node.op_type in _OPERATORS or _is_stashed_in_half(node)}
    for node in graph.node:
        found |= search.around(node)
    return found


def _is_stashed_in_half(node: onnx.NodeProto) -> bool:
    return any(each.name == "stash_type" and each.i != onnx.TensorProto.FLOAT for each in node.attribute)


class _Search:
    def __init__(self, graph: onnx.GraphProto, constants: Mapping[str, Array]) -> None:
        self._constants = dict(constants)
        for node in graph.node:  # those that only pass through a Cast, as the epsilon of ONNX's own LayerNormalization
            if node.op_type in _RESHAPES and node.input[0] in self._constants:
                self._constants[node.output[0]] = self._constants[node.input[0]]
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)

    def around(self, node: onnx.NodeProto) -> set[str]:
        """The normalisation whose epsilon this node adds, or nothing."""
        epsilons = [name for name in node.input[:2] if self._is_epsilon(name)]
        if node.op_type not in ("Add", "Max", "Clip") or len(epsilons) != 1:
            return set()
        after = self._after(str(node.output[0]), inverted=False)
        if not after:
            return set()
        data = next(str(name) for name in node.input if name not in epsilons)
        return {str(node.name)} | after | self._before(data) | self._way_of_constant(epsilons[0])

    def _is_epsilon(self, name: str) -> bool:
        value = self._constants.get(name)
        return value is not None and value.size == 1 and 0 < float(value.reshape(())) <= _LARGEST_EPSILON

    def _way_of_constant(self, name: str) -> set[str]:
        """The Casts that a constant passes through."""
        found = set()
        while name in self._makers:
            found.add(str(self._makers[name].name))
            name = str(self._makers[name].input[0])
        return found

    def _after(self, tensor: str, *, inverted: bool) -> set[str]:
        """What makes the quotient of the shifted spread: up to and with the node that something else comes in at.

        Args:
            tensor: the spread, or what was made of it.
            inverted: a root or a reciprocal was taken.
        """
        found: set[str] = set()
        for reader in self._readers[tensor]:
            others = [name for name in reader.input if name != tensor]
            is_last = any(name not in self._constants for name in others)
            is_factor = reader.op_type in ("Mul", "Div") and inverted
            is_divisor = reader.op_type == "Div" and reader.input[1] == tensor
            if reader.op_type in _ROOTS or is_factor or is_divisor:
                rest = set() if is_last else self._after(str(reader.output[0]), inverted=True)
                found |= {str(reader.name)} | rest
            elif reader.op_type in _RESHAPES:
                rest = self._after(str(reader.output[0]), inverted=inverted)
                found |= {str(reader.name)} | rest if rest else set()
        return found

    def _before(self, tensor: str) -> set[str]:
        """What makes the spread of x: squares, means, the subtraction of the mean."""
        found: set[str] = set()
        waiting = [tensor]
        while waiting:
            node = self._makers.get(waiting.pop())
            if node is None or str(node.name) in found or not self._makes_spread(node):
                continue
            found.add(str(node.name))
            waiting += [str(name) for name in node.input if name not in self._constants]
        return found

    def _makes_spread(self, node: onnx.NodeProto) -> bool:
        if node.op_type in ("Mul", "Div"):  # a square, or a mean from a sum
            variables = {name for name in node.input if name not in self._constants}
            return len(variables) == 1
        return node.op_type in _TO_SPREAD
