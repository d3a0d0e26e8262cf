"""A bfloat16 model from a float32 one, and a float32 model that rounds as it does.

ONNX Runtime has no bfloat16 kernels for the CPU, so the model itself is for TensorRT; what it answers is measured on
the other one.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import TensorProto, version_converter

from gapcam.errors import ModelError
from gapcam_export.graph import opset_of
from gapcam_export.precision.emulation import emulate
from gapcam_export.precision.half_converter import constants_to_initializers, lower_nodes
from gapcam_export.precision.half_model import check_model
from gapcam_export.precision.kept_nodes import kept_nodes
from gapcam_export.precision.observed_tensors import observe_tensors

# The first in which Conv, pooling and most activations may be bfloat16.
_OPSET = 22


def to_bfloat16(
    model: onnx.ModelProto, *, head: Collection[str], notes: list[str]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Lower a model to bfloat16. Its inputs and outputs keep their names and types.

    In float32 stay, beside the head: normalisations from x to the quotient, which bfloat16's eight bits would round
    before they are subtracted; operators without a bfloat16 form, and those with subgraphs (If, Loop); the scaling of
    uint8 pixels. Nothing overflows or vanishes: bfloat16 has float32's range.

    Args:
        model: in float32, with the contract's outputs; each node has a name of its own (`name_nodes`). Not changed.
        head: names of the nodes that stay in float32 because they are the head, or none.
        notes: gets what stays in float32, and why.

    Returns:
        The model, in opset 22 or newer, and its emulation in float32. `features` are bfloat16 values in a float32
        tensor: exactly what the head reads.

    Raises:
        ModelError: ONNX cannot bring the model to opset 22, or ONNX Runtime does not run it or its emulation.
    """
    prepared = _in_opset(model)
    constants_to_initializers(prepared.graph)
    dtypes = {name: each.dtype for name, each in observe_tensors(prepared, []).items()}
    kept = kept_nodes(prepared, head, dtypes, {}, TensorProto.BFLOAT16, notes)
    half = lower_nodes(prepared, kept, dtypes, TensorProto.BFLOAT16)
    check_model(half, "bfloat16", runs_here=False)
    emulation = emulate(prepared, kept, dtypes, TensorProto.BFLOAT16)
    check_model(emulation, "bfloat16")
    return half, emulation


def _in_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    if opset_of(model) >= _OPSET:
        return newer
    if model.functions:
        listed = ", ".join(sorted(function.name for function in model.functions))
        raise ModelError(
            f"bfloat16 needs operators of opset {_OPSET}, and ONNX cannot bring the model's own functions ({listed}) "
            "there. Inline them in its source (onnx.inliner.inline_local_functions), and export that."
        )
    try:
        converted = version_converter.convert_version(newer, _OPSET)
    except RuntimeError as error:  # as ONNX says that it cannot
        raise ModelError(
            f"bfloat16 needs operators of opset {_OPSET}, and ONNX cannot bring the model there from opset "
            f"{opset_of(model)}: {' '.join(str(error).split())}. Export it from its source with --opset {_OPSET}."
        ) from error
    for new, old in ((converted.graph.input, model.graph.input), (converted.graph.output, model.graph.output)):
        del new[:]
        new.extend(old)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted
