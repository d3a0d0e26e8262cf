"""How often a network is right on validation images, and how far that figure can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from gapcam.cli.console import progress_bar
from gapcam.contract import Preprocessing
from gapcam_export.finetune.labelled_images import LabelledImage
from gapcam_export.finetune.loading import EpochOrder, Images, loader

_Z = 1.959963984540054
"""The standard normal distribution's 97.5 % quantile: 95 % lie between it and its negative."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of right answers.

    Attributes:
        images: how many were shown.
        top1: of how many the best class was right.
        top5: of how many one of the five best was; None where there are five classes or fewer.
    """

    images: int
    top1: int
    top5: int | None


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927), which holds for few images and near 0 and 1, too.

    Args:
        right: how many were.
        images: of how many, 1 or more.

    Returns:
        Its two ends, in [0, 1].

    Example:
        >>> [round(end, 3) for end in wilson_interval(90, 100)]
        [0.826, 0.945]
    """
    share = right / images
    centre = share + _Z**2 / (2 * images)
    spread = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2))
    scale = 1 + _Z**2 / images
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def measure_accuracy(
    network: Callable[[Tensor], Tensor],
    images: Sequence[LabelledImage],
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    batch: int,
    workers: int,
    what: str,
) -> Accuracy:
    """Show images to a network in float32, with a bar on a terminal.

    Args:
        network: on `device`, in evaluation mode; takes [N,3,H,W] float32 and gives [N,K].
        images: which.
        preprocessing: the network's.
        device: where it runs.
        batch: images at a time.
        workers: processes that read them.
        what: the bar's title.
    """
    top1 = top5 = 0
    classes = 0
    batches = loader(Images(images, preprocessing), EpochOrder(len(images)), batch, workers)
    with torch.inference_mode(), progress_bar() as progress:
        task = progress.add_task(what, total=len(images))
        for shown, labels, _ in batches:
            logits = network(shown.to(device)).float().cpu()
            classes = logits.shape[1]
            best = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
            top1 += int(best[:, 0].sum())
            top5 += int(best.sum())
            progress.advance(task, len(labels))
    return Accuracy(images=len(images), top1=top1, top5=top5 if classes > 5 else None)
