"""Runs Lightning's Trainer, without its chatter."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch import fx

from gapcam.cli.console import stderr
from gapcam.errors import BackendError, DataError
from gapcam_export.finetune.callbacks import LastCheckpoint, PatienceAfterUnfreezing, Recorder, WholeFiles
from gapcam_export.finetune.history import Epoch
from gapcam_export.finetune.run_folder import RunFolder
from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.training import FineTuning, ImageFolders


@dataclass(frozen=True)
class Trained:
    """A training that came to its end.

    Attributes:
        epochs: all figures.
        best: index of the best epoch.
        weights: file with the best epoch's weights, for `torch.load(weights_only=True)`.
        main: False in the helper processes of a training on several devices, which have nothing left to do.
    """

    epochs: Sequence[Epoch]
    best: int
    weights: Path
    main: bool


def device_of(hardware: Hardware) -> torch.device:
    """Where one device's work is done.

    Raises:
        BackendError: a GPU was asked for and there is none.
    """
    there = torch.cuda.is_available()
    if hardware.accelerator == "gpu" and not there:
        raise BackendError("PyTorch sees no GPU here; --accelerator gpu needs one. Leave it out to train on the CPU.")
    return torch.device("cuda" if there and hardware.accelerator != "cpu" else "cpu")


def train(
    model: fx.GraphModule,
    images: ImageFolders,
    folder: RunFolder,
    settings: Settings,
    hardware: Hardware,
    *,
    steps_per_epoch: int,
    changed: Callable[[list[Epoch]], None],
) -> Trained:
    """Train, or go on from the last checkpoint in the folder.

    Args:
        model: is changed.
        images: to train and validate on.
        folder: for checkpoints.
        settings: of the training.
        hardware: to train on.
        steps_per_epoch: on all devices together.
        changed: is called after each epoch, when its checkpoint is on the disk, with the figures of all.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came.
        TrainingError: training diverged.
        DataError: an image cannot be read any more.
        BackendError: there are no such devices.
        UsageError: the batch cannot be divided among them, or is too small for BatchNorm.
    """
    recorder = Recorder(folder.checkpoints, settings.monitor)
    callbacks: list[Callback] = [
        recorder,
        PatienceAfterUnfreezing(settings.monitor, settings.patience),
        LastCheckpoint(folder.checkpoints, lambda: changed(recorder.epochs)),
    ]
    if stderr.is_terminal:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    with _quiet(), _signals_kept():
        device = device_of(hardware)
        task = FineTuning(model, settings, steps_per_epoch)
        trainer = _trainer(folder, settings, hardware, device, callbacks, stages=task.unfreeze_epoch > 0)
        images.check_batch(model, trainer.world_size)
        last = folder.last_checkpoint if folder.last_checkpoint.exists() else None
        try:
            trainer.fit(task, images, ckpt_path=last, weights_only=True)
        except SystemExit:  # what Lightning makes of an interrupt
            raise KeyboardInterrupt from None
        except DataError as error:  # of a process that reads images it comes with that one's whole traceback
            raise DataError(str(error).strip().splitlines()[-1].removeprefix("gapcam.errors.DataError: ")) from None
    return Trained(recorder.epochs, recorder.best, recorder.best_weights, trainer.is_global_zero)


def _trainer(
    folder: RunFolder,
    settings: Settings,
    hardware: Hardware,
    device: torch.device,
    callbacks: list[Callback],
    *,
    stages: bool,
) -> Trainer:
    precision: Any = hardware.precision
    if precision == "auto" and device.type == "cuda":
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    elif precision == "auto":
        precision = 32
    devices: Any = hardware.devices
    if devices == "auto":
        devices = 1 if device.type == "cpu" else "auto"
    several = (torch.cuda.device_count() > 1) if devices == "auto" else devices not in ("1", 1)
    try:
        return Trainer(
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=devices if devices == "auto" or "," in str(devices) else int(devices),
            # What is frozen gets no gradient, and DDP has to know that this can be.
            strategy=DDPStrategy(find_unused_parameters=stages) if several else "auto",
            precision=precision,
            max_epochs=settings.epochs,
            callbacks=callbacks,
            plugins=[WholeFiles()],
            default_root_dir=folder.path,
            logger=False,
            enable_progress_bar=stderr.is_terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:  # RuntimeError: of CUDA
        raise BackendError(f"cannot train on devices {hardware.devices!r}: {' '.join(str(error).split())}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hardware lines, tips and advice."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)  # advice on workers and logging intervals
            warnings.filterwarnings("ignore", message=".*LeafSpec")  # it asks torch for what torch calls otherwise now
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Lightning leaves Ctrl-C ignored after the first."""
    kinds = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = [signal.getsignal(kind) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
