"""What happens between epochs: figures, the best weights, early stopping, and checkpoints that survive a kill."""

from __future__ import annotations

import io
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gapcam.atomic_file import write_atomically
from gapcam.errors import DataError
from gapcam_export.finetune.errors import TrainingError
from gapcam_export.finetune.history import Epoch
from gapcam_export.finetune.settings import Monitor
from gapcam_export.finetune.training import FineTuning

METRIC = {"loss": "val_loss", "top1": "val_top1"}
BEST_KEY = "best"
"""Under which a checkpoint holds what `Recorder` knows."""


BEST_WEIGHTS = "epoch-{}.pt"
"""The file of the best epoch's weights, beside the checkpoint."""


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole, and are on the disk before they take their name."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one."""
        del storage_options
        _save_whole(checkpoint, Path(path))


class LastCheckpoint(ModelCheckpoint):
    """Everything that is needed to go on, after every epoch.

    Args:
        folder: for the checkpoint.
        saved: is called when it is on the disk, on one device only.
    """

    def __init__(self, folder: Path, saved: Callable[[], None]) -> None:
        self._saved = saved
        super().__init__(
            dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False, save_top_k=1
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, then say so."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self._saved()


class PatienceAfterUnfreezing(EarlyStopping):
    """Early stopping that does not count the epochs in which only the head is trained."""

    def __init__(self, monitor: Monitor, patience: int) -> None:
        mode = "min" if monitor == "loss" else "max"
        super().__init__(
            METRIC[monitor], patience=patience, mode=mode, check_finite=False, check_on_train_epoch_end=False
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, and stop if there was nothing better for too long."""
        assert isinstance(pl_module, FineTuning)  # noqa: S101  # it is made for no other
        if not pl_module.frozen:
            super().on_validation_end(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was killed when training had just stopped does not train on."""
        del pl_module
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Recorder(Callback):
    """Remembers every epoch's figures, and keeps the weights of the best one. Its state is part of a checkpoint.

    Args:
        folder: for the weights.
        monitor: what is better.

    Attributes:
        epochs: all so far, also those before the run was continued.
        best: index of the best one in `epochs`, or -1.
    """

    def __init__(self, folder: Path, monitor: Monitor) -> None:
        self._folder, self._monitor = folder, monitor
        self.epochs: list[Epoch] = []
        self.best = -1
        self._begin = 0.0

    @property
    def best_weights(self) -> Path:
        """The best epoch's."""
        return self._folder / BEST_WEIGHTS.format(self.best + 1)

    @property
    def state_key(self) -> str:
        """Its name in a checkpoint."""
        return BEST_KEY

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"epochs": [epoch.to_row() for epoch in self.epochs], "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.epochs = [Epoch.from_row(row) for row in state_dict["epochs"]]
        self.best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """SIGTERM ends the run as Ctrl-C does. Lightning's own handler, set just before, would wait for the epoch."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time, and room: now that the last checkpoint names the best weights, others can go."""
        del pl_module
        self._begin = time.monotonic()
        if trainer.is_global_zero:
            for path in self._folder.glob(BEST_WEIGHTS.format("*")):
                if path != self.best_weights:
                    path.unlink()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the figures, and the weights if they are the best."""
        assert isinstance(pl_module, FineTuning)  # noqa: S101  # it is made for no other
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = Epoch(
            epoch=trainer.current_epoch + 1,
            frozen=pl_module.frozen,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
            train_loss=figures["train_loss"],
            train_top1=figures["train_top1"],
            val_loss=figures["val_loss"],
            val_top1=figures["val_top1"],
            seconds=time.monotonic() - self._begin,
        )
        if not math.isfinite(epoch.train_loss) or not math.isfinite(epoch.val_loss):
            raise TrainingError(
                f"the loss in epoch {epoch.epoch} is {epoch.train_loss:g}, {epoch.val_loss:g} in validation: training "
                "diverged. Start anew with a smaller --lr (--fresh), or with --precision 32."
            )
        self.epochs.append(epoch)
        if self.best < 0 or epoch.better_than(self.epochs[self.best], self._monitor):
            self.best = len(self.epochs) - 1
            if trainer.is_global_zero:
                weights = {name: part.cpu() for name, part in pl_module.model.state_dict().items()}
                _save_whole(weights, self.best_weights)


def check_checkpoint(path: Path) -> None:
    """That a run can go on from a checkpoint to its end.

    Raises:
        DataError: it is damaged, or the best epoch's weights beside it are missing or damaged.
    """
    best = _read(path)["callbacks"][BEST_KEY]["best"]
    _read(path.with_name(BEST_WEIGHTS.format(best + 1)))


def _save_whole(content: dict[str, Any], path: Path) -> None:
    """So that it is on the disk before it takes its name."""
    saved = io.BytesIO()
    torch.save(content, saved)
    write_atomically(path, saved.getvalue())


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else "it is cut off or damaged"
        raise DataError(
            f"{path}, without which the run there cannot go on, cannot be read: {reason}; start anew with --fresh."
        ) from error
    return content
