"""A float16 model from a float32 one: what float16 cannot hold stays in float32, by name.

ONNX Runtime has few float16 kernels for the CPU: mostly it computes in float32 there, from float16 weights, and rounds
nothing in between. How a model answers where each tensor is rounded, as in TensorRT, is seen on its emulation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx
from onnx import TensorProto

from gapcam_export.precision.emulation import emulate
from gapcam_export.precision.half_converter import constants_to_initializers, lower_nodes
from gapcam_export.precision.half_model import check_model
from gapcam_export.precision.kept_nodes import kept_nodes
from gapcam_export.precision.observed_tensors import observe_tensors
from gapcam_export.section import Array


def to_float16(
    model: onnx.ModelProto, *, head: Collection[str], images: Sequence[Array], notes: list[str]
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Lower a model to float16. Its inputs and outputs keep their names and types.

    In float32 stay, beside the head: normalisations from x to the quotient, whose epsilons would vanish and whose
    squares would overflow; nodes that give or read values beyond a quarter of float16's range, on these images or among
    the constants, or tensors that are all smaller than its normal numbers; operators without a float16 form, and those
    with subgraphs (If, Loop); the scaling of uint8 pixels.

    Args:
        model: in float32, with the contract's outputs; each node has a name of its own (`name_nodes`). Not changed.
        head: names of the nodes that stay in float32 because they are the head, or none.
        images: each as `image` wants it, without batch axis.
        notes: gets what stays in float32, and why.

    Returns:
        The model, and its emulation in float32. `features` are float16 values in a float32 tensor: exactly what the
        head reads.

    Raises:
        ModelError: ONNX Runtime does not run the model, or not what became of it.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    constants_to_initializers(prepared.graph)
    seen = observe_tensors(prepared, images)
    dtypes = {name: each.dtype for name, each in seen.items()}
    greatest = {name: each.greatest for name, each in seen.items()}
    kept = kept_nodes(prepared, head, dtypes, greatest, TensorProto.FLOAT16, notes)
    half = lower_nodes(prepared, kept, dtypes, TensorProto.FLOAT16)
    check_model(half, "float16")
    emulation = emulate(prepared, kept, dtypes, TensorProto.FLOAT16)
    check_model(emulation, "float16")
    return half, emulation
