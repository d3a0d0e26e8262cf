"""grad-cam's GradCAM, as its documentation shows it: forward, backward, and its overlay.

Of a network that ends in global average pooling and one affine layer, Grad-CAM's map is the class activation map times
1 / (h w), without its negative values (Selvaraju et al. 2017, section 3.1): the same map, found by a backward pass.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image

from gapcam.frame import Frame
from gapcam_bench.peers.torch_compile import CompiledNetwork
from gapcam_bench.peers.torch_network import GapNetwork
from gapcam_bench.subjects.protocol import Answer

FloatArray = NDArray[np.float32]

_ONE_CALL = "grad-cam's one call does the forward pass, the backward pass and the map: all of it is under inference"


class GradCam:
    """A network under grad-cam.

    Its map has the size of the network's input, and is brought to [0, 1] after negative values became 0. Its one call
    does the forward pass, the backward pass and the map: all of that is "inference" here.

    Args:
        network: to explain.
        compiled: by torch.compile: the forward pass and what AOTAutograd makes of the backward pass.
    """

    def __init__(self, network: GapNetwork, *, compiled: bool = False) -> None:
        self._features = network.features
        self._compiled = CompiledNetwork(network) if compiled else None
        self._cam = GradCAM(network if self._compiled is None else self._compiled.network, [network.features])
        self.notes: tuple[str, ...] = (_ONE_CALL,)
        self.precision: str | None = None

    @property
    def engine(self) -> str:
        """Versions, and how the network runs."""
        how = "torch.compile" if self._compiled else "eager"
        return f"grad-cam {version('grad-cam')}, torch {torch.__version__} {how}"

    def infer(self, image: FloatArray) -> FloatArray:
        """The map."""
        heat: FloatArray = self._cam(torch.from_numpy(image), targets=None)[0]
        if self._compiled and len(self.notes) == 1:
            self.notes = (_ONE_CALL, self._compiled.check())
        return heat

    def map(self, outputs: FloatArray) -> FloatArray:
        """[H,W] of the network's input, in [0, 1]."""
        return outputs

    def draw(self, frame: Frame, heat: FloatArray) -> Frame:
        """By grad-cam's show_cam_on_image, which works on floats; half and half."""
        height, width = frame.shape[:2]
        mask = cv2.resize(heat, (width, height))
        return np.asarray(show_cam_on_image(np.float32(frame) / 255, mask), np.uint8)

    def answer(self, image: FloatArray) -> Answer:
        """Logits, and the map in the features' resolution, with its negative values."""
        self.infer(image)
        logits = self._cam.outputs[0].detach().numpy()
        kept: Any = self._cam.activations_and_grads
        features, gradients = kept.activations[0].numpy(), kept.gradients[0].numpy()
        raw = self._cam.get_cam_image(torch.from_numpy(image), self._features, [], features, gradients)
        return Answer(np.asarray(logits, np.float32), np.asarray(raw[0], np.float32))

    def close(self) -> None:
        """Take the hooks off."""
        self._cam.activations_and_grads.release()
