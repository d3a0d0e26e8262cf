"""Surgery of networks that change tensors in place: through other names, views and parts of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from networks import randomize
from torch import Tensor, fx, nn

import gapcam_export
from gapcam_export.program import trace
from gapcam_export.surgery.cut import backbone_of, find_cut, logits_of
from gapcam_export.surgery.layer_names import layers_of

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


def halve_part(maps: Tensor) -> Tensor:
    one, two = maps.chunk(2, 1)
    two.mul_(0.5)
    return torch.cat([two, one], 1)


def halve_part_below(maps: Tensor) -> Tensor:
    maps.split([4, 8], 1)[1].mul_(0.5)
    return maps


CHANGES = [
    halve_part,
    halve_part_below,
    relu_,
    add_,
    scale_slice,
    set_slice,
    clamp_view,
    keep_slice,
    set_permuted,
    add_changed,
    drop,
    torch.tanh,
]


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


class ChangedUnderTheHead(nn.Module):
    """The last maps are changed through a view of them before the head reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu_(self.conv(image))
        maps[:, :6].mul_(2)
        maps.add_(1)
        maps[:, 6:].clamp_(0, 1)
        return self.linear(maps.mean((2, 3)))


def test_an_affine_head_is_kept_after_late_changes_in_place() -> None:
    torch.manual_seed(0)
    network, image = ChangedUnderTheHead().eval(), torch.randn(2, 3, *SIZE)
    made = gapcam_export.gap_surgery(network, None, size=SIZE)
    assert made.initial == "kept"
    with torch.no_grad():
        torch.testing.assert_close(made.network(image), network(image))


class ScaledSlice(nn.Module):
    """Writes to a slice of maps that are to become finer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 3, stride=8, padding=1), nn.Conv2d(12, 12, 3, stride=2, padding=1)
        self.linear = nn.Linear(12, 5)

    def features(self, image: Tensor) -> Tensor:
        maps = torch.relu(self.two(self.one(image)))
        maps[:, :4] *= 2
        return torch.tanh(maps)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.features(image).mean((2, 3)))


def test_finer_maps_are_written_to_like_the_old_ones() -> None:
    torch.manual_seed(0)
    network, image = ScaledSlice().eval(), torch.randn(2, 3, *SIZE)
    made = gapcam_export.gap_surgery(network, None, size=SIZE, stride=8)
    assert made.after.features == (12, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(made.network.backbone(image)[:, :, ::2, ::2], network.features(image))


def test_a_split_that_is_changed_in_place_can_be_traced() -> None:
    network = nn.Sequential(nn.Conv2d(3, 12, 8, 8), PartOf(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    image = torch.randn(2, 3, *SIZE)
    traced = trace(network.eval(), SIZE)
    with torch.no_grad():
        torch.testing.assert_close(traced(image), network(image))
    made = trace(nn.Sequential(network[0], nn.ReLU(), *network[2:]).eval(), SIZE)
    made(image).sum().backward()
    assert all(value.requires_grad and value.grad is not None for value in made.parameters())


class PartOf(nn.Module):
    """Halves a part of the maps in place, which autograd refuses."""

    def forward(self, maps: Tensor) -> Tensor:
        one, two = maps.chunk(2, 1)
        two *= 0.5
        return torch.cat([two, one], 1)


def test_attention_is_traced_as_what_can_be_trained() -> None:
    layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True).eval()
    network = nn.Sequential(nn.Conv2d(3, 12, 16, 16), nn.Flatten(2), Swap(), layer, nn.Flatten(), nn.Linear(192, 5))
    traced = trace(network.eval(), SIZE)
    traced(torch.randn(2, 3, *SIZE)).sum().backward()
    assert all(value.grad is not None for value in traced.parameters())


class Swap(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)


def test_layers_are_not_called_by_torchs_inner_names() -> None:
    graph = fx.Graph()
    node = graph.call_function(torch.ops.aten.relu.default, (graph.placeholder("x"),))
    inner = "_empty_nn_module_stack_from_metadata_hook"
    node.meta["nn_module_stack"] = {inner: (inner, inner)}
    assert layers_of([node]) == ("relu",)
    node.meta["nn_module_stack"] = {"L__self___0": ("0", "torch.nn.ReLU"), inner: (inner, inner)}
    assert layers_of([node]) == ("0 (ReLU)",)


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
