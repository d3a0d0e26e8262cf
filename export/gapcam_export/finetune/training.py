"""The fine-tuning as Lightning wants it: batches, losses, what is frozen when, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, fx
from torch.nn import functional as F  # noqa: N812  # as everybody calls it
from torch.utils.data import DataLoader

from gapcam.contract import Preprocessing
from gapcam.errors import UsageError
from gapcam_export.finetune.augmentation import Augmentation
from gapcam_export.finetune.labelled_images import LabelledImage
from gapcam_export.finetune.loading import Batch, EpochOrder, Images, loader, seed_of
from gapcam_export.finetune.network import move_constants, normalizes_single_values, parts_of
from gapcam_export.finetune.settings import Settings
from gapcam_export.program import set_training


class ImageFolders(LightningDataModule):
    """Training and validation images, each device's share of them.

    Args:
        train: images to train on.
        val: images to validate on.
        preprocessing: the network's.
        settings: of the training; the batch is divided among the devices.
        workers: processes a device that read images.
    """

    def __init__(
        self,
        train: Sequence[LabelledImage],
        val: Sequence[LabelledImage],
        preprocessing: Preprocessing,
        settings: Settings,
        workers: int,
    ) -> None:
        super().__init__()
        augmentation = Augmentation(preprocessing, settings.augment, flip=settings.flip)
        self._train = Images(train, preprocessing, augmentation, settings.seed)
        self._val = Images(val, preprocessing)
        self._settings, self._workers = settings, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """Each epoch's images in an order of its own."""
        return self._loader(self._train, self._settings.seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The images in their order."""
        return self._loader(self._val, None)

    def check_batch(self, model: fx.GraphModule, world: int) -> None:
        """That so many devices can share the batch, and that BatchNorm can learn from a device's part of it.

        Raises:
            UsageError: they cannot.
        """
        batch = self._settings.batch
        if batch % world:
            raise UsageError(f"batch is {batch}, which {world} devices cannot share; expected a multiple.")
        if self._settings.train_batch_norm and batch == world and normalizes_single_values(model):
            raise UsageError(
                f"batch is {batch}, one image a device, of which a BatchNorm after a pooling in this network sees one "
                f"value a channel, and that has no variance; expected a batch of {2 * world} or more, or leave "
                "--train-batch-norm out."
            )

    def _loader(self, images: Images, seed: int | None) -> DataLoader[Batch]:
        assert self.trainer is not None  # noqa: S101  # Lightning sets it before it asks for batches
        world = self.trainer.world_size
        batch = self._settings.batch // world
        # A last batch of one image gets another, or BatchNorm after a pooling would have no variance to learn. Joined
        # with the batch before, or dropped, there would be other steps an epoch on another number of devices.
        alone = -(-len(images) // world) % batch == 1 if batch > 1 else False
        more = int(alone and images is self._train and self._settings.train_batch_norm)
        order = EpochOrder(len(images), rank=self.trainer.global_rank, world=world, seed=seed, more=more)
        return loader(images, order, batch, self._workers)


class FineTuning(LightningModule):
    """Trains the head first, then all; AdamW (Loshchilov and Hutter 2019), warm-up and cosine (the same, 2017).

    Args:
        model: a traced network; its parameters are changed.
        settings: of the training.
        steps_per_epoch: on any number of devices.
    """

    def __init__(self, model: fx.GraphModule, settings: Settings, steps_per_epoch: int) -> None:
        super().__init__()
        self.model = model
        self._settings = settings
        self._head, self._backbone = parts_of(model)
        self.unfreeze_epoch = min(settings.frozen_epochs, settings.epochs) if self._head and self._backbone else 0
        self._steps = steps_per_epoch
        # Sums over an epoch's images: of the loss, of right answers, of images.
        self._sums = {"train": torch.zeros(3), "val": torch.zeros(3)}

    @property
    def frozen(self) -> bool:
        """Whether only the head is trained in this epoch."""
        return self.current_epoch < self.unfreeze_epoch

    def configure_optimizers(self) -> Any:
        """One optimiser, which knows both parts from the start, so that a run can be continued in either phase."""
        settings, total = self._settings, self._settings.epochs * self._steps
        groups: list[dict[str, Any]] = []
        factors: list[Callable[[int], float]] = []
        fraction = settings.backbone_lr if self._head else 1.0  # where nothing is new, nothing has to be spared
        for parameters, lr, begin in (
            (self._head, settings.lr, 0),
            (self._backbone, settings.lr * fraction, self.unfreeze_epoch * self._steps),
        ):
            if parameters:
                groups.append({"params": parameters, "lr": lr})
                factors.append(partial(learning_rate_factor, begin=begin, total=total, epoch=self._steps))
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """The graph's own tensors follow the parameters to the device."""
        move_constants(self.model, self.device)

    def on_train_epoch_start(self) -> None:
        """Freeze or unfreeze; Dropout's chance depends on the epoch alone, so that a continued run has the same."""
        torch.manual_seed(seed_of(self._settings.seed, self.current_epoch, self.global_rank))
        for parameter in self._backbone:
            parameter.requires_grad_(not self.frozen)
        self._training_mode()
        self._sums["train"] = torch.zeros(3, device=self.device)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The smoothed cross-entropy; the curve gets the plain one, which compares with validation's."""
        del index
        images, labels, counts = batch
        logits = self.model(images)
        self._add("train", logits.detach(), labels, counts)
        return F.cross_entropy(logits, labels, label_smoothing=self._settings.label_smoothing)

    def on_validation_model_eval(self) -> None:
        """Evaluation, of a graph that `eval()` does not change."""
        set_training(self.model, dropout=False, batch_norm=False)

    def on_validation_model_train(self) -> None:
        """Back from evaluation."""
        self._training_mode()

    def on_validation_epoch_start(self) -> None:
        """A new sum."""
        self._sums["val"] = torch.zeros(3, device=self.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Counts."""
        del index
        images, labels, counts = batch
        self._add("val", self.model(images), labels, counts)

    def on_validation_epoch_end(self) -> None:
        """Loss and accuracy over the images of all devices; of training images, as the network was while it learned."""
        self._log("train")
        self._log("val")

    def _training_mode(self) -> None:
        set_training(self.model, dropout=True, batch_norm=self._settings.train_batch_norm and not self.frozen)

    def _add(self, part: str, logits: Tensor, labels: Tensor, counts: Tensor) -> None:
        losses = F.cross_entropy(logits.float(), labels, reduction="none") * counts
        right = (logits.argmax(1) == labels) & counts
        self._sums[part] += torch.stack([losses.sum(), right.sum().float(), counts.sum().float()])

    def _log(self, part: str) -> None:
        summed = self.trainer.strategy.reduce(self._sums[part], reduce_op="sum")
        assert isinstance(summed, Tensor)  # noqa: S101  # of a tensor it makes a tensor
        loss, right, images = summed
        # The same on every device already; without sync_dist Lightning would warn that it might not be.
        self.log(f"{part}_loss", loss / images, sync_dist=True)
        self.log(f"{part}_top1", right / images, sync_dist=True)


def learning_rate_factor(step: int, begin: int, total: int, epoch: int) -> float:
    """What a learning rate is multiplied with: 0 before `begin`, a linear warm-up, then a cosine to 0 at `total`.

    Args:
        step: of the whole training, from 0.
        begin: step from which these parameters are trained.
        total: steps of the whole training.
        epoch: steps in one; the warm-up takes one, or a tenth of what there is if that is less.
    """
    if step < begin:
        return 0.0
    warm_up = max(1, min(epoch, (total - begin) // 10))
    if step < begin + warm_up:
        return (step - begin + 1) / warm_up
    done = (step - begin - warm_up) / max(1, total - begin - warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
