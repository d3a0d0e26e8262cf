"""A fine-tuning, from a network and folders of images to a better network: the order of its steps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from lightning.pytorch.utilities import rank_zero_only

from gapcam.atomic_file import write_atomically
from gapcam.contract import Preprocessing
from gapcam.errors import DataError, UsageError
from gapcam.interleaved import one_opencv_thread
from gapcam_export.finetune.accuracy import Accuracy, measure_accuracy
from gapcam_export.finetune.callbacks import check_checkpoint
from gapcam_export.finetune.class_order import class_order
from gapcam_export.finetune.curve import draw_learning_curve
from gapcam_export.finetune.errors import InterruptedTrainingError
from gapcam_export.finetune.history import Epoch, to_csv
from gapcam_export.finetune.labelled_images import ClassFolders, find_class_folders, labelled, unreadable
from gapcam_export.finetune.loading import usable_cores
from gapcam_export.finetune.network import (
    classes_of,
    drop_assertions,
    load_network,
    move_constants,
    parts_of,
    tuned_record,
)
from gapcam_export.finetune.original import Original, load_original
from gapcam_export.finetune.report import Report, read_report
from gapcam_export.finetune.run_folder import CURVE, METRICS, NETWORK, REPORT, Run, RunFolder
from gapcam_export.finetune.settings import Hardware, Settings
from gapcam_export.finetune.trainer import Trained, device_of, train
from gapcam_export.finetune.training import ImageFolders
from gapcam_export.program import Program, ProgramRecord, load_program, save_program, set_training

_MOST_WORKERS = 8


@dataclass(frozen=True)
class _Task:
    """What a run works on."""

    path: Path
    program: Program
    record: ProgramRecord
    preprocessing: Preprocessing
    folders: ClassFolders
    classes: tuple[str, ...]
    settings: Settings
    hardware: Hardware
    device: torch.device
    notes: list[str]
    say: Callable[[str], None]

    def accuracy(
        self, network: Callable[[torch.Tensor], torch.Tensor], preprocessing: Preprocessing, run: Run, what: str
    ) -> Accuracy:
        """Of a network on the validation images."""
        images = labelled(self.folders.val, self.classes, _paths(self.folders, run))
        return measure_accuracy(
            network,
            images,
            preprocessing,
            device=self.device,
            batch=self.settings.batch,
            workers=_workers(self.hardware),
            what=what,
        )


def finetune(
    network: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    settings: Settings | None = None,
    hardware: Hardware | None = None,
    original: Original | None = None,
    fresh: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Report | None:
    """Train a network on folders of images; its new head first, then all of it.

    The same call after an interruption goes on from the last epoch that came to its end; what it ends with does not
    depend on the interruption.

    Args:
        network: a file that `gapcam gap` or this wrote, `.pt2`. The parameters of its head are called `head.*`; where
            there are none, all are trained from the start.
        data: a folder with train/CLASS and val/CLASS, or with CLASS alone, which is split.
        output: the folder to write to: gapnet.pt2, learning-curve.png, metrics.csv, report.json.
        settings: how to train.
        hardware: where to train.
        original: the network before its surgery, to compare with.
        fresh: forget an earlier run in the folder.
        progress: is called with a line for each step and each epoch.

    Returns:
        What was done and measured; None in the helper processes of a training on several devices.

    Raises:
        SourceError: the network or the original cannot be read.
        UsageError: an argument is out of its range or contradicts another; the data has another number of classes; or
            the folder has a run of something else.
        DataError: the images cannot be read, or the output cannot be written.
        TrainingError: training diverged.
        BackendError: the devices are not there.
        InterruptedTrainingError: Ctrl-C or SIGTERM came.
    """
    network, data, folder = Path(network), Path(data), RunFolder(Path(output))
    settings, hardware = settings or Settings(), hardware or Hardware()
    main = getattr(rank_zero_only, "rank", 0) == 0
    say = progress if progress is not None and main else _silent
    if network.resolve() == folder.file(NETWORK).resolve():
        raise UsageError(f"{network} would be overwritten by what comes out; choose another folder with -o.")
    device = device_of(hardware)
    notes: list[str] = []
    # OpenCV's threads do not survive the fork of the processes that read images, which would wait for them for ever.
    with torch.random.fork_rng(), one_opencv_thread():
        program, record, preprocessing = load_network(network, notes)
        count = classes_of(program, network)
        folders = find_class_folders(data, val_fraction=settings.val_fraction, seed=settings.seed)
        classes = class_order(folders.names, record.labels, count, notes)
        missing = [name for name in classes if not folders.val[name]]
        if missing:
            notes.append(f"{len(missing)} classes have no validation images, such as {missing[0]!r}")
        if folders.others:
            notes.append(
                f"{len(folders.others)} files are no images by their suffix and were passed over, such as "
                f"{folders.others[0]}"
            )
        task = _Task(network, program, record, preprocessing, folders, classes, settings, hardware, device, notes, say)
        drop_assertions(program.model)
        with folder.locked() if main else folder.unlocked():
            try:
                return _run(task, folder, original, fresh=fresh, main=main)
            except KeyboardInterrupt:
                raise InterruptedTrainingError(_how_to_go_on(folder)) from None


def _run(task: _Task, folder: RunFolder, original: Original | None, *, fresh: bool, main: bool) -> Report | None:
    sha256 = hashlib.sha256(task.path.read_bytes()).hexdigest()
    if main:
        task.say(f"reading {task.folders.count} images, to know them again")
        run = folder.open(sha256, task.folders.fingerprint(), task.settings, fresh=fresh)
    else:
        run = folder.opened()
    report = None
    if run.finished:
        folder.check_network()
        report = read_report(folder.file(REPORT))
    elif main and folder.last_checkpoint.exists():
        check_checkpoint(folder.last_checkpoint)
    loaded = None
    if original is not None and main:
        task.say(f"reading the original, {original}")
        loaded = load_original(original, task.classes, task.preprocessing, task.device)
        if (run.original_spec, run.original_weights) == (str(original), loaded.weights):
            loaded = None  # it was measured
    if report is not None and loaded is None:
        return msgspec.structs.replace(report, already_finished=True)
    continued = folder.last_checkpoint.exists()
    if main:
        _prepare(task, folder, run)
        if loaded is not None:
            task.say("measuring the original")
            run.original = task.accuracy(loaded.network, loaded.preprocessing, run, "the original")
            run.original_spec, run.original_weights = str(original), loaded.weights
            folder.save(run)
    del loaded  # its memory is needed for training
    trained = None if run.finished else _train(task, folder, run)
    if trained is not None and not trained.main:
        return None
    return _finish(task, folder, run, trained, continued=continued)


def _prepare(task: _Task, folder: RunFolder, run: Run) -> None:
    """What is done once before training: images are checked, the network is measured."""
    if run.skipped is None:
        everything = [
            path for part in (task.folders.train, task.folders.val) for paths in part.values() for path in paths
        ]
        task.say(f"checking {len(everything)} images of {len(task.classes)} classes")
        problems = unreadable(everything)
        for part, classes in (("training", task.folders.train), ("validation", task.folders.val)):
            for name, paths in classes.items():
                if paths and all(path in problems for path in paths):
                    raise DataError(
                        f"none of the {len(paths)} {part} images of class {name!r} can be read: {problems[paths[0]]}"
                    )
        root = task.folders.root
        run.skipped = {path.relative_to(root).as_posix(): problem for path, problem in problems.items()}
        folder.save(run)
        for problem in problems.values():
            task.say(f"skipped: {problem}")
    if run.before is None:
        task.say("measuring the network before training")
        move_constants(task.program.model, task.device)
        run.before = task.accuracy(task.program.model.to(task.device), task.preprocessing, run, "before training")
        folder.save(run)


def _train(task: _Task, folder: RunFolder, run: Run) -> Trained:
    settings, without = task.settings, _paths(task.folders, run)
    images = labelled(task.folders.train, task.classes, without)
    val = labelled(task.folders.val, task.classes, without)
    head, backbone = parts_of(task.program.model)
    if not head:
        task.notes.append("the network has no new head (no parameters head.*): all of it was trained from the start")
    frozen = min(settings.frozen_epochs, settings.epochs) if head and backbone else 0
    already = "going on from the last checkpoint: " if folder.last_checkpoint.exists() else ""
    task.say(
        f"{already}training on {len(images)} images, validating on {len(val)}: {settings.epochs} epochs at most, "
        f"{frozen} of them with a frozen backbone"
    )

    def changed(epochs: Sequence[Epoch]) -> None:
        write_atomically(folder.file(METRICS), to_csv(epochs))
        last = epochs[-1]
        task.say(
            f"epoch {last.epoch} of {settings.epochs}{' (head only)' if last.frozen else ''}: "
            f"loss {last.train_loss:.4f}, top-1 {last.train_top1:.1%}; validation: loss {last.val_loss:.4f}, "
            f"top-1 {last.val_top1:.1%} ({last.seconds:.1f} s)"
        )

    return train(
        task.program.model,
        ImageFolders(images, val, task.preprocessing, settings, _workers(task.hardware)),
        folder,
        settings,
        task.hardware,
        steps_per_epoch=math.ceil(len(images) / settings.batch),
        changed=changed,
    )


def _finish(task: _Task, folder: RunFolder, run: Run, trained: Trained | None, *, continued: bool) -> Report:
    """Write the best network, measure what was written, and report."""
    output = folder.file(NETWORK)
    if trained is None:  # only the original was asked for
        report = read_report(folder.file(REPORT))
        report = msgspec.structs.replace(report, original=run.original, original_spec=run.original_spec)
    else:
        best = trained.epochs[trained.best]
        skipped = run.skipped or {}
        images = len(labelled(task.folders.train, task.classes, _paths(task.folders, run)))
        task.say(f"writing {output}, the network of epoch {best.epoch}")
        model = task.program.model.cpu()
        model.load_state_dict(torch.load(trained.weights, weights_only=True))
        model.requires_grad_(True)
        set_training(model, dropout=False, batch_norm=False)
        move_constants(model, torch.device("cpu"))
        what = (
            f"Fine-tuned on {images} images of {len(task.classes)} classes, {len(trained.epochs)} epochs; the weights "
            f"are epoch {best.epoch}'s, with a validation top-1 of {best.val_top1:.1%}."
        )
        record = tuned_record(task.record, task.preprocessing, task.classes, what)
        save_program(model, task.program.size, record, output)
        write_atomically(folder.file(METRICS), to_csv(trained.epochs))
        write_atomically(folder.file(CURVE), draw_learning_curve(trained.epochs, trained.best))

        written = load_program(output).model
        move_constants(written, task.device)
        after = task.accuracy(written.to(task.device), task.preprocessing, run, "after training")
        assert run.before is not None  # noqa: S101  # measured before training
        report = Report(
            output=str(folder.path),
            network=str(task.path),
            data=str(task.folders.root),
            split=task.folders.split,
            classes=task.classes,
            train_images=images,
            val_images=after.images,
            skipped=skipped,
            settings=task.settings,
            original=run.original,
            original_spec=run.original_spec,
            before=run.before,
            after=after,
            epochs=tuple(trained.epochs),
            best_epoch=best.epoch,
            continued=continued,
            notes=tuple(task.notes),
        )
    write_atomically(folder.file(REPORT), msgspec.json.format(msgspec.json.encode(report.to_dict())))
    run.finished = True
    folder.save(run)
    folder.remove_checkpoints()
    return report


def _paths(folders: ClassFolders, run: Run) -> set[Path]:
    """The images that were skipped."""
    return {folders.root / place for place in run.skipped or ()}


def _workers(hardware: Hardware) -> int:
    return min(_MOST_WORKERS, usable_cores() - 1) if hardware.workers is None else hardware.workers


def _how_to_go_on(folder: RunFolder) -> str:
    if folder.last_checkpoint.exists():
        return "interrupted; the same command goes on after the last epoch that came to its end."
    return "interrupted before the first epoch came to its end; the same command begins again."


def _silent(line: str) -> None:
    del line
