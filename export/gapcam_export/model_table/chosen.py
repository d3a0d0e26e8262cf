"""Which models the table has, and what each stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gapcam.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


LIBRARIES = ("torchvision", "timm", "others")


class Chosen(NamedTuple):
    """A model of the table: its SOURCE, and in a few words what it stands for."""

    source: str
    about: str

    @property
    def library(self) -> str:
        """Whose model it is: one of `LIBRARIES`."""
        origin = self.source.partition(":")[0]
        return {"torchvision": "torchvision", "timm": "timm", __name__: "timm"}.get(origin, "others")

    @property
    def name(self) -> str:
        """SOURCE without the library."""
        return self.source.partition(":")[2]


# Beside the smallest of each family: those whose head or last stage differs from it, and those that everybody has.
_MORE_OF_TORCHVISION = {
    "efficientnet_v2_s": "efficientnet: fused blocks",
    "mobilenet_v3_large": "mobilenetv3: the large one",
    "regnet_x_400mf": "regnet: without squeeze-and-excite",
    "resnet50": "resnet: bottleneck blocks",
    "resnext50_32x4d": "resnet: grouped convolutions",
    "swin_v2_t": "swin_transformer: version 2",
    "vgg11_bn": "vgg: with BatchNorm",
    "vgg16": "vgg: that of Zhou et al. 2016",
    "wide_resnet50_2": "resnet: twice as wide",
}

# The most used first, then by kind of architecture; of each the smallest that is still typical.
_TIMM = (
    ("resnet50", "ResNet"),
    ("efficientnet_b0", "EfficientNet"),
    ("vit_tiny_patch16_224", "ViT with a class token"),
    ("mobilenetv3_small_100", "MobileNetV3: convolution and activation after the pool"),
    ("mobilenetv4_conv_small", "MobileNetV4: convolution, norm and activation after the pool"),
    ("convnext_tiny", "ConvNeXt: layer norm after the pool"),
    ("swin_tiny_patch4_window7_224", "Swin: norm before the pool, NHWC"),
    ("resnet18", "ResNet, basic blocks"),
    ("mobilenetv2_100", "MobileNetV2"),
    ("tf_efficientnetv2_b0", "EfficientNetV2, TensorFlow's padding"),
    ("efficientnet_lite0", "EfficientNet-Lite"),
    ("regnety_002", "RegNetY"),
    ("densenet121", "DenseNet"),
    ("legacy_seresnet18", "SENet"),
    ("dpn68", "DPN: norm and activation before the pool"),
    ("skresnet18", "SKNet"),
    ("resnetv2_50", "pre-activation ResNet: norm before the pool"),
    ("convnextv2_atto", "ConvNeXt V2: global response norm"),
    ("resnest14d", "ResNeSt: split attention"),
    ("ese_vovnet19b_dw", "VoVNet"),
    ("lcnet_050", "PP-LCNet: MobileNetV3's head"),
    ("ghostnet_100", "GhostNet: convolution and activation after the pool"),
    ("rexnet_100", "ReXNet"),
    ("mixnet_s", "MixNet: kernels of several sizes"),
    ("hgnetv2_b0", "PP-HGNetV2: convolution and activation after the pool"),
    ("fasternet_t0", "FasterNet: convolution and activation after the pool"),
    ("starnet_s1", "StarNet: products of features"),
    ("inception_next_atto", "InceptionNeXt: MLP after the pool"),
    ("rdnet_tiny", "RDNet: ConvNeXt's blocks, densely connected"),
    ("mambaout_femto", "MambaOut: gated convolutions, NHWC"),
    ("mixer_s16_224", "MLP-Mixer: averaged tokens"),
    ("resmlp_12_224", "ResMLP: averaged tokens"),
    ("vit_wee_patch16_reg1_gap_256", "ViT, averaged tokens without the register token"),
    ("vit_relpos_small_patch16_224", "ViT with relative positions, averaged tokens"),
    ("vit_base_patch16_siglip_224", "ViT, pooled by attention"),
    ("deit_tiny_patch16_224", "DeiT: class token"),
    ("deit_tiny_distilled_patch16_224", "DeiT, distilled: two tokens, two heads"),
    ("eva02_tiny_patch14_224", "EVA-02: rotary positions"),
    ("cait_xxs24_224", "CaiT: class attention"),
    ("crossvit_9_240", "CrossViT: two branches with class tokens, two heads"),
    ("volo_d1_224", "VOLO: class attention, a second head for the tokens"),
    ("levit_128s", "LeViT: averaged tokens, two heads with BatchNorm"),
    ("efficientformer_l1", "EfficientFormer: averaged tokens, two heads"),
    ("repvit_m0_9", "RepViT: two heads with BatchNorm"),
    ("swinv2_tiny_window8_256", "Swin V2"),
    ("pvt_v2_b0", "PVT v2: averaged tokens"),
    ("hiera_tiny_224", "Hiera: averaged tokens"),
    ("poolformer_s12", "PoolFormer: norm after the pool"),
    ("caformer_s18", "CAFormer: MLP after the pool"),
    ("tiny_vit_5m_224", "TinyViT"),
    ("mobilevit_xxs", "MobileViT"),
    ("edgenext_xx_small", "EdgeNeXt"),
    ("fastvit_t8", "FastViT: branches not folded"),
    ("efficientvit_b0", "EfficientViT (MIT): layers with activations after the pool"),
    ("efficientvit_m0", "EfficientViT (Microsoft): BatchNorm after the pool"),
)


def max_pooled() -> nn.Module:
    """timm's ResNet-18, its feature maps pooled by their maximum."""
    return _resnet18("max")


