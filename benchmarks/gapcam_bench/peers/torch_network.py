"""The demo's network in torch, with its ImageNet weights: what the torch peers explain."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from gapcam_export.demo import efficientnet_lite0, efficientnet_lite0_checkpoint


class GapNetwork(nn.Module):
    """Features, global average pooling, an affine layer: with a module whose output is what is pooled.

    Libraries for maps hook a module. EfficientNet-Lite0's last activation is one module with its first (and its last
    BatchNorm comes before that activation), so its features need a module of their own.

    Args:
        features: [N,3,H,W] to [N,C,h,w].
        fc: [N,C] to [N,K].
    """

    def __init__(self, features: nn.Module, fc: nn.Linear) -> None:
        super().__init__()
        self.features, self.fc = features, fc
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits, [N,K]."""
        return cast(Tensor, self.fc(self.pool(self.features(image)).flatten(1)))


def demo_network() -> GapNetwork:
    """EfficientNet-Lite0, ready for inference on a CPU: its weights, and so its features, have their channels last.

    That is what PyTorch's documentation advises for convolutions on a CPU. Eager inference takes a fifth less so, with
    Grad-CAM's backward pass some percent less; torch.compile chooses layouts itself, and takes as long.

    Raises:
        MissingExtraError: the packages of the extra `demo` are not installed.
    """
    network = efficientnet_lite0()
    network.load_state_dict(torch.load(efficientnet_lite0_checkpoint(), weights_only=True))
    fc = cast(nn.Linear, network.get_submodule("_fc"))
    return GapNetwork(_Features(network), fc).eval().to(memory_format=torch.channels_last)


class _Features(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self._network.extract_features(image))  # type: ignore[operator]  # a method, not a module
