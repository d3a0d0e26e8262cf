"""Small vision transformers that the tests export: timm's and torchvision's own classes at a size of our choice."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torchvision
from networks import randomize
from torch import nn

SIZE = (64, 96)  # 4 x 6 patches of 16 x 16


def _timm(name: str, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = {"img_size": SIZE, "depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
        return randomize(timm.create_model(name, **small, **options))


def averaged() -> nn.Module:
    """No token but the patches'; normed before the average."""
    return _timm("vit_medium_patch16_gap_240")


def averaged_without_its_class_token() -> nn.Module:
    """A class token, left out of the average; normed after it."""
    return _timm("vit_tiny_patch16_224", global_pool="avg")


def averaged_without_its_registers() -> nn.Module:
    """Four register tokens, left out of the average; normed after it."""
    return _timm("vit_medium_patch16_reg4_gap_256")


def averaged_without_class_token_and_registers() -> nn.Module:
    """Both, left out of the average; normed before it."""
    return _timm("vit_tiny_patch16_224", global_pool="avg", reg_tokens=2, fc_norm=False)


def averaged_with_its_class_token() -> nn.Module:
    """A class token that is averaged with the patches."""
    return _timm("vit_tiny_patch16_224", global_pool="avg", pool_include_prefix=True)


def averaged_and_greatest() -> nn.Module:
    """The mean and the maximum of the patches, averaged."""
    return _timm("vit_tiny_patch16_224", global_pool="avgmax")


def timms_class_token() -> nn.Module:
    """Its class token alone goes on."""
    return _timm("vit_tiny_patch16_224")


def torchvisions_class_token() -> nn.Module:
    """Likewise; square, as torchvision's are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomize(torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96, num_classes=5))
