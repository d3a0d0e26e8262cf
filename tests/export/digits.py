"""A small real data set as folders of images, and a small network of VGG's shape to train on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gapcam.contract import Preprocessing, Source
from gapcam_export.program import ProgramRecord, save_program

SIDE = 24


def write_digits(folder: Path, *, per_class: int | None = None, classes: int = 10) -> Path:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to 24 x 24, as folder/CLASS/NUMBER.png."""
    digits = load_digits()
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(digits.target == label)[:per_class]:
            image = np.uint8(digits.images[number] * (255 / 16))
            image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            assert cv2.imwrite(str(folder / str(label) / f"{number}.png"), image)
    return folder


def _block(before: int, after: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for wide in (before, after):
        layers += [nn.Conv2d(wide, after, 3, padding=1), nn.ReLU(inplace=True)]
    return layers


class SmallVgg(nn.Module):
    """Three blocks of two convolutions and a pooling, flatten, three FC layers with Dropout, as torchvision's VGG."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(3, 16), nn.MaxPool2d(2), *_block(16, 32), nn.MaxPool2d(2), *_block(32, 48), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Linear(48 * 3 * 3, 128), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(128, 128), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(128, classes),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(image), 1))


class TinyGap(nn.Module):
    """A backbone of one convolution with BatchNorm, and the head that surgery gives; trains in a moment."""

    def __init__(self, classes: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image))


def save(network: nn.Module, path: Path, *, labels: tuple[str, ...] = ()) -> Path:
    """As an exported program with a record."""
    record = ProgramRecord(
        producer="a test",
        source=Source(spec="digits.py:network", sha256=""),
        preprocessing=Preprocessing(size=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        labels=labels,
    )
    save_program(network.eval(), (SIDE, SIDE), record, path)
    return path
