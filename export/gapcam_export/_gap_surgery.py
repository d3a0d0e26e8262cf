"""GAP surgery in Python: what may be asked for, before anything that needs torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gapcam.atomic_file import check_writable
from gapcam.contract import Color, Resize
from gapcam.errors import DataError, UsageError
from gapcam_export.errors import SourceError
from gapcam_export.photographs import photograph_paths
from gapcam_export.sources import TorchSource, load_source
from gapcam_export.surgery.options import checked_options
from gapcam_export.surgery.report import SurgeryReport

if TYPE_CHECKING:
    from torch import nn


def gap_surgery(
    source: str | nn.Module,
    output: str | Path | None,
    *,
    preset: str | None = None,
    conv: int | None = None,
    groups: int = 1,
    dropout: float = 0.0,
    stride: int | None = None,
    cut_stride: int | None = None,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    labels: str | Path | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    resize: Resize | None = None,
    color: Color | None = None,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    calibrate: str | Path | None = None,
    views: int = 8,
    progress: Callable[[str], None] | None = None,
) -> SurgeryReport:
    """Make a GAP network of a classifier: its head goes, global average pooling and one linear layer come.

    Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, section 3.1, for any network: it is
    traced, and cut after the last feature maps that every path from the image to the logits passes through.

    Args:
        source: "torchvision:NAME", "timm:NAME", "package.module:factory", "path/to/file.py:factory", an exported
            program "network.pt2", or a network in PyTorch that takes [N,3,H,W] float32.
        output: the file to write, `.pt2`, whole or not at all; None writes none.
        preset: a recipe of the paper: "alexnet", "vgg16" or "googlenet".
        conv: units of a 3x3 convolution with ReLU before the pooling, 0 for none; None for the preset's, or none.
        groups: of that convolution.
        dropout: probability in training, of values of the pooled vector, in [0, 1).
        stride: of the maps in pixels: strides of the last layers become dilation, the weights stay.
        cut_stride: cut after the last maps of this stride instead of after the last of all.
        size: (H, W) of the network's input in pixels; by default the one that SOURCE has on record, else 224 x 224.
        classes: number of new classes, for a linear layer with random values; None keeps the old ones.
        labels: file of class names.
        mean: per channel on the scale 0..1; by default what SOURCE has on record, else ImageNet's. These four are kept
            in the file, for fine-tuning and the export.
        std: likewise.
        resize: "squash", "crop" or "letterbox"; by default what SOURCE has on record, else "squash".
        color: channel order that the network wants; by default "rgb".
        checkpoint: weights for SOURCE, as `export` takes them.
        pretrained: let torchvision or timm fetch their own weights.
        calibrate: folder of photographs. Where the old head is not affine, the new one is fitted to its logits on them.
        views: random crops and flips of each photograph for the fit.
        progress: is called with each step's name before it begins.

    Returns:
        What was done and measured, and the network, whose backbone shares its weights with a network given as `source`.

    Raises:
        SourceError: SOURCE cannot be found, built, read, traced or cut.
        CheckpointError: the weights do not fit.
        LabelsError: the labels do not fit.
        UsageError: an argument is out of its range, or contradicts another or the network.
        DataError: an image cannot be read, or the output not be written.
        MissingExtraError: a package that SOURCE needs is not installed.
    """
    step = progress or _silent
    options = checked_options(
        preset=preset,
        conv=conv,
        groups=groups,
        dropout=dropout,
        stride=stride,
        cut_stride=cut_stride,
        size=size,
        classes=classes,
        labels=labels,
        calibrate=calibrate is not None,
        views=views,
        mean=mean,
        std=std,
        resize=resize,
        color=color,
    )
    path = None if output is None else Path(output)
    if path is not None:
        _check_output(path)
    photographs = None if calibrate is None else _photographs(Path(calibrate))
    loaded = _load(source, checkpoint, step, pretrained=pretrained)
    # Here and not above: importing gapcam_export must not need torch.
    from gapcam_export.surgery.steps import operate

    modes = [(module, module.training) for module in loaded.model.modules()]
    try:
        loaded.model.eval()
        return operate(loaded, path, options, photographs, step)
    finally:
        for module, training in modes:
            module.training = training


def _silent(step: str) -> None:
    del step


def _check_output(path: Path) -> None:
    check_writable(path)
    if path.suffix != ".pt2":
        raise UsageError(
            f"the output is {path}; expected a name that ends in .pt2, PyTorch's format of exported programs. "
            f"Then gapcam export {path.with_suffix('.pt2')} -o model.onnx makes ONNX of it."
        )


def _photographs(folder: Path) -> list[Path]:
    paths = photograph_paths(folder, "--calibrate")
    if len(paths) < 2:
        raise DataError(
            f"--calibrate {folder}: the folder holds one image; expected two or more, better hundreds: some are held "
            "out of the fit, to measure on."
        )
    return paths


def _load(
    source: str | nn.Module, checkpoint: str | Path | None, step: Callable[[str], None], *, pretrained: bool
) -> TorchSource:
    if not isinstance(source, str):
        if checkpoint is not None or pretrained:
            raise UsageError("checkpoint and pretrained are for a source that is named; a network has its weights.")
        return TorchSource(type(source).__name__, source, None, "")
    step(f"building {source}")
    loaded = load_source(source, checkpoint=None if checkpoint is None else Path(checkpoint), pretrained=pretrained)
    if not isinstance(loaded, TorchSource):
        raise SourceError(
            f"{source} is an ONNX model; surgery traces a network in PyTorch, whose weights can then be fine-tuned. "
            "Give the network that it was exported from: torchvision:NAME, timm:NAME, a factory or a .pt2 file."
        )
    return loaded
