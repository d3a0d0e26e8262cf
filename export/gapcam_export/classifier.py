"""Brings every kind of source to one form: a classifier as ONNX, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import onnx

from gapcam.contract import IMAGE, LOGITS, Preprocessing, Source
from gapcam.errors import UsageError
from gapcam_export.class_outputs import divided_sigmoids, find_scores, labels_in
from gapcam_export.errors import SourceError
from gapcam_export.float32 import half_type, integer_arithmetic, to_float32
from gapcam_export.graph import fix_dimension, graph_inputs, necessary_tensors, opset_of, rename_tensor, sort_nodes
from gapcam_export.head import find_logits, find_score_operator
from gapcam_export.image_input import ImageInput, find_image_input, scales_pixels, to_contract_layout
from gapcam_export.linear_classifier import expand_linear_classifiers
from gapcam_export.onnx_reference import OnnxReference
from gapcam_export.sources import OnnxSource, TorchSource
from gapcam_export.tap import free_names, strip_exporter_notes, untap
from gapcam_export.verify import Reference, TorchReference

DEFAULT_SIZE = (224, 224)
_OLDEST_OPSET = 7  # the oldest that ONNX Runtime runs
_PIXELS = (1 / 255, 1 / 255, 1 / 255)  # the std with which `image` is 0..255


@dataclass(frozen=True)
class Classifier:
    """A classifier as ONNX that is not tapped yet, with the contract's names free, and what its source has on record.

    Attributes:
        model: with one input, `image`.
        output: the tensor that holds the logits, or their Softmax; an output, mostly.
        source: where it comes from.
        preprocessing: of its input.
        labels: that the source has on record, or none.
        loaded: the source itself.
        onnx_reference: how it answers where it is an ONNX model: as it was before it was changed.
    """

    model: onnx.ModelProto
    output: str
    source: Source
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    loaded: TorchSource | OnnxSource
    onnx_reference: OnnxReference | None = None

    def reference(self) -> Reference:
        """How the source itself answers."""
        if isinstance(self.loaded, OnnxSource):
            assert self.onnx_reference is not None  # noqa: S101  # so `classifier_from_onnx` makes it
            self.onnx_reference.rename([value.name for value in self.model.graph.output])
            return self.onnx_reference
        from gapcam_export.onnx_from_torch import torch_forward

        network = self.loaded.model
        return TorchReference(lambda images: torch_forward(network, images), self.output)


def classifier_from_torch(
    loaded: TorchSource, size: tuple[int, int] | None, opset: int | None, notes: list[str], *, static_batch: bool
) -> Classifier:
    """Write a PyTorch network as ONNX.

    Args:
        loaded: the network.
        size: (H, W) that was asked for, or None.
        opset: that was asked for, or None.
        notes: gets what the user should know.
        static_batch: fix the batch at 1.

    Raises:
        SourceError: the network does not run, gives something else than [N,K], or is quantised.
        ExporterError: PyTorch's exporter cannot write it.
    """
    from gapcam_export.onnx_from_torch import onnx_from_torch, sha256_of_weights

    preprocessing = loaded.preprocessing
    if loaded.size is not None:
        if size not in (None, loaded.size):
            raise UsageError(
                f"{loaded.spec} was traced at {loaded.size[0]}x{loaded.size[1]} and takes no other size. Make it again "
                "from its own SOURCE: gapcam gap SOURCE --size H W."
            )
        size = loaded.size
    elif preprocessing is not None and not loaded.checkpoint:
        notes.append("the network has random weights; --pretrained or --checkpoint FILE gives it trained ones")
    if preprocessing is None:
        preprocessing = _assumed_preprocessing(size or DEFAULT_SIZE, notes)
        if size is None:
            notes.append(f"the input size was assumed to be {DEFAULT_SIZE[0]}x{DEFAULT_SIZE[1]}; --size H W sets it")
    if size is not None:
        preprocessing = msgspec.structs.replace(preprocessing, size=size)
    model = onnx_from_torch(loaded.model, preprocessing.size, opset=opset, static_batch=static_batch)
    _check_not_quantised(model, loaded.spec)
    free_names(model.graph)
    output = LOGITS
    if find_logits(model.graph, LOGITS) != LOGITS:
        output = "output"
        rename_tensor(model.graph, LOGITS, output)
        ending = "Sigmoid" if find_score_operator(model.graph, output)[1] == "sigmoid" else "Softmax"
        notes.append(
            f"the network ends in a {ending}; its output is called {output!r}, and {LOGITS!r} is what goes into it"
        )
    return Classifier(
        model=model,
        output=output,
        source=Source(spec=loaded.spec, sha256=sha256_of_weights(loaded.model), checkpoint=loaded.checkpoint),
        preprocessing=preprocessing,
        labels=() if loaded.record is None else loaded.record.labels,
        loaded=loaded,
    )


def classifier_from_onnx(
    loaded: OnnxSource, size: tuple[int, int] | None, opset: int | None, notes: list[str], *, static_batch: bool
) -> Classifier:
    """Prepare an ONNX model.

    Args:
        loaded: the model; it is changed.
        size: (H, W) that was asked for, or None.
        opset: that was asked for, or None.
        notes: gets what the user should know.
        static_batch: fix the batch at 1.

    Raises:
        SourceError: it is no classifier of one image, is quantised, or was lowered by gapcam itself.
        UsageError: it cannot be had in this size or opset.
    """
    model, contract, name = loaded.model, loaded.contract, loaded.spec
    if opset not in (None, opset_of(model)):
        raise UsageError(f"{name} has opset {opset_of(model)}; --opset is for sources in PyTorch. Leave it out.")
    if opset_of(model) < _OLDEST_OPSET:
        raise SourceError(
            f"{name} has opset {opset_of(model)}; expected {_OLDEST_OPSET} or newer. Export it again, or convert it "
            "with onnx.version_converter."
        )
    if contract is not None and contract.precision != "fp32":
        raise SourceError(f"{name} is in {contract.precision} already; give the float32 model that it was made from.")
    _check_not_quantised(model, name)
    strip_exporter_notes(model)
    if contract is not None:
        untap(model)
        notes.append(f"{contract.producer} exported {name} before; its preprocessing and labels were kept")
    sort_nodes(model.graph)
    image = find_image_input(model, name, notes)
    is_own = contract is not None and LOGITS in [value.name for value in model.graph.output]
    scores = LOGITS if is_own else find_scores(model.graph, image.name, name)
    if not necessary_tensors(model.graph, image.name, scores):
        raise SourceError(f"no path leads from the input {image.name!r} of {name} to {scores!r}. Export it again.")
    half = half_type(model)
    reference = OnnxReference(model, image, find_logits(model.graph, scores), half=half, source=name)
    if half:
        to_float32(model)
        notes.append(f"{name} computes in {half}; the exported model computes in float32, with the same weights")
    expand_linear_classifiers(model.graph)
    to_contract_layout(model.graph, image)
    (fed,) = graph_inputs(model.graph)
    if fed.name != IMAGE:
        notes.append(f"the input {fed.name!r} is now called {IMAGE!r}")
    if image.channels_last != image.is_uint8:
        was, now = ("[N,H,W,3]", "[N,3,H,W]") if image.channels_last else ("[N,3,H,W]", "[N,H,W,3]")
        notes.append(f"{name} takes {was}; the exported model takes {now}")
    renamed = free_names(model.graph)
    notes.extend(f"the output {old!r} is now called {new!r}" for old, new in renamed.items())
    axes = (1, 2) if image.is_uint8 else (2, 3)
    size = _fix_size(model, fed, axes, size, name, notes)
    _fix_batch(model, fed, name, static_batch=static_batch)
    if not is_own:
        scores = find_scores(model.graph, IMAGE, name)  # by the names that it has now
    divided = divided_sigmoids(model.graph)
    if divided:
        notes.append(
            f"the output {divided!r} holds the classes' sigmoids divided by their sum; the runtime's scores are the "
            "sigmoids themselves, not normalised"
        )
    preprocessing = contract.preprocessing if contract else _assumed_onnx_preprocessing(model.graph, image, size, notes)
    return Classifier(
        model=model,
        output=renamed.get(scores, scores),
        source=Source(spec=name, sha256=loaded.sha256),
        preprocessing=msgspec.structs.replace(preprocessing, size=size),
        labels=contract.labels if contract else labels_in(model.graph, notes),
        loaded=loaded,
        onnx_reference=reference,
    )


def _check_not_quantised(model: onnx.ModelProto, name: str) -> None:
    integer = integer_arithmetic(model)
    if integer:
        raise SourceError(
            f"{name} is quantised (it has {integer}); export the float32 network: `gapcam quantize` lowers it "
            "afterwards."
        )


def _fix_batch(model: onnx.ModelProto, fed: onnx.ValueInfoProto, name: str, *, static_batch: bool) -> None:
    dims = fed.type.tensor_type.shape.dim
    if static_batch:
        fix_dimension(model.graph, fed, 0, 1)
    elif dims[0].dim_value > 1:
        raise SourceError(
            f"{name} takes {dims[0].dim_value} images at a time, no more and no fewer; the runtime gives it one. "
            "Fix its batch at 1 with --static-batch, or export it again with a symbolic batch."
        )
    elif not dims[0].dim_value and not dims[0].dim_param.isidentifier():
        dims[0].dim_param = "batch"


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
    chosen = size or (fixed[0] or DEFAULT_SIZE[0], fixed[1] or DEFAULT_SIZE[1])
    if size is None and 0 in fixed:
        notes.append(f"{name} takes images of any size; {chosen[0]}x{chosen[1]} was assumed, --size H W sets it")
    for axis, side in zip(axes, chosen, strict=True):
        fix_dimension(model.graph, fed, axis, side)
    return chosen


def _assumed_onnx_preprocessing(
    graph: onnx.GraphProto, image: ImageInput, size: tuple[int, int], notes: list[str]
) -> Preprocessing:
    if image.is_uint8:
        notes.append(
            "the graph takes uint8 pixels, so its preprocessing was taken to be in it; the mean 0 and std 1 on record "
            "stand for that. --resize and --color set what happens to a frame before"
        )
        return Preprocessing(size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), embedded=True)
    evidence = scales_pixels(graph, IMAGE)
    if evidence:
        assumed = Preprocessing(size=size, mean=(0.0, 0.0, 0.0), std=_PIXELS)
        notes.append(
            f"SOURCE has no record of its preprocessing, and scales its input itself ({evidence}): pixel values 0..255 "
            f"were assumed, which is mean 0 and std 1/255, with resize {assumed.resize} and color {assumed.color}. "
            "--resize, --color, --mean and --std set it"
        )
        return assumed
    assumed = _assumed_preprocessing(size, notes)
    notes.append(
        "if the network was trained on pixel values 0..255, give --mean 0 0 0 --std 0.00392157 0.00392157 0.00392157; "
        "if on -1..1, --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5"
    )
    return assumed


def _assumed_preprocessing(size: tuple[int, int], notes: list[str]) -> Preprocessing:
    assumed = Preprocessing(size=size)
    notes.append(
        f"SOURCE has no record of its preprocessing; assumed: resize {assumed.resize}, color {assumed.color}, "
        f"mean {assumed.mean}, std {assumed.std}. --resize, --color, --mean and --std set it"
    )
    return assumed
