"""Where a classifier is cut: the backbone gives what a hook on the original module sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from networks import ColumnsFirst, randomize
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gapcam.errors import UsageError
from gapcam_export.errors import SourceError
from gapcam_export.program import trace
from gapcam_export.surgery.cut import backbone_of, find_cut, section_of

SIZE = (64, 64)
Oracle = Callable[[nn.Module, Tensor], Tensor]


def small_swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4], num_classes=9
    )


def small_densenet() -> nn.Module:
    return torchvision.models.DenseNet(
        growth_rate=4, block_config=(2, 2, 2), num_init_features=8, bn_size=2, num_classes=9
    )


def small_vit(**options: object) -> nn.Module:
    return VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=9, **options)


class WithView(nn.Module):
    """A convolution, a pooling, and layers on what `view` makes of it, with the batch size asked of the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.one, self.two = nn.Linear(6 * 8 * 8, 20), nn.Linear(20, 9)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv(image)), 2)
        return self.two(torch.tanh(self.one(x.view(x.size(0), -1))))


class ChangedInPlace(nn.Module):
    """What the feature maps are is changed through the name of the convolution's output, and through a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=8, padding=1)
        self.one, self.two = nn.Linear(6 * 8 * 8, 20), nn.Linear(20, 9)

    def features(self, image: Tensor) -> Tensor:
        x = self.conv(image)
        x.relu_()
        x[:, 0].mul_(3)
        return x

    def forward(self, image: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(self.features(image).flatten(1))))


def hooked(path: str) -> Oracle:
    """What a module gives while the network runs."""

    def oracle(network: nn.Module, image: Tensor) -> Tensor:
        seen: list[Tensor] = []
        with network.get_submodule(path).register_forward_hook(lambda *call: seen.append(call[2].clone())):
            network(image)
        return seen[-1]

    return oracle


def tokens(skipped: int) -> Oracle:
    """A timm ViT's tokens after its last norm, without the first, on a grid of 4 x 4."""

    def oracle(network: nn.Module, image: Tensor) -> Tensor:
        return hooked("norm")(network, image)[:, skipped:].transpose(1, 2).unflatten(2, (4, 4))

    return oracle


@pytest.mark.parametrize(
    ("build", "oracle"),
    [
        pytest.param(lambda: torchvision.models.alexnet(num_classes=9), hooked("features.11"), id="alexnet"),
        pytest.param(lambda: torchvision.models.resnet18(num_classes=9), hooked("layer4"), id="resnet"),
        pytest.param(
            lambda: torchvision.models.mobilenet_v3_small(num_classes=9), hooked("features"), id="mobilenetv3"
        ),
        pytest.param(small_densenet, lambda network, image: torch.relu(network.features(image)), id="densenet"),
        pytest.param(lambda: timm.create_model("convnext_atto", num_classes=9), hooked("stages"), id="convnext"),
        pytest.param(lambda: torchvision.models.squeezenet1_1(num_classes=9), hooked("classifier.2"), id="squeezenet"),
        pytest.param(small_swin, lambda network, image: hooked("norm")(network, image).permute(0, 3, 1, 2), id="swin"),
        pytest.param(small_vit, tokens(1), id="vit"),
        pytest.param(lambda: small_vit(reg_tokens=4), tokens(5), id="registers"),
        pytest.param(lambda: small_vit(class_token=False, global_pool="avg", fc_norm=False), tokens(0), id="vit-avg"),
        pytest.param(WithView, lambda network, image: torch.relu(network.conv(image)), id="view"),
        pytest.param(ChangedInPlace, lambda network, image: network.features(image), id="in-place"),
        pytest.param(ColumnsFirst, lambda network, image: network.features(image), id="columns"),
    ],
)
def test_the_backbone_gives_the_feature_maps_of_the_original(build: Callable[[], nn.Module], oracle: Oracle) -> None:
    torch.manual_seed(0)
    network = randomize(build())
    image = torch.randn(2, 3, *SIZE)
    traced = trace(network, SIZE)
    cut = find_cut(traced, SIZE)
    backbone = backbone_of(traced, cut)
    with torch.no_grad():
        expected = oracle(network, image)
        maps = backbone(image)
        assert maps.shape[1:] == cut.features
        torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)
        # Finding the cut has not changed the network, and the rest of it makes the old logits of the old tensor.
        torch.testing.assert_close(traced(image), network(image), rtol=1e-5, atol=1e-6)
    own = dict(network.named_parameters())
    assert {name: id(value) for name, value in backbone.named_parameters()}.items() <= {
        name: id(value) for name, value in own.items()
    }.items()


