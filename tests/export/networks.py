"""Small networks that the tests export, and what makes a network's numbers worth comparing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # as everybody calls it


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network numbers such that nothing agrees because all is zero, one, or tiny.

    BatchNorm gets statistics and an affine map of its own, and every parameter that was initialised to a constant
    (a head of zeros, a layer scale of 1e-6) random values of a trained network's size.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and parameter.std() < 1e-3:
                noise = torch.empty_like(parameter).normal_(0, 0.2, generator=generator)
                parameter.copy_(noise + (1 if parameter.mean() > 0.5 else 0))
    return model.eval()


class GapNetwork(nn.Module):
    """Two convolutions with a squeeze-and-excite block between them, GAP, one linear layer; 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 12, 3, stride=4, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12, 5)

    def features(self, image: Tensor) -> Tensor:
        """[N,12,H/16,W/16]."""
        x = self.stem(image)
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.last(x)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean((2, 3)))


class ManyLayersInHead(GapNetwork):
    """GAP, then BatchNorm, Dropout, a linear layer without bias, and a second one: still affine."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 7, bias=False), nn.Linear(7, 5))


class WithSoftmax(GapNetwork):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).softmax(1)


class MaxPooled(GapNetwork):
    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).amax((2, 3)))


class WithNoise(GapNetwork):
    """Dropout that somebody forgot to switch off."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(image), 0.5, training=True).mean((2, 3)))


class TwoOutputs(GapNetwork):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(image)
        return self.head(features.mean((2, 3))), features


class Ensemble(GapNetwork):
    """Four heads on one pooled vector, averaged: their answers [N,4,5] look like tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(12, 5) for _ in range(4))

    def forward(self, image: Tensor) -> Tensor:
        pooled = self.features(image).mean((2, 3))
        return torch.stack([head(pooled) for head in self.heads], 1).mean(1)


class LateEnsemble(Ensemble):
    """The same with a long way from the heads to their mean."""

    def forward(self, image: Tensor) -> Tensor:
        pooled = self.features(image).mean((2, 3))
        answers = torch.stack([head(pooled) for head in self.heads], 1)
        for _ in range(40):
            answers = answers + 0.1 * pooled.mean(1)[:, None, None]
        return answers.mean(1)


class ColumnsFirst(GapNetwork):
    """Averages the positions column by column, which their mean does not notice."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).permute(0, 3, 2, 1).flatten(1, 2).mean(1))


class NormedColumns(GapNetwork):
    """The same, with a normalisation of each token before they are averaged: nothing in the graph tells their order."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.features(image).permute(0, 3, 2, 1).flatten(1, 2)).mean(1))


class NormedRows(NormedColumns):
    """Tokens as they should be: row by row."""

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.norm(self.features(image).flatten(2).transpose(1, 2)).mean(1))


class TinyFeatures(GapNetwork):
    """A head that is not affine, on features so small that it looks it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 5))

    def features(self, image: Tensor) -> Tensor:
        return 1e-6 * super().features(image)


class NormAndTanh(GapNetwork):
    """A normalisation after the pooling, but then something that is not affine."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))


class NormedHead(GapNetwork):
    """A normalisation after the pooling, then one linear layer, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 5))


class ThreeLayers(GapNetwork):
    """GAP, then three linear layers with two activations between."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 7, bias=False), nn.SiLU(), nn.Linear(7, 5))


class Exponential(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class ExponentialHead(GapNetwork):
    """An activation that nobody uses, and that overflows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(12, 9), Exponential(), nn.Linear(9, 5))


class PerChannelSlopes(GapNetwork):
    """An activation right after the pooling, and BatchNorm between layers."""

    def __init__(self) -> None:
        super().__init__()
        slopes = nn.PReLU(7)
        nn.init.uniform_(slopes.weight, -0.5, 0.5)
        self.head = nn.Sequential(
            nn.BatchNorm1d(12, affine=False),
            nn.Hardtanh(-0.4, 0.3),
            nn.Linear(12, 7, bias=False),
            nn.BatchNorm1d(7),
            slopes,
            nn.Linear(7, 5),
        )


class CosineHead(GapNetwork):
    """Cosines between the pooled vector and one vector a class."""

    def forward(self, image: Tensor) -> Tensor:
        pooled = self.features(image).mean((2, 3))
        return 10 * F.linear(F.normalize(pooled), F.normalize(self.head.weight))


class WithSigmoid(GapNetwork):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).sigmoid()


class OneClass(GapNetwork):
    """Is it there, or not?"""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1)


class OneClassSigmoid(OneClass):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).sigmoid()


class DependsOnData(GapNetwork):
    """What torch.export cannot trace."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.sum() > 0 else super().forward(-image)


class Uneven(GapNetwork):
    """Four convolutions in a row; the second has huge weights for a channel that is always zero.

    They change nothing, but eight bits that reach as far leave nothing of the other weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.uneven = nn.Conv2d(8, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 12, 3, stride=4, padding=1)

    def features(self, image: Tensor) -> Tensor:
        x = F.relu(self.uneven(F.relu(self.stem(image))))
        return F.relu(self.last(F.relu(self.after(x))))


def seeded(network: Callable[[], nn.Module]) -> nn.Module:
    """The same numbers at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomize(network())


def gap_network() -> nn.Module:
    return seeded(GapNetwork)


def many_layers_in_head() -> nn.Module:
    return seeded(ManyLayersInHead)


def with_softmax() -> nn.Module:
    return seeded(WithSoftmax)


def max_pooled() -> nn.Module:
    return seeded(MaxPooled)


def with_noise() -> nn.Module:
    return seeded(WithNoise)


def two_outputs() -> nn.Module:
    return seeded(TwoOutputs)


def a_number() -> int:
    return 7


def broken() -> nn.Module:
    raise ZeroDivisionError("this factory divides by zero")


def ensemble() -> nn.Module:
    return seeded(Ensemble)


def late_ensemble() -> nn.Module:
    return seeded(LateEnsemble)


def columns_first() -> nn.Module:
    return seeded(ColumnsFirst)


def normed_columns() -> nn.Module:
    return seeded(NormedColumns)


def normed_rows() -> nn.Module:
    return seeded(NormedRows)


def tiny_features() -> nn.Module:
    return seeded(TinyFeatures)


def norm_and_tanh() -> nn.Module:
    return seeded(NormAndTanh)


def normed_head() -> nn.Module:
    return seeded(NormedHead)


def three_layers() -> nn.Module:
    return seeded(ThreeLayers)


def exponential_head() -> nn.Module:
    return seeded(ExponentialHead)


def per_channel_slopes() -> nn.Module:
    return seeded(PerChannelSlopes)


def cosine_head() -> nn.Module:
    return seeded(CosineHead)


def with_sigmoid() -> nn.Module:
    return seeded(WithSigmoid)


def one_class() -> nn.Module:
    return seeded(OneClass)


def one_class_sigmoid() -> nn.Module:
    return seeded(OneClassSigmoid)


def uneven() -> nn.Module:
    network = seeded(Uneven)
    with torch.no_grad():
        network.stem.weight[0], network.stem.bias[0] = 0, -1
        network.uneven.weight[:, 0] = 1000
    return network


def depends_on_data() -> nn.Module:
    return seeded(DependsOnData)


def talkative() -> nn.Module:
    print("the factory prints")  # noqa: T201
    return gap_network()


def leaves() -> nn.Module:
    raise SystemExit(0)
