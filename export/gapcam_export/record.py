"""The preprocessing that a model library has on record for a network."""

from __future__ import annotations

from typing import Any, get_args

from torch import nn

from gapcam.contract import Interpolation, Preprocessing, Resize

# PIL's names, as torchvision and timm use them, in the contract's words.
_INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
}
# timm's crop modes: "border" pads what the crop lacks, as nothing on a device does.
_CROP_MODES: dict[str, Resize] = {"center": "crop", "squash": "squash", "border": "letterbox"}

assert set(_INTERPOLATIONS.values()) == set(get_args(Interpolation))  # noqa: S101  # the contract has no other


def preprocessing_from_timm(model: nn.Module) -> Preprocessing:
    """What timm's data config says of a model that timm made."""
    import timm.data

    config: dict[str, Any] = timm.data.resolve_model_data_config(model)
    return Preprocessing(
        size=tuple(config["input_size"][1:]),
        resize=_CROP_MODES.get(config["crop_mode"], "crop"),
        crop_pct=config["crop_pct"] or 1.0,
        interpolation=_INTERPOLATIONS.get(config["interpolation"], "bilinear"),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def preprocessing_from_torchvision(name: str) -> Preprocessing | None:
    """What the default weights of one of torchvision's classifiers were tested with, or None if it has no weights."""
    import torchvision.models

    weights = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    if weights is None:
        return None
    transforms = weights.transforms()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        size=(crop, crop),
        resize="crop",
        crop_pct=crop / resize,
        interpolation=_INTERPOLATIONS.get(transforms.interpolation.value, "bilinear"),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