def average_and_max_pooled() -> nn.Module:
    """timm's ResNet-18, pooled by the mean of average and maximum."""
    return _resnet18("avgmax")


def average_beside_max_pooled() -> nn.Module:
    """timm's ResNet-18, pooled by average and maximum, the two beside each other."""
    return _resnet18("catavgmax")


def _resnet18(global_pool: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("resnet18", global_pool=global_pool)
    return model


_OTHER_POOLINGS = (
    (max_pooled, 'ResNet with global_pool="max"'),
    (average_and_max_pooled, 'ResNet with global_pool="avgmax"'),
    (average_beside_max_pooled, 'ResNet with global_pool="catavgmax"'),
)


def torchvision_families() -> dict[str, list[str]]:
    """The families of the installed torchvision, each with its classifiers, those with the fewest parameters first.

    A family is what one of torchvision's modules defines.
    """
    import torchvision.models

    families: dict[str, list[str]] = {}
    for name in torchvision.models.list_models(torchvision.models):
        module = torchvision.models.get_model_builder(name).__module__
        families.setdefault(module.rpartition(".")[2], []).append(name)

    def parameters(name: str) -> int:
        return min(int(weights.meta["num_params"]) for weights in torchvision.models.get_model_weights(name))

    return {family: sorted(names, key=parameters) for family, names in sorted(families.items())}


def chosen_models() -> list[Chosen]:
    """All models of the table, in its order."""
    models = []
    for family, (smallest, *others) in torchvision_families().items():
        models.append(Chosen(f"torchvision:{smallest}", family))
        models += [
            Chosen(f"torchvision:{name}", _MORE_OF_TORCHVISION[name]) for name in others if name in _MORE_OF_TORCHVISION
        ]
    models += [Chosen(f"timm:{name}", about) for name, about in _TIMM]
    models += [Chosen(f"{factory.__module__}:{factory.__name__}", about) for factory, about in _OTHER_POOLINGS]
    return models


def models_named(names: tuple[str, ...]) -> list[Chosen]:
    """Models by SOURCE or by the name in it; those that are not chosen, too, if they are a SOURCE.

    Raises:
        UsageError: a name that is neither.
    """
    from gapcam_export.factory import did_you_mean  # imports torch, which --help needs not

    chosen = chosen_models()
    found = []
    for name in names:
        matches = [model for model in chosen if name in (model.source, model.name)]
        if not matches and ":" not in name:
            known = sorted({model.name for model in chosen})
            raise UsageError(
                f"--only {name}: the table has no such model.{did_you_mean(name, known)} Any other is given as a "
                f"SOURCE, such as timm:{name}."
            )
        found += matches or [Chosen(name, "")]
    return list(dict.fromkeys(found))
