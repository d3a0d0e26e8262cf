"""An ONNX source as something that answers: the model as its file has it, before anything of it was changed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from gapcam.contract import LOGITS
from gapcam.errors import ModelError
from gapcam_export.class_outputs import FLOATS
from gapcam_export.errors import SourceError
from gapcam_export.image_input import ImageInput
from gapcam_export.section import Array, onnx_session, run_session
from gapcam_export.verify import ONNX_TOLERANCE

# Of the largest logit. Rounding to float16 lost at most 5e-4 in ResNet, DenseNet, EfficientNet and Swin with random
# weights; networks with larger values lose more, a wrong weight loses all.
HALF_TOLERANCE = 1e-2


class OnnxReference:
    """An ONNX model with the outputs of floats that it has of its own, fed in the layout and type that it wants.

    Args:
        model: as its file has it; it may change later.
        image: its input.
        logits: its tensor of logits, which is compared where no output holds floats, and alone where it is in float16:
            what float16 loses of the logits, a Softmax makes more of.
        half: "float16" or "bfloat16" where the model computes in it, else "".
        source: how messages call the model.

    Raises:
        SourceError: there is nothing in it to compare with.
        ModelError: ONNX Runtime does not run the model.
    """

    name = "onnxruntime"

    def __init__(self, model: onnx.ModelProto, image: ImageInput, logits: str, *, half: str, source: str) -> None:
        self.tolerance = HALF_TOLERANCE if half else ONNX_TOLERANCE
        self._image = image
        outputs = [value.name for value in model.graph.output]
        is_float = [value.type.tensor_type.elem_type in FLOATS for value in model.graph.output]
        by_name = {name: node.op_type for node in model.graph.node for name in node.output}
        has_logits = by_name.get(logits) != "LinearClassifier"  # that has its Softmax inside
        self._positions = [position for position, floats in enumerate(is_float) if floats]
        if half and has_logits:
            self._positions = []
        elif not self._positions and not has_logits:
            raise SourceError(f"{source} gives labels alone; expected scores among its outputs. Export it with them.")
        self._read = [outputs[position] for position in self._positions] or [logits]
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        if logits not in outputs and not self._positions:
            exposed.graph.output.append(onnx.ValueInfoProto(name=logits))
        try:
            self._session = onnx_session(exposed)
        except ModelError as error:
            if half != "bfloat16":
                raise
            raise ModelError(
                f"{source} computes in bfloat16, and this ONNX Runtime does not on a CPU, so nothing can be verified. "
                "Export it in float32 or float16."
            ) from error
        self._names: Sequence[str] = [LOGITS]

    def rename(self, outputs: Sequence[str]) -> None:
        """Say what the model's outputs are called by now, in their order."""
        if self._positions:
            self._names = [outputs[position] for position in self._positions]

    def __call__(self, image: Array) -> dict[str, Array]:
        """See `gapcam_export.verify.Reference`."""
        values = run_session(self._session, self._read, {self._image.name: self._image.feed(image)})
        return {name: values[read][0].astype("float32") for name, read in zip(self._names, self._read, strict=True)}