def test_googlenet_is_cut_earlier_by_the_stride_of_its_maps() -> None:
    network = torchvision.models.googlenet(num_classes=9, init_weights=True, aux_logits=False).eval()
    traced = trace(network, SIZE)
    cut = find_cut(traced, SIZE, 16)
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        maps = backbone_of(traced, cut)(image)
        torch.testing.assert_close(maps, hooked("inception4e")(network, image))
    with pytest.raises(UsageError, match=r"passes through maps of .*4x4 \(stride 16\), 2x2 \(stride 32\)"):
        find_cut(traced, SIZE, 64)


def test_what_follows_the_cut_makes_the_logits_of_the_maps() -> None:
    network = randomize(torchvision.models.mobilenet_v3_small(num_classes=9))
    traced = trace(network, SIZE)
    cut = find_cut(traced, SIZE)
    head = section_of(traced, cut.node, cut.logits)
    image = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(head(network.features(image)), network(image))


@pytest.mark.parametrize("size", [(64, 128), (96, 64)])
def test_images_that_are_not_square_are_cut_alike(size: tuple[int, int]) -> None:
    network = randomize(small_swin())
    traced = trace(network, size)
    cut = find_cut(traced, size)
    assert cut.layout == "nhwc"
    assert cut.features == (24, size[0] // 8, size[1] // 8)
    vit = VisionTransformer(img_size=size, patch_size=16, embed_dim=32, depth=1, num_heads=2, num_classes=9).eval()
    cut = find_cut(trace(vit, size), size)
    assert (cut.layout, cut.features, cut.skipped_tokens) == ("tokens", (32, size[0] // 16, size[1] // 16), 1)


class ChannelsTokens(nn.Module):
    """64 channels of 7 x 7 in rows: as many numbers as 49 positions and 15 tokens of no place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 64, 3, stride=8, padding=1), nn.Linear(64, 9)

    def features(self, image: Tensor) -> Tensor:
        return torch.relu(self.conv(image).flatten(2)).unflatten(2, (7, 7))

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(image).flatten(2)).mean(2))


class ChannelsLast(nn.Module):
    """As many channels as columns, the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 7, 3, stride=8, padding=1), nn.Linear(7, 9)

    def features(self, image: Tensor) -> Tensor:
        return torch.tanh(self.conv(image) * torch.arange(1.0, 8)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        maps = self.conv(image).permute(0, 2, 3, 1)
        return self.linear(torch.tanh(maps * torch.arange(1.0, 8)).mean((1, 2)))


class Untold(ChannelsLast):
    """Its maps come from a product of matrices, which could make anything of them."""

    def forward(self, image: Tensor) -> Tensor:
        maps = self.conv(image)
        return self.linear(torch.tanh(torch.matmul(maps, maps)).mean((1, 2)))


@pytest.mark.parametrize(("build", "layout"), [(ChannelsTokens, "channels-tokens"), (ChannelsLast, "nhwc")])
def test_sizes_that_fit_two_layouts_are_told_apart_by_the_axes(build: type[nn.Module], layout: str) -> None:
    torch.manual_seed(0)
    network, image = build().eval(), torch.randn(2, 3, 56, 56)
    traced = trace(network, (56, 56))
    cut = find_cut(traced, (56, 56))
    assert (cut.layout, cut.features[1:], cut.skipped_tokens) == (layout, (7, 7), 0)
    with torch.no_grad():
        torch.testing.assert_close(backbone_of(traced, cut)(image), network.features(image))


def test_maps_that_may_lie_in_two_ways_are_refused() -> None:
    with pytest.raises(SourceError, match=r"\[N,7,7,7\], which may be nchw as well as nhwc.*--cut-stride"):
        find_cut(trace(Untold().eval(), (56, 56)), (56, 56))


class FlattensTheImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 64 * 64, 9)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(image.flatten(1))


class MeetsInVectors(nn.Module):
    """Two branches, each pooled by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.linear = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5), nn.Linear(8, 9)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(torch.cat([self.one(image).mean((2, 3)), self.two(image).mean((2, 3))], 1))


class GivesMaps(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * 2


class GivesTwo(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image.mean((2, 3)), image


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (FlattensTheImage, "there is nothing to cut"),
        (MeetsInVectors, "there is nothing to cut"),
        (GivesMaps, r"the network gives \[N,3,64,64\]; expected logits \[N,K\]"),
        (GivesTwo, "the network gives a tuple of 2; expected logits"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(network: type[nn.Module], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        find_cut(trace(network().eval(), SIZE), SIZE)
