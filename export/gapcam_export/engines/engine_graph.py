"""The graph that an engine is built from: an exported model without what an engine should not compute or copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from gapcam.contract import CAM_BIAS, CAM_WEIGHTS, IMAGE, MAPS, Contract, HeadKind
from gapcam.errors import ModelError
from gapcam_export.graph import graph_inputs, remove_unused

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class EngineGraph:
    """What goes to TensorRT, and what goes beside the plan.

    Attributes:
        content: the ONNX model as bytes.
        constants: `cam_weights` [K,C] and `cam_bias` [K], where the head has them.
        dropped: other outputs that were taken out.
        image_shape: of the input; None for a symbolic side.
    """

    content: bytes
    constants: Mapping[str, FloatArray]
    dropped: tuple[str, ...]
    image_shape: tuple[int | None, ...]


def engine_graph(model: onnx.ModelProto, contract: Contract, name: str, *, maps: bool) -> EngineGraph:
    """Take out, in place, outputs that are constants, and every class's map.

    As outputs, constants would be copied at each inference. `maps` would cost more than the network's head; it stays
    where it was asked for, and of a nonlinear head, whose other classes have no rows.

    Args:
        model: an exported model, its weights inside.
        contract: its contract.
        name: how messages call it.
        maps: keep the output `maps`.

    Raises:
        ModelError: it has other inputs than `image`, a constant is none, or it was quantised for a CPU.
    """
    _refuse_cpu_integers(model, contract, name)
    constants = {}
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    for output in (CAM_WEIGHTS, CAM_BIAS):
        if output not in outputs:
            continue
        if output not in known:
            raise ModelError(f"{name} computes {output}, which should be a constant; export it again")
        constants[output] = numpy_helper.to_array(known[output]).astype(np.float32)
    keeps_maps = maps or contract.head.kind is HeadKind.NONLINEAR
    dropped = (MAPS,) if MAPS in outputs and not keeps_maps else ()
    kept = [value for value in model.graph.output if value.name not in {*constants, *dropped}]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    remove_unused(model.graph)
    inputs = graph_inputs(model.graph)
    if [value.name for value in inputs] != [IMAGE]:
        listed = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"{name} has the inputs {listed}; expected one, {IMAGE!r}. Export it again")
    (image,) = inputs
    shape = tuple(dim.dim_value or None for dim in image.type.tensor_type.shape.dim)
    return EngineGraph(model.SerializeToString(), constants, dropped, shape)


def _refuse_cpu_integers(model: onnx.ModelProto, contract: Contract, name: str) -> None:
    """TensorRT reads symmetric int8 alone: no uint8, no zero points, no int32 biases behind DequantizeLinear."""
    target = contract.quantization.target if contract.quantization is not None else None
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = known.get(node.input[2]) if len(node.input) > 2 else None
        wrong = zero is not None and (zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any())
        if wrong or (node.input[0] in known and known[node.input[0]].data_type == TensorProto.INT32):
            made_for = f"was quantised for {target}" if target not in (None, "tensorrt") else "is quantised"
            raise ModelError(
                f"{name} {made_for} with integers that TensorRT does not read ({node.op_type} {node.name!r}: uint8, a "
                "zero point, or an int32 bias); quantise the float32 model with: gapcam quantize MODEL.onnx -o "
                "model.int8.onnx --calibrate DIR --target tensorrt"
            )
