"""What a network costs: parameters, FLOPs, bytes of weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs, for one image.

    Attributes:
        parameters: number of trainable values that the logits depend on.
        flops: of its convolutions, matrix products and attention; a multiply-add is two.
        weights_bytes: of its parameters and buffers.
        size: (H, W) of its input in pixels.
        features: (C, h, w) of the last maps before its head.
    """

    parameters: int
    flops: int
    weights_bytes: int
    size: tuple[int, int]
    features: tuple[int, int, int]


def measure_cost(network: nn.Module, size: tuple[int, int], features: tuple[int, int, int]) -> NetworkCost:
    """Count what a network costs; it is run once, on one image.

    Args:
        network: from [N,3,H,W] to logits; everything in it counts.
        size: (H, W) of its input in pixels.
        features: (C, h, w) of the last maps before its head.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, *size))
    return NetworkCost(
        parameters=sum(value.numel() for value in network.parameters()),
        flops=counter.get_total_flops(),
        weights_bytes=sum(value.nbytes for value in chain(network.parameters(), network.buffers())),
        size=size,
        features=features,
    )
