"""Dilated networks against the original: at every f-th position the same features, and between them all those that the
original gives for a shifted image."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from networks import randomize
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812  # as everybody calls it

from gapcam.errors import UsageError
from gapcam_export.program import trace
from gapcam_export.surgery.dilation import dilated


class TorchvisionFeatures(nn.Module):
    """A torchvision network up to its pooling."""

    def __init__(self, name: str) -> None:
        super().__init__()
        # Of a densenet with two layers in a block as many kinds of layers are traced as of one with 24.
        options = {"googlenet": {"init_weights": False}, "DenseNet": {"block_config": (2, 2, 2, 2)}}.get(name, {})
        self.model = getattr(torchvision.models, name)(**options)
        for last in ("avgpool", "fc", "classifier"):
            if hasattr(self.model, last):
                setattr(self.model, last, nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        if hasattr(self.model, "features"):
            return self.model.features(image)
        if isinstance(self.model, torchvision.models.ResNet):
            model = self.model
            x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
            return model.layer4(model.layer3(model.layer2(model.layer1(x))))
        if isinstance(self.model, torchvision.models.RegNet):
            return self.model.trunk_output(self.model.stem(image))
        if isinstance(self.model, torchvision.models.ShuffleNetV2):
            model = self.model
            return model.conv5(model.stage4(model.stage3(model.stage2(model.maxpool(model.conv1(image))))))
        model = self.model
        assert isinstance(model, torchvision.models.GoogLeNet)
        x = model.maxpool2(model.conv3(model.conv2(model.maxpool1(model.conv1(image)))))
        x = model.maxpool3(model.inception3b(model.inception3a(x)))
        for block in (model.inception4a, model.inception4b, model.inception4c, model.inception4d, model.inception4e):
            x = block(x)
        return model.inception5b(model.inception5a(model.maxpool4(x)))


class TimmFeatures(nn.Module):
    """A timm network up to its head."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.model = timm.create_model(name, pretrained=False, **options)

    def forward(self, image: Tensor) -> Tensor:
        return self.model.forward_features(image)


def traced(network: nn.Module, size: tuple[int, int] = (224, 224)) -> fx.GraphModule:
    return trace(randomize(network).eval(), size)


def relative(difference: Tensor, features: Tensor) -> float:
    """An error relative to what changes over the positions and channels."""
    return float(difference.norm() / (features - features.mean()).norm())


def seeded_features(library: type[nn.Module], name: str) -> nn.Module:
    torch.manual_seed(0)
    return library(name)


CONVOLUTIONAL = [
    # What `ceil_mode` and padding make of the sides at stride 16 and 8 is written down.
    (TorchvisionFeatures, "resnet18", 14, 28),
    (TorchvisionFeatures, "DenseNet", 13, 25),  # poolings of 2 without padding
    (TorchvisionFeatures, "mobilenet_v2", 14, 28),
    (TorchvisionFeatures, "regnet_x_400mf", 14, 28),
    (TorchvisionFeatures, "googlenet", 14, 28),  # max poolings with ceil_mode
    (TorchvisionFeatures, "shufflenet_v2_x0_5", 14, 28),  # channels are shuffled by views
    (TorchvisionFeatures, "convnext_tiny", 13, 25),
    (TimmFeatures, "efficientnet_lite0", 14, 28),
    (TimmFeatures, "tf_efficientnet_lite0", 13, 25),  # TensorFlow's padding
    (TimmFeatures, "resnet50d", 14, 28),  # average poolings with ceil_mode in the shortcuts
    (TimmFeatures, "convnext_atto", 13, 25),  # 7x7 depthwise, LayerNorm on permuted axes
    (TimmFeatures, "dla34", 13, 25),  # branches whose sides differ by one
]


@pytest.mark.parametrize(("library", "name", "at_16", "at_8"), CONVOLUTIONAL)
def test_every_second_position_is_the_originals(library: type[nn.Module], name: str, at_16: int, at_8: int) -> None:
    backbone = traced(seeded_features(library, name))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone(image)
        for stride, factor, side in ((16, 2, at_16), (8, 4, at_8)):
            dense = dilated(backbone, (224, 224), stride)
            finer = dense(image)
            assert finer.shape == (1, features.shape[1], side, side)
            assert relative(finer[:, :, ::factor, ::factor] - features, features) < 5e-5
            (output,) = dense.graph.find_nodes(op="output")
            assert tuple(output.all_input_nodes[0].meta["val"].shape[1:]) == tuple(finer.shape[1:])


def test_vgg_before_its_last_pooling_has_stride_16_and_with_it_32() -> None:
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    features = seeded_features(TorchvisionFeatures, "vgg11_bn")
    backbone = traced(features)
    with torch.no_grad():
        finer = dilated(backbone, (224, 224), 16)(image)
        assert finer.shape == (1, 512, 13, 13)
        torch.testing.assert_close(finer[:, :, ::2, ::2], backbone(image), rtol=1e-4, atol=1e-4)


