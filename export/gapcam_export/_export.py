"""The export, from SOURCE to a verified file: the order of its steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx

import gapcam
from gapcam.atomic_file import check_spares, check_writable
from gapcam.contract import CONTRACT_VERSION, LOGITS, Color, Contract, Head, Preprocessing, Resize, Scores
from gapcam.errors import UsageError
from gapcam_export.classifier import Classifier, classifier_from_onnx, classifier_from_torch
from gapcam_export.graph import graph_inputs
from gapcam_export.head import find_head, find_score_operator
from gapcam_export.labels import labels_for
from gapcam_export.nonlinear import Chain
from gapcam_export.photographs import default_photographs, photographs_in
from gapcam_export.position import check_positions
from gapcam_export.precision.options import PrecisionOptions
from gapcam_export.preprocessing_arguments import check_preprocessing
from gapcam_export.progress import Progress, silent
from gapcam_export.report import Report
from gapcam_export.section import Array, onnx_session
from gapcam_export.sources import OnnxSource, TorchSource, load_source
from gapcam_export.tap import claim_logits, embed_preprocessing, tap
from gapcam_export.verify import check, check_batch, verify
from gapcam_export.written import write_lowered, write_model

EMIT_CHOICES = ("features", "maps", "topk")


def export(
    source: str,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    size: tuple[int, int] | None = None,
    labels: str | Path | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    resize: Resize | None = None,
    color: Color | None = None,
    scores: Scores | None = None,
    embed: bool = False,
    emit: Sequence[str] = ("features",),
    topk: int = 5,
    opset: int | None = None,
    static_batch: bool = False,
    verify_folder: str | Path | None = None,
    precision: PrecisionOptions | None = None,
    html: str | Path | None = None,
    progress: Progress = silent,
) -> Report:
    """Write a classifier as an ONNX model that keeps gapcam's contract, and prove that it is right.

    Args:
        source: "torchvision:NAME", "timm:NAME", "package.module:factory", "path/to/file.py:factory" (a callable that
            returns an nn.Module), or an ONNX file of any framework, for which torch is not needed.
        output: the file to write. It appears when all has been verified, whole, or not at all.
        checkpoint: weights for the network: `.safetensors`, or what torch.save wrote (read with weights_only=True).
        pretrained: let torchvision or timm fetch their own weights.
        size: (H, W) of the network's input in pixels; by default what the model library or the ONNX file says.
        labels: file of class names; ImageNet-1k's by default where there are 1000 classes.
        mean: per channel on the scale 0..1; by default what the model library says.
        std: likewise.
        resize: "squash", "crop" or "letterbox"; by default what the model library says.
        color: channel order that the network wants.
        scores: what the runtime makes of the logits: "softmax", where the classes exclude each other, or "sigmoid". By
            default "sigmoid" where the source ends in a Sigmoid or has one class, else "softmax".
        embed: put the preprocessing (but not the resize) into the graph, whose input is then [N,H,W,3] uint8.
        emit: any of "features" (always there), "maps" (every class's) and "topk" (the best classes' maps).
        topk: how many classes "topk" gives.
        opset: version of ONNX's operator set; None for the exporter's own choice.
        static_batch: fix the batch at 1 rather than leave it symbolic.
        verify_folder: images to verify on; four photographs of scikit-image's by default.
        precision: a lower precision than float32, and how to come to it; None for float32. The float32 model is made
            and verified first, in memory, and the two are compared.
        html: file for that comparison as a page; None for none.
        progress: is called with each step's name before it begins, and with how much of it is done where that is
            counted.

    Returns:
        What was done and measured.

    Raises:
        SourceError: SOURCE cannot be found, built, read or run.
        CheckpointError: the weights do not fit.
        HeadError: the head is of a kind whose maps this version does not compute.
        VerificationError: the numbers do not agree; nothing was written.
        UsageError: an argument is out of its range, or contradicts another.
        DataError: an image cannot be read, or the output not be written.
        MissingExtraError: a package that SOURCE needs is not installed.
    """
    begin = time.monotonic()
    output = Path(output)
    check_preprocessing(size, mean, std)
    _check_outputs(emit, topk)
    check_writable(output)
    page = None if html is None else Path(html)
    inputs = [Path(name) for name in (source, checkpoint, labels) if name is not None]
    if page is not None:
        if precision is None:
            raise UsageError(
                "--html compares a model of lower precision with the float32 model; give --precision, too."
            )
        from gapcam_export.comparison.page import check_page  # here, since Jinja is needed for a page alone

        check_page(page, [output, *inputs])
    if precision is not None:
        check_spares(output, inputs)
        precision.check_folders()
    folder = None if verify_folder is None else Path(verify_folder)
    frames = default_photographs() if folder is None else photographs_in(folder)

    progress(f"building {source}")
    loaded = load_source(source, checkpoint=None if checkpoint is None else Path(checkpoint), pretrained=pretrained)
    notes: list[str] = []
    if isinstance(loaded, TorchSource):
        progress("writing ONNX with PyTorch's exporter")
        classifier = classifier_from_torch(loaded, size, opset, notes, static_batch=static_batch)
    else:
        check_spares(output, loaded.weight_files)
        classifier = classifier_from_onnx(loaded, size, opset, notes, static_batch=static_batch)
    changes = {"mean": mean, "std": std, "resize": resize, "color": color}
    given = {name: value for name, value in changes.items() if value is not None}
    fixed = [name for name in given if name in ("mean", "std")]
    if classifier.preprocessing.embedded and fixed:
        raise UsageError(f"{source} has its preprocessing in the graph; {', '.join(fixed)} cannot be changed there.")
    preprocessing = msgspec.structs.replace(classifier.preprocessing, **given)

    progress("finding the head")
    original = classifier.model
    noise = _noise(graph_inputs(original.graph)[0], preprocessing)
    head = find_head(original, classifier.output, noise)
    if not check_positions(original, head, noise):
        notes.append("whether the maps lie like the image could not be told: the network mixes all positions")
    if head.grid_is_assumed:
        rows, columns = head.feature_shape[1:]
        notes.append(
            f"the {rows * columns} tokens that are averaged were taken for a grid of {rows}x{columns}, row by row"
        )
    if not head.tail.weights.any():
        notes.append("the head's weights are all zero: its maps are empty, and verifying them proves nothing")
    if not head.is_exact:
        notes.append(
            "the head is not affine: a map shows what the head's gradient at its image weights (Grad-CAM without its "
            "ReLU), and is not exact"
        )
    if scores is None:
        scores = _own_scores(classifier, head.classes)
    names = labels_for(head.classes, None if labels is None else Path(labels), classifier.labels)
    if labels is None and len(classifier.labels) not in (0, head.classes):
        notes.append(
            f"SOURCE has {len(classifier.labels)} class names for {head.classes} classes; they were left out. --labels "
            "FILE gives names"
        )

    progress("adding the outputs")
    head, renamed = claim_logits(original.graph, head)
    if renamed:
        notes.append(f"the output {LOGITS!r} is now called {renamed!r}: it is not logits [N,K]")
    model = onnx.ModelProto()
    model.CopyFrom(original)
    tap(model, head, maps="maps" in emit, topk_maps="topk" in emit, topk=topk)
    if embed and not preprocessing.embedded:
        embed_preprocessing(model, preprocessing)
    exported = msgspec.structs.replace(preprocessing, embedded=preprocessing.embedded or embed)

    progress(f"verifying on {len(frames)} images")
    nonlinear = head.tail if isinstance(head.tail, Chain) else None
    session = onnx_session(model)
    measured = verify(model, session, exported, preprocessing, frames, classifier.reference(), nonlinear)
    check(measured)
    check_batch(session, exported, frames)

    contract = Contract(
        contract=CONTRACT_VERSION,
        producer=f"gapcam {gapcam.__version__}",
        head=Head(kind=head.kind, layout=head.layout, tapped=head.features, exact=head.is_exact, scores=scores),
        preprocessing=exported,
        labels=names,
        source=classifier.source,
        precision="fp32",
        verification=measured,
    )
    if precision is None:
        progress(f"writing {output}")
        return write_model(model, contract, output, notes=notes, begin=begin)

    from gapcam_export.precision.lower import lower  # here, since ONNX Runtime's quantiser is slow to import

    if precision.check is None:
        precision = replace(precision, check=folder)
    titles = (f"{classifier.source.spec} in float32", output.name)
    lowered = lower(model, contract, precision, titles, notes, progress, html=page is not None)
    return write_lowered(lowered, output, page, notes=notes, begin=begin, progress=progress)


def _own_scores(classifier: Classifier, classes: int) -> Scores:
    """What makes scores of the logits where nobody has said it."""
    loaded = classifier.loaded
    if isinstance(loaded, OnnxSource) and loaded.contract is not None:
        return loaded.contract.head.scores
    if isinstance(loaded, TorchSource) and loaded.record is not None and loaded.record.scores is not None:
        return loaded.record.scores
    _, scoring = find_score_operator(classifier.model.graph, classifier.output)
    return "sigmoid" if classes == 1 or scoring == "sigmoid" else "softmax"


def _check_outputs(emit: Sequence[str], topk: int) -> None:
    unknown = [name for name in emit if name not in EMIT_CHOICES]
    if unknown:
        raise UsageError(f"emit is {unknown[0]!r}; expected some of {', '.join(EMIT_CHOICES)}.")
    if topk < 1:
        raise UsageError(f"topk is {topk}; expected 1 or more.")


def _noise(fed: onnx.ValueInfoProto, preprocessing: Preprocessing) -> Array:
    """Something to look at while the head is searched: three images, since little else in a network is 3; or one.

    Its pixels have the mean and deviation that ImageNet's have, in the range of numbers that the network wants.
    """
    batch, *shape = (dim.dim_value for dim in fed.type.tensor_type.shape.dim)
    random = np.random.default_rng(0)
    if fed.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
        return random.integers(0, 256, (batch or 3, *shape), dtype=np.uint8)
    photographs = Preprocessing(size=preprocessing.size)
    mean, std = (np.reshape(each, (3, 1, 1)) for each in (preprocessing.mean, preprocessing.std))
    pixels = np.reshape(photographs.std, (3, 1, 1)) * random.standard_normal((batch or 3, *shape))
    noise: Array = ((pixels + np.reshape(photographs.mean, (3, 1, 1)) - mean) / std).astype(np.float32)
    return noise
