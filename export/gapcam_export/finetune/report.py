"""What a fine-tuning did and reached: the file report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gapcam.errors import DataError
from gapcam_export.finetune.accuracy import Accuracy, wilson_interval
from gapcam_export.finetune.history import Epoch
from gapcam_export.finetune.settings import Settings


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was done and measured.

    Attributes:
        output: the folder.
        network: the file that was fine-tuned.
        data: the folder of the images.
        split: how training and validation images came about.
        classes: in the order of the logits.
        train_images: how many.
        val_images: how many.
        skipped: images that could not be read, and why.
        settings: of the training.
        original: the original network's accuracy, or None.
        original_spec: what the original is.
        before: the network's accuracy before training.
        after: that of the file that was written.
        epochs: all figures.
        best_epoch: whose weights the file has, from 1.
        continued: whether the run had been interrupted and this process went on with it.
        already_finished: whether there was nothing left to do.
        notes: what the user should know.
    """

    output: str
    network: str
    data: str
    split: str
    classes: tuple[str, ...]
    train_images: int
    val_images: int
    skipped: dict[str, str]
    settings: Settings
    original: Accuracy | None
    original_spec: str
    before: Accuracy
    after: Accuracy
    epochs: tuple[Epoch, ...]
    best_epoch: int
    continued: bool
    already_finished: bool = False
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; accuracies with their shares and 95 % intervals."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("original", "before", "after"):
            plain[name] = _with_shares(getattr(self, name))
        return plain


def _with_shares(accuracy: Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    shares: dict[str, Any] = {"images": accuracy.images}
    for name in ("top1", "top5"):
        right: int | None = getattr(accuracy, name)
        if right is not None:
            interval = wilson_interval(right, accuracy.images)
            shares[name] = {"right": right, "share": right / accuracy.images, "interval95": interval}
        else:
            shares[name] = None
    return shares


def read_report(path: Path) -> Report:
    """The report that an earlier run wrote.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        plain = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        for name in ("original", "before", "after"):
            if plain[name] is not None:
                plain[name] |= {rank: part and part["right"] for rank, part in plain[name].items() if rank != "images"}
        return msgspec.convert(plain, Report)
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}, of a finished run, cannot be read ({error}); start anew with --fresh.") from error
