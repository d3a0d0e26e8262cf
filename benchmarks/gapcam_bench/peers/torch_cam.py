"""torch-cam's CAM, as its documentation shows it: a hook on the features, the map after a forward pass, its overlay."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchcam
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchcam.methods import CAM
from torchcam.utils import overlay_mask
from torchvision.transforms.functional import to_pil_image

from gapcam.frame import Frame
from gapcam_bench.peers.torch_compile import CompiledNetwork
from gapcam_bench.peers.torch_network import GapNetwork
from gapcam_bench.subjects.protocol import Answer

FloatArray = NDArray[np.float32]


class TorchCam:
    """A network under torch-cam.

    Its map is that of the features, [h,w], brought to [0, 1] by its least and greatest value.

    Args:
        network: to explain.
        compiled: by torch.compile, with the hook in the graph.
    """

    def __init__(self, network: GapNetwork, *, compiled: bool = False) -> None:
        self._cam = CAM(network, target_layer=network.features, fc_layer=network.fc)
        self._compiled = CompiledNetwork(network) if compiled else None
        self._network: Any = network if self._compiled is None else self._compiled.network
        self.notes: tuple[str, ...] = ()
        self.precision: str | None = None

    @property
    def engine(self) -> str:
        """Versions, and how the network runs."""
        how = "torch.compile" if self._compiled else "eager"
        return f"torch-cam {torchcam.__version__}, torch {torch.__version__} {how}"

    def infer(self, image: FloatArray) -> Tensor:
        """Logits, [1,K]; the hook keeps the features."""
        with torch.inference_mode():
            logits: Tensor = self._network(torch.from_numpy(image))
        if self._compiled and not self.notes:
            self.notes = (self._compiled.check(),)
        return logits

    def map(self, outputs: Tensor) -> FloatArray:
        """[h,w] in [0, 1]."""
        return np.asarray(self._cam(int(outputs.argmax()), outputs)[0][0].numpy(), np.float32)

    def draw(self, frame: Frame, heat: FloatArray) -> Frame:
        """By torch-cam's overlay_mask, which works on PIL's images; half and half."""
        rgb = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
        drawn = overlay_mask(rgb, to_pil_image(heat, mode="F"), alpha=0.5)
        return np.ascontiguousarray(np.asarray(drawn)[:, :, ::-1])

    def answer(self, image: FloatArray) -> Answer:
        """Logits, and the map before it is normalised."""
        logits = self.infer(image)
        raw = self._cam(int(logits.argmax()), logits, normalized=False)[0][0]
        return Answer(np.asarray(logits[0].numpy(), np.float32), np.asarray(raw.numpy(), np.float32))

    def close(self) -> None:
        """Take the hook off."""
        self._cam.remove_hooks()
