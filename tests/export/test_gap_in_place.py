"""Surgery of networks that change tensors in place: through other names, views and parts of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from networks import randomize
from torch import Tensor, nn

import gapcam_export
from gapcam_export.program import trace
from gapcam_export.surgery.cut import backbone_of, find_cut, logits_of

SIZE = (64, 64)


class ChangedAfterRelu(nn.Module):
    """A slice of what an operator in place gave is written to; all names are of the convolution's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.relu(self.one(image))
        maps[:, :6] *= 20
        return self.linear(self.relu(self.two(maps)).mean((2, 3)))


class ImageInPlace(nn.Module):
    """The image itself is changed, through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        image[:, 0].mul_(5)
        return self.linear(torch.relu(self.conv(image)).mean((2, 3)))


@pytest.mark.parametrize("build", [ChangedAfterRelu, ImageInPlace])
def test_what_is_written_through_a_view_is_kept(build: Callable[[], nn.Module]) -> None:
    network = randomize(build())
    image = torch.randn(3, 3, *SIZE)
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert made.initial == "kept"
    with torch.no_grad():
        torch.testing.assert_close(made.network(image.clone()), network(image.clone()), rtol=1e-5, atol=1e-5)


def relu_(maps: Tensor) -> Tensor:
    return torch.relu_(maps)


def add_(maps: Tensor) -> Tensor:
    maps += 0.3
    return maps


def scale_slice(maps: Tensor) -> Tensor:
    maps[:, :6] *= 2
    return maps


def set_slice(maps: Tensor) -> Tensor:
    maps[:, 3:5] = maps[:, :2] * 1.5
    return maps


def clamp_view(maps: Tensor) -> Tensor:
    maps.view(maps.shape[0], -1).clamp_(-0.4, 0.8)
    return maps


def keep_slice(maps: Tensor) -> Tensor:
    part = maps[:, 2:9]
    part.add_(0.1)
    return maps * 1.1 + part.sum(1, keepdim=True)


def set_permuted(maps: Tensor) -> Tensor:
    maps.permute(0, 2, 3, 1)[..., 0] = 0.7
    return maps


def add_changed(maps: Tensor) -> Tensor:
    other = maps * 0.5
    other[:, 2:4] = 1
    return maps.add_(other)


def drop(maps: Tensor) -> Tensor:
    nn.functional.dropout(maps, training=False)[:, 1:3].mul_(3)
    return maps


CHANGES = [relu_, add_, scale_slice, set_slice, clamp_view, keep_slice, set_permuted, add_changed, drop, torch.tanh]


class Chain(nn.Module):
    """A convolution, changes drawn at random with a convolution after some of them, and an affine head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        drawn = random.Random(seed)  # noqa: S311  # nothing is kept secret
        self.changes = drawn.choices(CHANGES, k=6)
        self.stem, self.linear = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Linear(12, 5)
        self.convs = nn.ModuleList(nn.Conv2d(12, 12, 1) if drawn.random() < 0.3 else nn.Identity() for _ in range(6))

    def forward(self, image: Tensor) -> Tensor:
        maps = self.stem(image)
        for change, conv in zip(self.changes, self.convs, strict=True):
            maps = conv(change(maps))
        return self.linear(maps.mean((2, 3)))


@pytest.mark.parametrize("seed", range(12))
def test_chains_of_changes_in_place_give_the_old_logits(seed: int) -> None:
    torch.manual_seed(seed)
    network = Chain(seed).eval()
    image = torch.randn(2, 3, *SIZE)
    traced = trace(network, SIZE)
    cut = find_cut(traced, SIZE, before_pooling=False)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(network.linear(backbone_of(traced, cut)(image).mean((2, 3))), expected)
        torch.testing.assert_close(logits_of(traced, cut)(image), expected)
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    if made.initial == "kept":
        with torch.no_grad():
            torch.testing.assert_close(made.network(image), expected, rtol=1e-4, atol=1e-5)


class Noisy(nn.Module):
    """Adds noise to its maps, so that no two answers are alike; its head is affine."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.conv(image)
        return self.linear((maps + torch.randn_like(maps)).mean((2, 3)))


def test_nothing_is_said_to_be_kept_where_the_logits_are_others() -> None:
    torch.manual_seed(0)
    made = gapcam_export.gap_surgery(Noisy().eval(), None, size=SIZE)
    assert (made.initial, made.agreement) == ("random", None)
    assert any("other logits on noise" in note for note in made.notes)
