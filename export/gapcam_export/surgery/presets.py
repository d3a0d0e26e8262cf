"""The networks that Zhou et al. made into GAP networks by hand, as recipes.

B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba: Learning Deep Features for Discriminative Localization, CVPR
2016, section 3.1 (and 3.2 for AlexNet's two variants): the fully connected layers, and some convolutions, are replaced
by a 3x3 convolution, stride 1, pad 1, with 1024 units, GAP and one linear layer.

The authors' code (models/*.prototxt of their repository) has a ReLU after that convolution, two groups in it, and for
VGG16 dropout of 0.5 between pooling and linear layer (GoogLeNet's deployed network has none, an earlier training
network 0.5). Its AlexNet is another network, AlexNet+ ("AlexNet*-GAP" in the paper): conv5 with 384 units, a 3x3
pooling with stride 1, and two grouped convolutions of 512 units, 11x11. `groups` and `dropout` are options, and 1 and
0 here, as the paper says nothing of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gapcam.errors import UsageError


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        name: as --preset gives it.
        after: the layer that it cuts after, in the paper's words.
        cut_stride: stride of the maps to cut at; None for the last.
        features: (C, h, w) of the maps to cut at, for an image of 224x224.
        conv: units of the added convolution.
    """

    name: str
    after: str
    cut_stride: int | None
    features: tuple[int, int, int]
    conv: int = 1024


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("alexnet", "conv5", None, (256, 13, 13)),
        Preset("vgg16", "conv5-3", None, (512, 14, 14)),
        Preset("googlenet", "inception4e", 16, (832, 14, 14)),
    )
}


def preset_named(name: str) -> Preset:
    """The recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}; expected {', '.join(PRESETS)}, or none for the general rule.")
    return PRESETS[name]


def check_preset(preset: Preset, features: tuple[int, int, int], size: tuple[int, int], source: str) -> None:
    """Notice that a network is not the one that a recipe is for.

    Args:
        preset: the recipe.
        features: (C, h, w) of the maps that were found to cut at.
        size: (H, W) of the network's input in pixels.
        source: how messages call the network.

    Raises:
        UsageError: it is another network.
    """
    channels, *sides = preset.features
    expected = [side * pixels / 224 for side, pixels in zip(sides, size, strict=True)]
    fits = all(abs(got - want) <= 1 for got, want in zip(features[1:], expected, strict=True))
    if size == (224, 224):
        fits = features == preset.features
    if features[0] != channels or not fits:
        raise UsageError(
            f"preset {preset.name} expects {channels} channels of {round(expected[0])}x{round(expected[1])} at "
            f"{size[0]}x{size[1]} (after {preset.after}), got {features[0]} of {features[1]}x{features[2]}: {source} "
            "is another network. Leave --preset out: the general rule takes any classifier."
        )
