"""The network that surgery makes: a backbone, and the head of Zhou et al. 2016 on it."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from gapcam_export.affine import Affine


class GapHead(nn.Module):
    """An optional 3x3 convolution with ReLU, global average pooling, dropout, one linear layer.

    Zhou et al. 2016, section 3.1: "a convolutional layer of size 3 x 3, stride 1, pad 1 with 1024 units, followed by a
    GAP layer and a softmax layer"; the Softmax is left to the loss.

    Args:
        channels: C of the backbone's feature maps.
        classes: K.
        conv: units of the convolution; 0 for none.
        groups: of the convolution.
        dropout: probability in training, of values of the pooled vector.
    """

    def __init__(self, channels: int, classes: int, *, conv: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, conv, 3, padding=1, groups=groups) if conv else None
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(conv or channels, classes)

    def pooled(self, maps: Tensor) -> Tensor:
        """What the linear layer sees: [N,conv], or [N,C] without a convolution, of maps [N,C,h,w]."""
        if self.conv is not None:
            maps = torch.relu(self.conv(maps))
        return maps.mean((2, 3))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits [N,K] of feature maps [N,C,h,w]."""
        pooled = self.pooled(maps)
        return self.linear(pooled if self.dropout is None else self.dropout(pooled))  # type: ignore[no-any-return]


class GapNetwork(nn.Module):
    """A classifier that ends in global average pooling and one linear layer.

    Attributes:
        backbone: from the image [N,3,H,W] to feature maps [N,C,h,w].
        head: from feature maps to logits [N,K]. All parameters that the old network had not are here.
    """

    def __init__(self, backbone: fx.GraphModule, head: GapHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N,K] of images [N,3,H,W]."""
        return self.head(self.backbone(image))  # type: ignore[no-any-return]


def initialize(head: GapHead, seed: int = 0) -> None:
    """Initial values before anything is known of the classes; in place.

    The convolution's first units pass the old channels through, group by group: behind a ReLU they come out unchanged,
    and the linear layer sees what the old head saw. The other units and the linear layer are drawn (He et al. 2015).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        nn.init.kaiming_uniform_(head.linear.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(head.linear.bias)
        if head.conv is not None:
            nn.init.kaiming_normal_(head.conv.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(head.conv.bias)  # type: ignore[arg-type]  # it has one
            units = passing_units(head.conv)
            passing = nn.init.dirac_(torch.empty_like(head.conv.weight), head.conv.groups)
            head.conv.weight[units >= 0] = passing[units >= 0]


def passing_units(conv: nn.Conv2d) -> Tensor:
    """For each unit of a convolution the channel that `initialize` lets it pass through, or -1; int64 [units]."""
    within = torch.arange(conv.out_channels) % (conv.out_channels // conv.groups)
    group = torch.arange(conv.out_channels) // (conv.out_channels // conv.groups)
    width = conv.in_channels // conv.groups
    return torch.where(within < width, group * width + within, -1)


def set_linear(head: GapHead, affine: Affine) -> bool:
    """Let the linear layer give what an affine map of the old channels gives; in place.

    Returns:
        False where it cannot: the convolution passes only some of the channels through.
    """
    weights = torch.from_numpy(affine.weights)
    with torch.no_grad():
        if head.conv is None:
            head.linear.weight.copy_(weights)
        else:
            units = passing_units(head.conv)
            if len(units[units >= 0]) < head.conv.in_channels:
                return False
            head.linear.weight.zero_()
            head.linear.weight[:, units >= 0] = weights[:, units[units >= 0]]
        head.linear.bias.copy_(torch.from_numpy(affine.bias))
    return True
