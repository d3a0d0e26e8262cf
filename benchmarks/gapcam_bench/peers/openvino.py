"""gapcam's ONNX file on OpenVINO, with the map in NumPy, as its users do with a model that has features."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gapcam_bench.peers.map_by_hand import MapByHand
from gapcam_bench.peers.no_telemetry import keep_openvino_quiet

FloatArray = NDArray[np.float32]
Precision = Literal["f32", "bf16"]


class OpenVino(MapByHand):
    """A model on OpenVINO's CPU device. It has nothing that makes or draws a map.

    Args:
        path: of the ONNX file.
        size: (H, W) of the network's input; its shape is made static, as OpenVINO's documentation advises.
        threads: that one inference may use.
        precision: in which it computes. Left to itself it takes bfloat16 on a CPU that has instructions for it.
    """

    def __init__(self, path: str, *, size: tuple[int, int], threads: int, precision: Precision = "f32") -> None:
        keep_openvino_quiet()
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        super().__init__(np.array(_constant(model.output("cam_weights")), np.float32))
        for output in list(model.outputs):  # a constant that is an output would be copied with every inference
            if output.any_name not in ("logits", "features"):
                model.remove_result(output.node)
        model.reshape([1, 3, *size])
        wanted = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        compiled = core.compile_model(model, "CPU", wanted)
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self.computes_in: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision: str | None = None if self.computes_in == "f32" else self.computes_in
        self._version, self._request = openvino.__version__.partition("-")[0], compiled.create_infer_request()
        self.notes: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        """Version and precision."""
        return f"openvino {self._version}, CPU, {self.computes_in}"

    def infer(self, image: FloatArray) -> Any:
        """Logits [1,K] and features [1,C,h,w]: views of the request's memory."""
        found = self._request.infer({"image": image}, share_inputs=True, share_outputs=True)
        return found["logits"], found["features"]

    def close(self) -> None:
        """Give the model back."""
        self._request = None


def _constant(output: Any) -> Any:
    """The value of an output that is a constant of the graph."""
    return output.node.input_value(0).get_node().data
