"""What training images go through, so that the network sees none of them twice alike."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from gapcam.contract import Preprocessing
from gapcam.frame import Frame
from gapcam.preprocessing import preprocess
from gapcam_export.finetune.settings import Augment

# Least area of the crop, aspect ratios, and how far brightness, contrast and saturation go.
_STRENGTHS = {"light": (0.6, (0.85, 1.18), 0.1), "standard": (0.25, (3 / 4, 4 / 3), 0.3)}


class Augmentation:
    """Makes a network's input from a training image: a random part, mirrored or not, in slightly other colours.

    Then mean, standard deviation and channel order as in the preprocessing. Chance is torch's global generator.

    Args:
        preprocessing: of the network.
        augment: "none" does what is done at validation; "light" crops at least 60 % of the area, "standard" 25 %
            (Szegedy et al. 2015).
        flip: whether half of the images are mirrored.
    """

    def __init__(self, preprocessing: Preprocessing, augment: Augment, *, flip: bool) -> None:
        self._preprocessing = preprocessing
        self._random: v2.Compose | None = None
        if augment != "none":
            area, ratio, jitter = _STRENGTHS[augment]
            steps: list[Any] = [
                v2.RandomResizedCrop(
                    preprocessing.size,
                    scale=(area, 1),
                    ratio=ratio,
                    interpolation=_interpolation(preprocessing),
                    antialias=True,
                ),
                v2.ColorJitter(jitter, jitter, jitter),
            ]
            self._random = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)
        mean, std = (torch.tensor(part)[:, None, None] for part in (preprocessing.mean, preprocessing.std))
        self._mean, self._std = mean, std

    def __call__(self, frame: Frame) -> Tensor:
        """[3,H,W] float32 of an image, H x W x 3 uint8 BGR."""
        if self._random is None:
            return torch.from_numpy(preprocess(frame, self._preprocessing))
        # RGB until the colours have been changed: their formulas weigh the channels.
        pixels = torch.from_numpy(np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)))
        seen: Tensor = self._random(pixels)
        if self._preprocessing.color == "bgr":
            seen = seen.flip(0)
        return (seen.float() / 255 - self._mean) / self._std


def _interpolation(preprocessing: Preprocessing) -> Any:
    # torchvision resizes tensors in no Lanczos; the bicubic is the nearest to it.
    name = "bicubic" if preprocessing.interpolation == "lanczos" else preprocessing.interpolation
    return v2.InterpolationMode(name)