class Small(nn.Sequential):
    """Stride 16, by convolutions and poolings that need all kinds of holes at stride 2."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(8, 8, 3, padding=1),
        )


def test_positions_between_are_those_of_a_shifted_image() -> None:
    """Away from the border, where the original sees other padding."""
    torch.manual_seed(0)
    backbone = trace(Small().eval(), (256, 256))
    image = torch.randn(1, 3, 256, 256)
    # By one position of the finer map: what lay between two positions of the original's is now at one of them.
    shifted = F.pad(image, (0, 8, 0, 8))[:, :, 8:, 8:]
    with torch.no_grad():
        finer, moved = dilated(backbone, (256, 256), 8)(image), backbone(shifted)
    inner = slice(2, -3)
    torch.testing.assert_close(finer[:, :, 1::2, 1::2][:, :, inner, inner], moved[:, :, inner, inner])
    assert not torch.allclose(finer[:, :, ::2, ::2][:, :, inner, inner], moved[:, :, inner, inner], atol=0.01)


@pytest.mark.parametrize(
    ("library", "name", "bound"),
    [
        (TorchvisionFeatures, "regnet_y_400mf", 0.05),
        (TimmFeatures, "tf_efficientnet_b0", 0.1),
        (TimmFeatures, "convnextv2_atto", 0.05),  # norms over all positions, which grow with their number
        (TimmFeatures, "resnetv2_50x1_bit", 0.2),  # group norm
    ],
)
def test_statistics_of_all_positions_differ_a_little(library: type[nn.Module], name: str, bound: float) -> None:
    backbone = traced(seeded_features(library, name))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, finer = backbone(image), dilated(backbone, (224, 224), 16)(image)
    assert relative(finer[:, :, ::2, ::2] - features, features) < bound


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("kind", ["max", "mean", "mean of the image alone", "divided by 5"])
@pytest.mark.parametrize("size", [(37, 52), (64, 64), (33, 40)])
def test_poolings_of_every_kind(kind: str, kernel: int, padding: int, ceil_mode: bool, size: tuple[int, int]) -> None:
    """Three after each other with stride 2, then one with stride 1; the first is the only one that stays."""

    class Poolings(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            for stride in (2, 2, 2, 1):
                image = self.pool(image, stride)
            return image

        def pool(self, image: Tensor, stride: int) -> Tensor:
            if kind == "max":
                return F.max_pool2d(image, kernel, stride, padding, ceil_mode=ceil_mode)
            counts, divisor = kind != "mean of the image alone", 5 if kind == "divided by 5" else None
            return F.avg_pool2d(image, kernel, stride, padding, ceil_mode, counts, divisor)

    backbone = trace(Poolings().eval(), size)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 2
    features, finer = backbone(image), dilated(backbone, size, 2)(image)
    torch.testing.assert_close(finer[:, :, ::4, ::4], features)
    assert finer.isfinite().all()


@pytest.mark.parametrize("size", [(37, 52), (64, 64), (33, 41)])
@pytest.mark.parametrize("stride", [3, 2, 1])
def test_convolutions_of_every_kind(size: tuple[int, int], stride: int) -> None:
    """A stride that is kept in part, even kernels with "same", crops, slices with steps, and holes that were there."""

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 7, stride=6, padding=3)
            self.one = nn.Conv2d(8, 8, 3, stride=2, padding=(0, 1))
            self.same = nn.Conv2d(8, 8, 4, padding="same")
            self.holes = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
            self.square = nn.Conv2d(8, 8, 2, stride=1)

        def forward(self, image: Tensor) -> Tensor:
            x = F.relu(self.stem(F.pad(image, (0, 5, 0, 5))))
            x = torch.cat([self.one(F.pad(x, (0, 0, 1, 1))), F.pad(x, (0, 0, -1, 1, 1, -2))[:, :, ::2, ::2]], 1)[
                :, 2:10
            ]
            left, right = F.gelu(self.same(x)).chunk(2, 1)
            x = torch.cat([right, left], 1)
            x = x * torch.sigmoid(self.holes(x))
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            x = F.layer_norm(x.permute(0, 2, 3, 1), (c,)).permute(0, 3, 1, 2)
            return self.square(F.pad(x, (1, 0, 1, 0)))

    torch.manual_seed(0)
    backbone = trace(Convolutions().eval(), size)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, finer = backbone(image), dilated(backbone, size, stride)(image)
    factor = 12 // stride
    torch.testing.assert_close(finer[:, :, ::factor, ::factor], features, rtol=1e-4, atol=1e-5)


def test_the_original_is_as_it_was_and_the_parameters_are_shared() -> None:
    backbone = traced(seeded_features(TorchvisionFeatures, "resnet18"))
    code = backbone.code
    shapes = [str(node.meta.get("val")) for node in backbone.graph.nodes]
    dense = dilated(backbone, (224, 224), 8)
    assert backbone.code == code
    assert [str(node.meta.get("val")) for node in backbone.graph.nodes] == shapes
    assert dense.code != code
    pairs = zip(backbone.named_parameters(), dense.named_parameters(), strict=True)
    assert all(name == other and one is two for (name, one), (other, two) in pairs)
    pairs = zip(backbone.named_buffers(), dense.named_buffers(), strict=True)
    assert all(name == other and one is two for (name, one), (other, two) in pairs)


def test_the_result_takes_any_batch_can_be_traced_again_and_trained() -> None:
    torch.manual_seed(0)
    dense = dilated(trace(Small().eval(), (64, 64)), (64, 64), 2)
    image = torch.randn(3, 3, 64, 64)
    again = trace(dense, (64, 64))
    with torch.no_grad():
        torch.testing.assert_close(again(image), dense(image))
        torch.testing.assert_close(dense(image)[1:2], dense(image[1:2]), rtol=1e-4, atol=1e-5)
    dense(image).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in dense.parameters())


def test_the_networks_own_stride_changes_nothing() -> None:
    backbone = traced(seeded_features(TorchvisionFeatures, "mobilenet_v2"))
    assert dilated(backbone, (224, 224), 32).code == backbone.code


def test_a_graph_without_recorded_shapes_is_taken() -> None:
    backbone = traced(seeded_features(TorchvisionFeatures, "resnet18"), (64, 64))
    for node in backbone.graph.nodes:
        node.meta.clear()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(backbone, (64, 64), 16)(image)[:, :, ::2, ::2], backbone(image))


@pytest.mark.parametrize("stride", [0, -16, 12, 33, 64])
def test_a_stride_that_the_network_cannot_have_is_refused(stride: int) -> None:
    backbone = traced(seeded_features(TorchvisionFeatures, "resnet18"), (64, 64))
    with pytest.raises(UsageError, match=rf"--stride {stride}: the maps have stride 32; give 16, 8, 4, 2, 1"):
        dilated(backbone, (64, 64), stride)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hrnet_w18_small", r"with --stride 16 aten.upsample_nearest2d.vec \(model.stage4.*\) would read finer maps"),
        (
            "coatnet_nano_rw_224",
            r"with --stride 16 aten.view.default \(model.stages.3.blocks.0.attn\) would read finer",
        ),
        (
            "swin_tiny_patch4_window7_224",
            r"--stride 16 cannot be had: aten.reshape.default \(model.layers.0.blocks.0\)",
        ),
    ],
)
def test_what_mixes_positions_is_refused_by_name(name: str, message: str) -> None:
    class ChannelsFirst(TimmFeatures):
        def __init__(self, name: str) -> None:
            super().__init__(name, **({"depths": (1, 1, 1, 1)} if name.startswith("swin") else {}))

        def forward(self, image: Tensor) -> Tensor:
            maps = super().forward(image)
            return maps.permute(0, 3, 1, 2) if name.startswith("swin") else maps

    backbone = traced(seeded_features(ChannelsFirst, name))
    with pytest.raises(UsageError, match=rf"^{message}.* --size .*"):
        dilated(backbone, (224, 224), 16)


def test_a_parameter_for_each_position_is_refused() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2, stride=2)
            self.each = nn.Parameter(torch.zeros(1, 4, 8, 8))

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image) + self.each

    with pytest.raises(UsageError, match=r"aten.add.Tensor .*something that has a value for each position"):
        dilated(trace(Positions().eval(), (16, 16)), (16, 16), 1)


def test_attention_on_every_position_gives_the_reason() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 4, stride=4)

        def forward(self, image: Tensor) -> Tensor:
            x = self.conv(image).flatten(2)
            return (x @ x.transpose(1, 2) @ x).reshape(-1, 4, 4, 4)

    backbone = trace(Tokens().eval(), (16, 16))
    with pytest.raises(UsageError, match=r"with --stride 2 aten.flatten.using_ints would read finer maps"):
        dilated(backbone, (16, 16), 2)
    with pytest.raises(UsageError, match=r"--stride 4 cannot be had: aten.flatten.using_ints puts positions together"):
        dilated(backbone, (16, 16), 4)


def test_another_size_than_it_was_traced_with_is_refused() -> None:
    backbone = traced(seeded_features(TorchvisionFeatures, "resnet18"), (64, 64))
    with pytest.raises(UsageError, match=r"traced for \[N,3,64,64\], not for \(128, 128\)"):
        dilated(backbone, (128, 128), 16)
