"""Networks that the export refuses: what they take, or how they pool."""

from __future__ import annotations

import torch
from networks import GapNetwork, gap_network, seeded
from torch import Tensor, nn


class WithMask(GapNetwork):
    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return super().forward(image * mask)


class WithScale(GapNetwork):
    """A second argument that need not be given."""

    def forward(self, image: Tensor, scale: float = 1.0, *_: Tensor, **__: Tensor) -> Tensor:
        return super().forward(image * scale)


class AveragePlusMaximum(GapNetwork):
    """As timm's "avgmax"."""

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(image)
        return self.head(0.5 * (features.mean((2, 3)) + features.amax((2, 3))))


class AverageBesideMaximum(GapNetwork):
    """As timm's "catavgmax"."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(24, 5)

    def pooled(self, features: Tensor) -> list[Tensor]:
        return [features.mean((2, 3)), features.amax((2, 3))]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.cat(self.pooled(self.features(image)), 1))


class MaximumBesideAverage(AverageBesideMaximum):
    def pooled(self, features: Tensor) -> list[Tensor]:
        return super().pooled(features)[::-1]


class TwoBranches(nn.Module):
    """Two networks side by side, whose vectors are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = GapNetwork(), GapNetwork()
        self.head = nn.Linear(24, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = [branch.features(image).mean((2, 3)) for branch in (self.one, self.other)]
        return self.head(torch.cat(features, 1))


class OneQuery(GapNetwork):
    """Pooled by attention: one query asks all positions, in three heads, as in timm's AttentionPoolLatent."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 3, 1, 4))
        self.keys = nn.Linear(12, 24)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.features(image).flatten(2).transpose(1, 2)
        batch, count, _ = tokens.shape
        key, value = self.keys(tokens).reshape(batch, count, 2, 3, 4).permute(2, 0, 3, 1, 4)
        found = (self.query @ key.transpose(2, 3)).softmax(3) @ value
        return self.head(found.transpose(1, 2).reshape(batch, 12))


def with_mask() -> nn.Module:
    return seeded(WithMask)


def with_scale() -> nn.Module:
    return seeded(WithScale)


def in_half() -> nn.Module:
    return gap_network().half()


def in_double() -> nn.Module:
    return gap_network().double()


def in_bfloat16() -> nn.Module:
    return gap_network().bfloat16()


def average_plus_maximum() -> nn.Module:
    return seeded(AveragePlusMaximum)


def average_beside_maximum() -> nn.Module:
    return seeded(AverageBesideMaximum)


def maximum_beside_average() -> nn.Module:
    return seeded(MaximumBesideAverage)


def two_branches() -> nn.Module:
    return seeded(TwoBranches)


def one_query() -> nn.Module:
    return seeded(OneQuery)
