"""What the tensors inside a model are on real images: their types, and how large their values get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from gapcam.errors import ModelError
from gapcam_export.graph import graph_inputs
from gapcam_export.section import Array, onnx_session, run_session

# Tensors whose values are held at the same time: bounds the memory that this takes.
_TENSORS_OBSERVED = 64


@dataclass(frozen=True)
class ObservedTensor:
    """What a tensor was on all images.

    Attributes:
        dtype: as ONNX numbers it.
        greatest: of the absolute values of its finite elements over all images; 0 where it holds no floats.
    """

    dtype: int
    greatest: float


def observe_tensors(model: onnx.ModelProto, images: Sequence[Array]) -> dict[str, ObservedTensor]:
    """Look at every tensor that a node of the main graph makes; sequences and the like are left out.

    Beside the images a flat one is looked at, whose pixels are all zero: it brings normalisations to their epsilons.

    Args:
        model: in float32, with one input.
        images: each as the input wants it, without batch axis.

    Raises:
        ModelError: ONNX Runtime does not run the model.
    """
    (fed,) = graph_inputs(model.graph)
    shape = [dim.dim_value or 1 for dim in fed.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(fed.type.tensor_type.elem_type)
    batches = [np.repeat(image[None], shape[0], axis=0) for image in images] + [np.zeros(shape, dtype)]
    names = [name for node in model.graph.node for name in node.output if name]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnx_session(probe)
    seen: dict[str, ObservedTensor] = {}
    for batch in batches:
        for begin in range(0, len(names), _TENSORS_OBSERVED):
            part = names[begin : begin + _TENSORS_OBSERVED]
            for name, value in run_session(session, part, {fed.name: batch}).items():
                if isinstance(value, np.ndarray):
                    known = seen.get(name, ObservedTensor(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), 0.0))
                    seen[name] = ObservedTensor(known.dtype, max(known.greatest, greatest_value(value)))
    if not seen:
        raise ModelError("the model computes nothing; expected a network.")
    return seen


def greatest_value(values: Array) -> float:
    """The greatest absolute value that is finite, or 0: infinities are infinities in every precision."""
    if values.dtype.kind != "f":
        return 0.0
    sizes = np.abs(values)
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
