"""The export, from SOURCE to a verified file: the order of its steps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx

import gapcam
from gapcam.atomic_file import check_writable, write_atomically
from gapcam.contract import CONTRACT_VERSION, IMAGE, LOGITS, Color, Contract, Head, Preprocessing, Resize, Source
from gapcam.errors import UsageError
from gapcam_export.errors import SourceError
from gapcam_export.graph import fix_dimension, graph_inputs, rename_tensor
from gapcam_export.head import find_head, find_logits
from gapcam_export.labels import labels_for
from gapcam_export.photographs import default_photographs, photographs_in
from gapcam_export.report import Report, summarize
from gapcam_export.section import Array
from gapcam_export.sources import OnnxSource, TorchSource, load_source
from gapcam_export.tap import embed_preprocessing, tap, untap, write_contract
from gapcam_export.verify import OnnxReference, Reference, TorchReference, check, verify

EMIT_CHOICES = ("features", "maps", "topk")
_DEFAULT_SIZE = (224, 224)


@dataclass(frozen=True)
class _Classifier:
    """A classifier as ONNX that is not tapped yet, and what its source has on record.

    `reference` is how its source answers; None where the source is that ONNX model.
    """

    model: onnx.ModelProto
    output: str
    source: Source
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    reference: Reference | None


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
    embed: bool = False,
    emit: Sequence[str] = ("features",),
    topk: int = 5,
    opset: int | None = None,
    static_batch: bool = False,
    verify_folder: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
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
        embed: put the preprocessing (but not the resize) into the graph, whose input is then [N,H,W,3] uint8.
        emit: any of "features" (always there), "maps" (every class's) and "topk" (the best classes' maps).
        topk: how many classes "topk" gives.
        opset: version of ONNX's operator set; None for the exporter's own choice.
        static_batch: fix the batch at 1 rather than leave it symbolic.
        verify_folder: images to verify on; four photographs of scikit-image's by default.
        progress: is called with each step's name before it begins.

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
    step = progress or _silent
    output = Path(output)
    _check_arguments(mean, std, size, emit, topk)
    check_writable(output)
    folder = None if verify_folder is None else Path(verify_folder)
    frames = default_photographs() if folder is None else photographs_in(folder)

    step(f"building {source}")
    loaded = load_source(source, checkpoint=None if checkpoint is None else Path(checkpoint), pretrained=pretrained)
    notes: list[str] = []
    if isinstance(loaded, TorchSource):
        step("writing ONNX with PyTorch's exporter")
        classifier = _classifier_from_torch(loaded, size, opset, notes, static_batch=static_batch)
    else:
        classifier = _classifier_from_onnx(loaded, size, opset, notes, static_batch=static_batch)
    changes = {"mean": mean, "std": std, "resize": resize, "color": color}
    given = {name: value for name, value in changes.items() if value is not None}
    if classifier.preprocessing.embedded and given:
        raise UsageError(f"{source} has its preprocessing in the graph; {', '.join(given)} cannot be changed there.")
    preprocessing = msgspec.structs.replace(classifier.preprocessing, **given)

    step("finding the head")
    original, model = classifier.model, onnx.ModelProto()
    model.CopyFrom(original)
    (fed,) = graph_inputs(model.graph)
    head = find_head(model, classifier.output, _noise(fed))
    names = labels_for(len(head.bias), None if labels is None else Path(labels), classifier.labels)

    step("adding the outputs")
    source_name = fed.name
    tap(model, head, maps="maps" in emit, topk=topk if "topk" in emit else 0)
    if source_name != IMAGE:
        notes.append(f"the input {source_name!r} is now called {IMAGE!r}")
    if embed and not preprocessing.embedded:
        embed_preprocessing(model, preprocessing)
    exported = msgspec.structs.replace(preprocessing, embedded=preprocessing.embedded or embed)

    step(f"verifying on {len(frames)} images")
    reference = classifier.reference or OnnxReference(original)
    measured = verify(model, exported, preprocessing, frames, reference)
    check(measured)

    step(f"writing {output}")
    contract = Contract(
        contract=CONTRACT_VERSION,
        producer=f"gapcam {gapcam.__version__}",
        head=Head(kind=head.kind, layout=head.layout, tapped=head.features),
        preprocessing=exported,
        labels=names,
        source=classifier.source,
        precision="fp32",
        verification=measured,
    )
    write_contract(model, contract)
    content = model.SerializeToString()
    write_atomically(output, content)
    return Report(
        path=output,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        opset=_opset(model),
        contract=contract,
        inputs=tuple(summarize(value) for value in graph_inputs(model.graph)),
        outputs=tuple(summarize(value) for value in model.graph.output),
        notes=tuple(notes),
        seconds=time.monotonic() - begin,
    )


def _silent(step: str) -> None:
    del step


def _check_arguments(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
    emit: Sequence[str],
    topk: int,
) -> None:
    unknown = [name for name in emit if name not in EMIT_CHOICES]
    if unknown:
        raise UsageError(f"emit is {unknown[0]!r}; expected some of {', '.join(EMIT_CHOICES)}.")
    if topk < 1:
        raise UsageError(f"topk is {topk}; expected 1 or more.")
    if size is not None and min(size) < 1:
        raise UsageError(f"size is {size[0]} {size[1]}; expected a height and a width in pixels, each 1 or more.")
    if mean is not None and not all(abs(value) <= 1 for value in mean):
        raise UsageError(f"mean is {tuple(mean)}; expected values on the scale 0..1. Divide pixel values by 255.")
    if std is not None and not all(0 < value <= 1 for value in std):
        raise UsageError(f"std is {tuple(std)}; expected values above 0 on the scale 0..1. Divide pixel values by 255.")


def _classifier_from_torch(
    loaded: TorchSource, size: tuple[int, int] | None, opset: int | None, notes: list[str], *, static_batch: bool
) -> _Classifier:
    from gapcam_export.onnx_from_torch import onnx_from_torch, sha256_of_weights, torch_forward

    preprocessing = loaded.preprocessing
    if preprocessing is not None and not loaded.checkpoint:
        notes.append("the network has random weights; --pretrained or --checkpoint FILE gives it trained ones")
    if preprocessing is None:
        preprocessing = _assumed_preprocessing(size or _DEFAULT_SIZE, notes)
        if size is None:
            notes.append(f"the input size was assumed to be {_DEFAULT_SIZE[0]}x{_DEFAULT_SIZE[1]}; --size H W sets it")
    if size is not None:
        preprocessing = msgspec.structs.replace(preprocessing, size=size)
    model = onnx_from_torch(loaded.model, preprocessing.size, opset=opset, static_batch=static_batch)
    output = LOGITS
    if find_logits(model.graph, LOGITS) != LOGITS:
        output = "probabilities"
        rename_tensor(model.graph, LOGITS, output)
        notes.append(
            f"the network ends in a Softmax; its output is called {output!r}, and {LOGITS!r} is what goes into it"
        )
    return _Classifier(
        model=model,
        output=output,
        source=Source(spec=loaded.spec, sha256=sha256_of_weights(loaded.model), checkpoint=loaded.checkpoint),
        preprocessing=preprocessing,
        labels=(),
        reference=TorchReference(lambda images: torch_forward(loaded.model, images), output),
    )


def _classifier_from_onnx(
    loaded: OnnxSource, size: tuple[int, int] | None, opset: int | None, notes: list[str], *, static_batch: bool
) -> _Classifier:
    model, contract = loaded.model, loaded.contract
    if opset not in (None, _opset(model)):
        raise UsageError(f"{loaded.spec} has opset {_opset(model)}; --opset is for sources in PyTorch. Leave it out.")
    if contract is not None:
        untap(model)
        notes.append(f"{contract.producer} exported {loaded.spec} before; its preprocessing and labels were kept")
    fed = _image_input(model, loaded.spec, embedded=contract is not None and contract.preprocessing.embedded)
    outputs = [value.name for value in model.graph.output]
    if LOGITS in outputs and contract is not None:
        outputs = [LOGITS]
    if len(outputs) != 1:
        raise SourceError(
            f"{loaded.spec} has {len(outputs)} outputs ({', '.join(outputs)}); expected one, the classifier's."
        )
    axes = (1, 2) if fed.type.tensor_type.elem_type == onnx.TensorProto.UINT8 else (2, 3)
    size = _fix_size(model, fed, axes, size, loaded.spec, notes)
    if static_batch:
        fix_dimension(model.graph, fed, 0, 1)
    preprocessing = contract.preprocessing if contract else _assumed_preprocessing(size, notes)
    return _Classifier(
        model=model,
        output=outputs[0],
        source=Source(spec=loaded.spec, sha256=loaded.sha256),
        preprocessing=msgspec.structs.replace(preprocessing, size=size),
        labels=contract.labels if contract else (),
        reference=None,
    )


def _image_input(model: onnx.ModelProto, name: str, *, embedded: bool) -> onnx.ValueInfoProto:
    inputs = graph_inputs(model.graph)
    shown = ", ".join(str(summarize(value)) for value in inputs)
    if len(inputs) != 1:
        raise SourceError(f"{name} has {len(inputs)} inputs ({shown}); expected one, the image.")
    tensor = inputs[0].type.tensor_type
    channels_axis, dtype = (3, onnx.TensorProto.UINT8) if embedded else (1, onnx.TensorProto.FLOAT)
    dims = tensor.shape.dim
    if tensor.elem_type != dtype or len(dims) != 4 or dims[channels_axis].dim_value != 3:
        raise SourceError(f"{name} takes {shown}; expected one image [N,3,H,W] of float32.")
    return inputs[0]


def _fix_size(
    model: onnx.ModelProto,
    fed: onnx.ValueInfoProto,
    axes: tuple[int, int],
    size: tuple[int, int] | None,
    name: str,
    notes: list[str],
) -> tuple[int, int]:
    dims = fed.type.tensor_type.shape.dim
    fixed = (dims[axes[0]].dim_value, dims[axes[1]].dim_value)
    if size is not None and any(have not in (0, want) for have, want in zip(fixed, size, strict=True)):
        raise UsageError(f"{name} takes images of {fixed[0]}x{fixed[1]} only; leave --size out.")
    chosen = size or (fixed[0] or _DEFAULT_SIZE[0], fixed[1] or _DEFAULT_SIZE[1])
    if size is None and 0 in fixed:
        notes.append(f"{name} takes images of any size; {chosen[0]}x{chosen[1]} was assumed, --size H W sets it")
    for axis, side in zip(axes, chosen, strict=True):
        fix_dimension(model.graph, fed, axis, side)
    return chosen


def _assumed_preprocessing(size: tuple[int, int], notes: list[str]) -> Preprocessing:
    assumed = Preprocessing(size=size)
    notes.append(
        f"SOURCE has no record of its preprocessing; assumed: resize {assumed.resize}, color {assumed.color}, "
        f"mean {assumed.mean}, std {assumed.std}. --resize, --color, --mean and --std set it"
    )
    return assumed


def _noise(fed: onnx.ValueInfoProto) -> Array:
    """Something to look at while the head is searched: two images, or as many as the model insists on."""
    batch, *shape = (dim.dim_value for dim in fed.type.tensor_type.shape.dim)
    random = np.random.default_rng(0)
    if fed.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
        return random.integers(0, 256, (batch or 2, *shape), dtype=np.uint8)
    return random.standard_normal((batch or 2, *shape), dtype=np.float32)


def _opset(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))
