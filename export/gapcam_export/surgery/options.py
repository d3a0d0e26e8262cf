"""What a user may ask of surgery, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gapcam.contract import Color, Resize
from gapcam.errors import UsageError
from gapcam_export.preprocessing_arguments import check_preprocessing
from gapcam_export.surgery.presets import Preset, preset_named


@dataclass(frozen=True)
class Options:
    """What `gap_surgery` was asked for; its docstring explains each.

    Attributes:
        preset: the recipe, or None.
        conv: units of the added convolution; 0 for none.
        groups: of that convolution.
        dropout: probability.
        stride: of the maps in pixels, or None for the network's own.
        cut_stride: of the maps to cut after, or None for the last.
        size: (H, W) in pixels, or None for the network's own.
        classes: number of new classes, or None for the old ones.
        labels: file of class names, or None.
        calibrate: whether the new head is to be fitted on photographs.
        views: of each photograph.
        preprocessing: fields of `gapcam.contract.Preprocessing` that were given.
    """

    preset: Preset | None
    conv: int
    groups: int
    dropout: float
    stride: int | None
    cut_stride: int | None
    size: tuple[int, int] | None
    classes: int | None
    labels: Path | None
    calibrate: bool
    views: int
    preprocessing: dict[str, object]


def checked_options(
    *,
    preset: str | None,
    conv: int | None,
    groups: int,
    dropout: float,
    stride: int | None,
    cut_stride: int | None,
    size: tuple[int, int] | None,
    classes: int | None,
    labels: str | Path | None,
    calibrate: bool,
    views: int,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    resize: Resize | None,
    color: Color | None,
) -> Options:
    """Options with a preset's values where nothing else was asked for.

    Raises:
        UsageError: one is out of its range, or contradicts another.
    """
    recipe = None if preset is None else preset_named(preset)
    for name, value, least in (
        ("conv", conv, 0),
        ("groups", groups, 1),
        ("stride", stride, 1),
        ("cut-stride", cut_stride, 1),
        ("classes", classes, 1),
        ("views", views, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"--{name} is {value}; expected {least} or more.")
    check_preprocessing(size, mean, std)
    if not 0 <= dropout < 1:
        raise UsageError(f"--dropout is {dropout}; expected a probability from 0 to below 1, such as 0.5.")
    units = (recipe.conv if recipe else 0) if conv is None else conv
    if groups > 1 and not units:
        raise UsageError(f"--groups is {groups}, but no convolution is added; give its units with --conv.")
    if units % groups:
        raise UsageError(f"--groups {groups} does not divide the convolution's {units} units. Choose a divisor.")
    if classes is not None and calibrate:
        raise UsageError(
            "--calibrate fits the new head to the old classes' logits, and --classes gives it others. Choose one."
        )
    return Options(
        preset=recipe,
        conv=units,
        groups=groups,
        dropout=dropout,
        stride=stride,
        cut_stride=recipe.cut_stride if recipe and cut_stride is None else cut_stride,
        size=None if size is None else (size[0], size[1]),
        classes=classes,
        labels=None if labels is None else Path(labels),
        calibrate=calibrate,
        views=views,
        preprocessing={
            name: value
            for name, value in (("mean", mean), ("std", std), ("resize", resize), ("color", color))
            if value is not None
        },
    )
