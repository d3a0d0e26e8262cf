"""What is asked of a model in half precision before it is handed on."""

from __future__ import annotations

import onnx

from gapcam.errors import ModelError
from gapcam_export.section import onnx_session


def check_model(model: onnx.ModelProto, precision: str, *, runs_here: bool = True) -> None:
    """Refuse a model whose operators do not take the types that they get, or that ONNX Runtime does not load.

    Args:
        model: in half precision.
        precision: how messages call that.
        runs_here: False where ONNX Runtime has no kernels for it on a CPU.

    Raises:
        ModelError: it is so.
    """
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True)
        if runs_here:
            onnx_session(model)
    except (onnx.shape_inference.InferenceError, ModelError) as error:
        raise ModelError(
            f"the network cannot be written in {precision}: {' '.join(str(error).split())}. Leave it in float32, or "
            "export it with another opset or exporter."
        ) from error
