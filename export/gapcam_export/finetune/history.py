"""The figures of a training, epoch by epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec

from gapcam_export.finetune.settings import Monitor


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch's.

    Attributes:
        epoch: from 1.
        frozen: whether only the head was trained.
        learning_rate: of the head at its end.
        train_loss: mean cross-entropy of the training images, augmented, while the network learned.
        train_top1: share of right answers on these, in [0, 1].
        val_loss: mean cross-entropy of the validation images after the epoch.
        val_top1: share of right answers on these, in [0, 1].
        seconds: that it took, validation included.
    """

    epoch: int
    frozen: bool
    learning_rate: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float

    def to_row(self) -> dict[str, Any]:
        """As plain numbers, which a checkpoint that holds no code can hold."""
        return msgspec.structs.asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Epoch:
        """Back from plain numbers."""
        return msgspec.convert(row, cls)

    def better_than(self, other: Epoch, monitor: Monitor) -> bool:
        """By validation loss or top-1; where top-1 is the same, by the loss."""
        if monitor == "top1" and self.val_top1 != other.val_top1:
            return self.val_top1 > other.val_top1
        return self.val_loss < other.val_loss


def to_csv(epochs: Sequence[Epoch]) -> bytes:
    """A table with a heading, a line an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, Epoch.__struct_fields__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(epoch.to_row() for epoch in epochs)
    return text.getvalue().encode()
