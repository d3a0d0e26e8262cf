"""What a fine-tuning can be told: how to train, and on what."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from gapcam.errors import UsageError

Augment = Literal["none", "light", "standard"]
Monitor = Literal["loss", "top1"]
Precision = Literal["auto", "32", "16-mixed", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to train. A run that is continued must have the same.

    Attributes:
        epochs: at most, those with a frozen backbone among them.
        frozen_epochs: of the first ones, in which only the head is trained.
        batch: images a step, on all devices together.
        lr: learning rate of the head, after the warm-up.
        backbone_lr: the backbone's, as a fraction of the head's.
        weight_decay: AdamW's (Loshchilov and Hutter 2019).
        label_smoothing: share of the target that goes to all classes alike (Szegedy et al. 2016), in [0, 1).
        patience: epochs after the unfreezing without a better validation before training stops.
        monitor: what is better: a smaller validation loss, or a greater top-1 accuracy.
        augment: of the training images: "none", "light" or "standard".
        flip: whether "light" and "standard" mirror half of them; wrong for digits and text.
        train_batch_norm: whether BatchNorm learns statistics when the backbone is trained, or keeps those it has.
        val_fraction: of each class's images for validation, in (0, 1), where the folder has no val/ of its own.
        seed: of the split, the order, the augmentation and Dropout.

    Raises:
        UsageError: one is out of its range.
    """

    epochs: int = 30
    frozen_epochs: int = 5
    batch: int = 32
    lr: float = 1e-3
    backbone_lr: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    patience: int = 8
    monitor: Monitor = "loss"
    augment: Augment = "standard"
    flip: bool = True
    train_batch_norm: bool = False
    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, self.epochs >= 1, "1 or more")
        _check("frozen_epochs", self.frozen_epochs, self.frozen_epochs >= 0, "0 or more")
        _check("batch", self.batch, self.batch >= 1, "1 or more")
        _check("lr", self.lr, 0 < self.lr < float("inf"), "more than 0")
        _check("backbone_lr", self.backbone_lr, 0 < self.backbone_lr <= 1, "more than 0 and at most 1")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < float("inf"), "0 or more")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 or more and less than 1")
        _check("patience", self.patience, self.patience >= 1, "1 or more")
        _check("monitor", self.monitor, self.monitor in get_args(Monitor), "one of " + ", ".join(get_args(Monitor)))
        _check("augment", self.augment, self.augment in get_args(Augment), "one of " + ", ".join(get_args(Augment)))
        _check("val_fraction", self.val_fraction, 0 < self.val_fraction < 1, "between 0 and 1")
        _check("seed", self.seed, self.seed >= 0, "0 or more")


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """Where to train. A run may be continued on other hardware.

    Attributes:
        accelerator: "auto" takes GPUs where there are any.
        devices: "auto", a number, or GPUs' indices separated by commas; several train in step (DDP).
        precision: "auto" is mixed on a GPU (bf16 where it has it, else fp16), and 32 bits on the CPU.
        workers: processes a device that read images; None for what the machine has cores for, 0 for none.

    Raises:
        UsageError: one is out of its range.
    """

    accelerator: Accelerator = "auto"
    devices: str = "auto"
    precision: Precision = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        choices = get_args(Accelerator)
        _check("accelerator", self.accelerator, self.accelerator in choices, "one of " + ", ".join(choices))
        choices = get_args(Precision)
        _check("precision", self.precision, self.precision in choices, "one of " + ", ".join(choices))
        parts = self.devices.split(",")
        fits = self.devices == "auto" or all(part.strip().isdecimal() for part in parts)
        _check("devices", self.devices, fits and parts != ["0"], '"auto", a number above 0, or indices such as 0,1')
        _check("workers", self.workers, self.workers is None or self.workers >= 0, "0 or more")


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise UsageError(f"{name} is {value!r}; expected {expected}.")
