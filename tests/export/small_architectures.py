"""Architectures of torchvision's and timm's at a small size, and unusual ways of writing the end of a network."""

from __future__ import annotations

import timm
import torch
import torchvision
from networks import GapNetwork, ThreeLayers, seeded
from torch import Tensor, nn


def swin() -> nn.Module:
    """[N,h,w,C], normed before the pooling."""
    return seeded(
        lambda: torchvision.models.SwinTransformer(
            patch_size=[4, 4], embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4], num_classes=9
        )
    )


def densenet() -> nn.Module:
    """Ends in a functional ReLU that overwrites what `features` gave."""
    return seeded(
        lambda: torchvision.models.DenseNet(
            growth_rate=4, block_config=(2, 2, 2), num_init_features=8, bn_size=2, num_classes=9
        )
    )


def squeezenet() -> nn.Module:
    """A convolution to the classes, ReLU, GAP."""
    return seeded(lambda: torchvision.models.SqueezeNet("1_1", num_classes=9))


def convnext() -> nn.Module:
    """GAP, LayerNorm, a linear layer."""
    return seeded(lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=9))


class RootMeanSquareHead(GapNetwork):
    """A normalisation after the pooling that subtracts no mean."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.RMSNorm(12), nn.Linear(12, 5))


class Overwritten(ThreeLayers):
    """A nonlinear head on features that a statement has changed in place: what it returns is not used."""

    def features(self, image: Tensor) -> Tensor:
        x = super().features(image) - 0.5
        x.clamp_(min=0)
        return x


class OverwrittenLater(ThreeLayers):
    """A nonlinear head on features that are gone when the run is over."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        logits = self.head(x.mean((2, 3)))
        x.zero_()
        return logits


class OneOfParts(ThreeLayers):
    """A nonlinear head on features that are one of several tensors that a call gives, and a view of another."""

    def features(self, image: Tensor) -> Tensor:
        x = super().features(image)
        _, kept = torch.cat([x, x * 0.9], dim=1).chunk(2, dim=1)
        return kept


def root_mean_square_head() -> nn.Module:
    return seeded(RootMeanSquareHead)
