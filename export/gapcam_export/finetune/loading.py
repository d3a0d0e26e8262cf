"""Feeds images to a network: which one, when, and with which chance, the same on any number of devices and workers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gapcam.contract import Preprocessing
from gapcam.image_file import read_image
from gapcam.preprocessing import preprocess
from gapcam_export.finetune.augmentation import Augmentation
from gapcam_export.finetune.labelled_images import LabelledImage

Key = tuple[int, int, bool]
"""Epoch, index of an image, and whether it counts: some are there twice, for devices to have as many each, or a
batch enough."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Images [N,3,H,W] float32, classes [N] int64, and whether they count [N] bool."""


def seed_of(*parts: int) -> int:
    """A seed for torch that differs where any of the numbers does."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class EpochOrder(Sampler[Key]):
    """The order of an epoch's images on one of several devices. It depends on seed and epoch alone.

    Args:
        count: images in all.
        rank: which device.
        world: how many there are.
        seed: of the order, or None for that of the images.
        more: images that each device takes once more at the end.
    """

    def __init__(self, count: int, *, rank: int = 0, world: int = 1, seed: int | None = None, more: int = 0) -> None:
        self._more = more
        self._count, self._rank, self._world, self._seed = count, rank, world, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Is called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._count // self._world) + self._more

    def __iter__(self) -> Iterator[Key]:
        order = list(range(self._count))
        if self._seed is not None:
            generator = torch.Generator().manual_seed(seed_of(self._seed, self._epoch))
            order = torch.randperm(self._count, generator=generator).tolist()
        for place in range(self._rank, len(self) * self._world, self._world):
            yield self._epoch, order[place % self._count], place < self._count


class Images(Dataset[Any]):
    """Labelled images as a network takes them.

    Args:
        images: of which.
        preprocessing: of the network; validation images go through exactly what the runtime does.
        augmentation: for training images, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self._images, self._preprocessing = images, preprocessing
        self._augmentation, self._seed = augmentation, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, bool]:
        epoch, index, counts = key
        image = self._images[index]
        frame = read_image(image.path)
        if self._augmentation is None:
            return torch.from_numpy(preprocess(frame, self._preprocessing)), image.label, counts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self._seed, epoch, index))
            return self._augmentation(frame), image.label, counts


def loader(images: Images, order: EpochOrder, batch: int, workers: int) -> DataLoader[Batch]:
    """Batches of images, read by so many processes."""
    return DataLoader(
        images,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its seeds for workers are not to be drawn from the generator that Dropout uses
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_thread(worker: int) -> None:
    del worker
    cv2.setNumThreads(1)
