"""Compares the new network with the old one on photographs, and fits its linear layer to the old logits there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

import gapcam
from gapcam.contract import Preprocessing
from gapcam.preprocessing import preprocess
from gapcam_export.photographs import MOST_IMAGES, default_photographs
from gapcam_export.surgery.affine_fit import Agreement, agreement, calibration_views, fit_affine, split
from gapcam_export.surgery.gap_network import GapNetwork

Floats = NDArray[np.floating[Any]]
# The part of the photographs that is held out of the fit, to measure on.
_HELD_OUT = 0.25
_SEED = 0
# Photographs from one word on progress to the next.
_STEP = 16


@dataclass(frozen=True)
class Teacher:
    """The old network, as what is to be matched.

    Attributes:
        network: from [N,3,H,W] to logits [N,K].
        size: (H, W) of its input in pixels.
    """

    network: nn.Module
    size: tuple[int, int]

    def logits(self, images: Tensor) -> Floats:
        """Its answers [N,K] to images [N,3,H,W], which are resized where it wants another size."""
        if tuple(images.shape[2:]) != self.size:
            images = interpolate(images, self.size, mode="bilinear", align_corners=False, antialias=True)
        with torch.no_grad():
            answers: Floats = self.network(images).numpy()
            return answers


@dataclass(frozen=True)
class Compared:
    """How the new logits agree with the old ones, and on what that was measured."""

    agreement: Agreement
    on: str


def fit_head(
    network: GapNetwork,
    teacher: Teacher,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    views: int,
    step: Callable[[str], None],
) -> tuple[Compared, str]:
    """Let the linear layer give the best affine fit of the old logits, by least squares; in place.

    Args:
        network: the new one; the linear layer gets its values.
        teacher: the old one.
        paths: photographs, at least two; a quarter of them is held out of the fit.
        preprocessing: of the new network.
        views: of each photograph: the whole of it, and random crops and flips.
        step: is called with what is done.

    Returns:
        The agreement on views of the photographs that were held out; and a note on the fit, or "".

    Raises:
        DataError: a photograph cannot be read.
        UsageError: the network gives values that are no finite numbers.
    """
    pooled, logits, of_photograph = [], [], []
    done = 0
    frames = map(gapcam.read_image, paths)
    for batch, indices in calibration_views(frames, preprocessing, views, _SEED):
        images = torch.from_numpy(batch)
        with torch.no_grad():
            pooled.append(network.head.pooled(network.backbone(images)).numpy())
        logits.append(teacher.logits(images))
        of_photograph.append(indices)
        done += len(batch)
        step(f"fitting to the old logits: {done} of {len(paths) * views} views")
    x, y, photograph = np.concatenate(pooled), np.concatenate(logits), np.concatenate(of_photograph)
    apart = np.isin(photograph, split(len(paths), _HELD_OUT, _SEED)[1])
    step(f"solving for {y.shape[1]} classes by least squares")
    fit = fit_affine(x[~apart], y[~apart], photograph[~apart])
    with torch.no_grad():
        network.head.linear.weight.copy_(torch.from_numpy(fit.weights))
        network.head.linear.bias.copy_(torch.from_numpy(fit.bias))
        answers = network.head.linear(torch.from_numpy(x[apart])).numpy()
    measured_on = f"{views} views of each of {apart.sum() // views} photographs that were held out of the fit"
    fitted = len(x) - int(apart.sum())
    few = fitted <= 2 * x.shape[1]
    note = f"the fit has only {fitted} views for {x.shape[1]} values each; more photographs make a better one"
    return Compared(agreement(y[apart], answers), measured_on), note if few else ""


def compare(
    network: GapNetwork,
    teacher: Teacher,
    paths: Sequence[Path] | None,
    preprocessing: Preprocessing,
    step: Callable[[str], None],
) -> Compared:
    """How a network agrees with the old one on the first photographs, each as it is.

    Args:
        network: the new one.
        teacher: the old one.
        paths: photographs, or None for scikit-image's four.
        preprocessing: of the new network.
        step: is called with what is done.

    Raises:
        DataError: a photograph cannot be read.
    """
    frames = default_photographs() if paths is None else map(gapcam.read_image, paths[:MOST_IMAGES])
    old, new = [], []
    for number, frame in enumerate(frames):
        if number % _STEP == 0:
            step(f"comparing with the old network: photograph {number + 1} and on")
        image = torch.from_numpy(preprocess(frame, preprocessing))[None]
        old.append(teacher.logits(image))
        with torch.no_grad():
            new.append(network(image).numpy())
    whose = "scikit-image's" if paths is None else "the first"
    return Compared(agreement(np.concatenate(old), np.concatenate(new)), f"{whose} {len(old)} photographs")
