"""The public function `fidelity`: two models, of whatever kind, compared on images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import gapcam
from gapcam.backends.onnx_file import ENGINE_SUFFIXES
from gapcam.boxes import THRESHOLD, check_threshold
from gapcam.cli.inputs import find_images
from gapcam.cli.output import display_name, encodable
from gapcam.contract import Contract
from gapcam.engine_file import is_engine
from gapcam.errors import DataError, UsageError
from gapcam_export.comparison.latency import ROUNDS
from gapcam_export.comparison.report import WORST, FidelityReport, SkippedImage, report_fidelity


def fidelity(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    threshold: float = THRESHOLD,
    threads: int | None = None,
    latency: bool = True,
    worst: int = WORST,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> FidelityReport:
    """Compare two models on the same images: classes, logits, maps, boxes, sizes and speed.

    Args:
        a: the reference: an ONNX or engine file that `gapcam.load` takes, or a network in PyTorch as `export` takes it
            (torchvision:NAME, timm:NAME, package.module:factory, path/to/file.py:factory, network.pt2).
        b: the model that is compared with it, likewise.
        images: a folder (with its subfolders), a file or a pattern, or several of them.
        threshold: of the boxes, as a part of a map's maximum, in [0, 1).
        threads: that one inference may use, 1 to 1024; by default every physical core.
        latency: whether to measure how long both take.
        worst: how many of the images on which the maps differ most the report keeps, for its page.
        checkpoint: weights of the one network in PyTorch.
        pretrained: let torchvision or timm fetch the weights of the one network in PyTorch.
        progress: called with what is being done, how much of it is done, and of how much.

    Returns:
        The report. Images that cannot be read are left out and named in it.

    Raises:
        DataError: there is no image, or none that can be read.
        ModelError: a model cannot be loaded, or they have different numbers of classes.
        VerificationError: a model's logits are not finite.
        UsageError: an argument is out of its range, or weights are given without a network to load them into.
        MissingExtraError: the package that runs one of the models is not installed.
    """
    check_threshold(threshold, None)
    if worst < 0:
        raise UsageError(f"worst is {worst}; give the number of images to keep, from 0")
    specs = (os.fspath(a), os.fspath(b))
    networks = [spec for spec in specs if _is_network(spec)]
    if (checkpoint is not None or pretrained) and len(networks) != 1:
        counted = "both models are networks in PyTorch" if networks else "neither model is a network in PyTorch"
        raise UsageError(
            f"{counted}; --checkpoint and --pretrained are for exactly one that is. Models in files have their weights "
            "inside"
        )
    given = [images] if isinstance(images, str | os.PathLike) else images
    found = find_images([os.fspath(image) for image in given], recursive=True)
    problems = [SkippedImage(display_name(image.path), encodable(image.problem)) for image in found if image.problem]
    paths = [image.path for image in found if not image.problem]
    if not paths:
        raise DataError(problems[0].error if problems else "no image was given; name a folder of them with --images")
    progress("loading the models", 0, 2)
    with ExitStack() as stack:
        sessions: dict[int, gapcam.Session] = {}
        # Files first: a network in PyTorch has no contract of its own, and takes the other's.
        for index in sorted((0, 1), key=lambda index: _is_network(specs[index])):
            like = sessions.get(1 - index)
            session = _load(
                specs[index], threads, checkpoint, pretrained, None if like is None else like.contract, progress
            )
            sessions[index] = stack.enter_context(session)
            progress("loading the models", len(sessions), 2)
        report = report_fidelity(
            sessions[0],
            sessions[1],
            paths,
            names=specs,
            threshold=threshold,
            threads=threads,
            latency=latency,
            worst=worst,
            on_image=lambda done: progress("comparing images", done, len(paths)),
            after_round=lambda done: progress("measuring latency", done, ROUNDS),
        )
    return replace(report, skipped=(*problems, *report.skipped))


def _load(
    spec: str,
    threads: int | None,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool,
    like: Contract | None,
    progress: Callable[[str, int, int], None],
) -> gapcam.Session:
    if _is_network(spec):
        # Here, because a device that compares two files has no torch.
        from gapcam_export.comparison.torch_backend import torch_session

        return torch_session(
            spec,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            pretrained=pretrained,
            like=like,
            threads=threads,
            progress=lambda step: progress(step, 0, 1),
        )
    # An identity that does not hold is a note in the report, not its end: how far the maps are is the question.
    # ONNX files run on the CPU, so that figures of two machines are comparable; an engine runs where it can.
    device = "auto" if is_engine(Path(spec)) or spec.lower().endswith(ENGINE_SUFFIXES) else "cpu"
    return gapcam.load(spec, device=device, threads=threads, verify=False)


def _is_network(spec: str) -> bool:
    """Whether a SOURCE is a network in PyTorch, and not a file that `gapcam.load` takes."""
    if spec.lower().endswith(".pt2"):
        return True
    # A name that ends so is a file's, also where there is none: `gapcam.load` says that best.
    if spec.lower().endswith((".onnx", *ENGINE_SUFFIXES)) or Path(spec).is_file():
        return False
    origin, _, name = spec.rpartition(":")
    return bool(origin and name)
