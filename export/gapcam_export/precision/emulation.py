"""A float32 model that rounds its tensors to half precision where a lowered one has them in half precision.

Each operator computes in float32 from rounded values, and what it gives is rounded: as tensor cores do, which multiply
in half precision and add up in float32. So the numbers of a model can be seen where no kernels run it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gapcam_export.graph import graph_inputs, remove_unused, tensor_names
from gapcam_export.precision.half_converter import rounded_to
from gapcam_export.precision.half_forms import FLOAT32_INPUTS
from gapcam_export.section import Array


def emulate(model: onnx.ModelProto, kept: Collection[str], dtypes: Mapping[str, int], half: int) -> onnx.ModelProto:
    """A model that ONNX Runtime runs in float32, with the tensors of `lower_nodes(model, kept, dtypes, half)`.

    Args:
        model: see `lower_nodes`.
        kept: likewise.
        dtypes: likewise.
        half: likewise.
    """
    emulation = onnx.ModelProto()
    emulation.CopyFrom(model)
    _Rounding(emulation.graph, dtypes, half).round_nodes(kept)
    remove_unused(emulation.graph)
    return emulation


class _Rounding:
    def __init__(self, graph: onnx.GraphProto, dtypes: Mapping[str, int], half: int) -> None:
        self._graph, self._half = graph, half
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        types = {value.name: value.type.tensor_type.elem_type for value in graph_inputs(graph)}
        types.update({name: tensor.data_type for name, tensor in self._constants.items()})
        types.update(dtypes)
        self._floats = {name for name, dtype in types.items() if dtype == TensorProto.FLOAT}
        self._rounded: dict[str, str] = {}  # names by those of what was rounded
        self._taken = tensor_names(graph)

    def round_nodes(self, kept: Collection[str]) -> None:
        """Let every other node read and give rounded values."""
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for node in nodes:
            is_lowered = node.name not in kept
            if is_lowered:
                stay = FLOAT32_INPUTS.get(node.op_type, set())
                for position, name in enumerate(node.input):
                    if name in self._floats and position not in stay:
                        node.input[position] = self._round(name)
            self._graph.node.append(node)
            if is_lowered:
                appended = self._graph.node[-1]
                for position, name in enumerate(node.output):
                    if name in self._floats:
                        appended.output[position] = self._name(f"{name}_unrounded")
                        self._cast(appended.output[position], name)
                        self._rounded[name] = name

    def _round(self, name: str) -> str:
        if name not in self._rounded:
            outputs = {value.name for value in self._graph.output}
            constant = self._constants.get(name)
            self._rounded[name] = name if name in outputs and constant else self._name(f"{name}_rounded")
            if constant is None:
                self._cast(name, self._rounded[name])
            else:
                values: Array = rounded_to(numpy_helper.to_array(constant), self._half).astype(np.float32)
                tensor = numpy_helper.from_array(values, self._rounded[name])
                if self._rounded[name] == name:
                    constant.CopyFrom(tensor)
                else:
                    self._graph.initializer.append(tensor)
        return self._rounded[name]

    def _cast(self, source: str, target: str) -> None:
        half = self._name(f"{target}_half")
        self._graph.node.append(helper.make_node("Cast", [source], [half], to=self._half))
        self._graph.node.append(helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT))

    def _name(self, wish: str) -> str:
        """`wish`, or a longer one where the graph has such a tensor already."""
        while wish in self._taken:
            wish += "_"
        self._taken.add(wish)
        return wish
