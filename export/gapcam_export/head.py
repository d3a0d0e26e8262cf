"""Finds the head of a classifier on its ONNX graph, and reads it by probing.

No module or node name is looked at. The last tensor with spatial extent that every path from image to logits passes
through is f, the feature maps; a later one that is f's mean over space is the pooled vector; the tail from there to
the logits is cut out and run on vectors of our choice: `affine`, `layernorm` and `nonlinear` say how the kinds of tails
are read and proven, Dropout, Flatten, BatchNorm and further linear layers folded in for free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import onnx

from gapcam.contract import HeadKind
from gapcam.errors import ModelError
from gapcam_export.affine import PROBE_SCALE, Affine, Floats, read_affine
from gapcam_export.errors import HeadError
from gapcam_export.graph import graph_inputs, necessary_tensors, nodes_between, opset_of, tensors_read
from gapcam_export.layernorm import Normed, read_normed
from gapcam_export.nonlinear import Chain, read_chain
from gapcam_export.refusals import no_average_pooling, not_affine, not_float32
from gapcam_export.section import Array, Section, observe

Layout = Literal["nchw", "nhwc", "tokens", "channels-tokens"]
Tail = Affine | Normed | Chain
# Axes that a layout pools over.
_SPATIAL_AXES: dict[int, dict[Layout, tuple[int, ...]]] = {
    4: {"nchw": (2, 3), "nhwc": (1, 2)},
    3: {"tokens": (1,), "channels-tokens": (2,)},
}
# Tensors whose values are looked at together: bounds the memory that this takes.
_TENSORS_OBSERVED = 32
# float32 sums of a few thousand products, in another order.
_TOLERANCE = 1e-4

Scoring = Literal["softmax", "log-softmax", "sigmoid"]
# By operator, and whether a Log follows.
_SCORES: dict[tuple[str, bool], Scoring] = {
    ("Softmax", False): "softmax",
    ("Softmax", True): "log-softmax",
    ("LogSoftmax", False): "log-softmax",
    ("Sigmoid", False): "sigmoid",
}
_RESHAPES = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast"})


@dataclass(frozen=True)
class FoundHead:
    """The head of a classifier.

    Attributes:
        kind: AFFINE, CLASS_MAPS, LAYERNORM or NONLINEAR.
        layout: how `features` is laid out.
        features: name of the tensor f that is pooled.
        feature_shape: (C, h, w) of f.
        grid_is_assumed: True where f has tokens of which nothing in the graph says how they lie in the image.
        pooled: name of the pooled vector, C values a sample.
        logits: name of the logits, K values a sample.
        logits_shape: a sample's shape of that tensor, [K] mostly.
        tail: what computes the logits from the pooled vector.
    """

    kind: HeadKind
    layout: Layout
    features: str
    feature_shape: tuple[int, int, int]
    grid_is_assumed: bool
    pooled: str
    logits: str
    logits_shape: tuple[int, ...]
    tail: Tail

    @property
    def is_exact(self) -> bool:
        """Whether a map is all that its logit is made of, up to the bias."""
        return self.kind is not HeadKind.NONLINEAR

    @property
    def classes(self) -> int:
        """K."""
        return prod(self.logits_shape)


def find_logits(graph: onnx.GraphProto, output: str) -> str:
    """The tensor before the one Softmax or Sigmoid that ends a graph, or the output itself if none does."""
    node, _ = find_score_operator(graph, output)
    return output if node is None else str(node.input[0])


def find_score_operator(graph: onnx.GraphProto, output: str) -> tuple[onnx.NodeProto | None, Scoring | None]:
    """The node that makes scores of the logits last, if one does, and what it makes; a logarithm may follow."""
    producers = {name: node for node in graph.node for name in node.output}
    name, has_log = output, False
    while name in producers:
        node = producers[name]
        scoring = _SCORES.get((node.op_type, has_log))
        if scoring is not None:
            return node, scoring
        if node.op_type == "Log":
            has_log = True
        elif node.op_type not in _RESHAPES:
            break
        name = str(node.input[0])
    return None, None


def find_head(model: onnx.ModelProto, output: str, image: Array) -> FoundHead:
    """Find the head between a network's input and its output.

    Args:
        model: ONNX model with one input to feed.
        output: the output that holds the logits, or their Softmax or Sigmoid.
        image: an input [N,...] to run the network on. Where the batch is symbolic, N should be odd and above 1, so that
            nothing of the network's own looks like a batch.

    Raises:
        HeadError: the head is of a kind whose maps this version does not compute.
        ModelError: the network cannot be run, is not in float32, or gives NaN or infinity.
    """
    (fed,) = graph_inputs(model.graph)
    logits = find_logits(model.graph, output)
    necessary = necessary_tensors(model.graph, fed.name, logits)
    first = _first_vector(model, [name for name in necessary if name != fed.name], image)
    names = necessary[max(necessary.index(first) - _TENSORS_OBSERVED, 1) :]
    observed = _observe(model, fed.name, logits, names, image)
    _check_softmax(model, output, observed[logits].shape)
    names = [name for name in names if name in observed and _has_batch(observed[name], image)]
    if first not in names or (len(image) > 1 and logits not in names):
        raise ModelError(f"the output is {list(observed[logits].shape)} for {len(image)} images; expected [N,K].")
    before, later = names[: names.index(first)], names[names.index(first) :]
    spatial = [name for name in before if observed[name].ndim in _SPATIAL_AXES]
    if not spatial:
        raise HeadError(
            HeadKind.NONE,
            f"no tensor that all paths to the logits {logits!r} pass through has spatial extent: no single tensor "
            "carries all of the image.",
            "A class activation map needs such feature maps. Networks whose branches are joined as vectors have none "
            "(as CrossViT); where the maps are 1x1, try a larger --size.",
        )
    static_batch = fed.type.tensor_type.shape.dim[0].dim_value > 0
    probe = _Probe(model, observed, static_batch=static_batch)
    if observed[spatial[-1]].dtype != np.float32:
        raise not_float32(spatial[-1], observed[spatial[-1]].dtype)
    features, layout, pooled = _find_pooling(probe, spatial, later)
    shape = _feature_shape(observed[features], layout, image)
    kind, tail = _read_tail(probe, names[names.index(pooled) :])
    return FoundHead(
        kind=kind,
        layout=layout,
        features=features,
        feature_shape=shape,
        grid_is_assumed=layout not in _SPATIAL_AXES[4],
        pooled=pooled,
        logits=logits,
        logits_shape=observed[logits].shape[1:],
        tail=tail,
    )


def _check_softmax(model: onnx.ModelProto, output: str, shape: tuple[int, ...]) -> None:
    """Whether the Softmax that ends a network, if one does, is over all classes of logits of this shape.

    Raises:
        HeadError: it is over groups of them, or over the batch.
    """
    node, _ = find_score_operator(model.graph, output)
    if node is None or node.op_type == "Sigmoid":
        return
    opset = opset_of(model)
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    axis = (axes[0] if axes else 1 if opset < 13 else -1) % len(shape)
    summed = prod(shape[axis:]) if opset < 13 else shape[axis]  # of old over all axes from that one on
    if axis == 0 or summed != prod(shape[1:]):
        raise HeadError(
            HeadKind.NONE,
            f"the network ends in a {node.op_type} over axis {axis} of {list(shape)}; expected one over all "
            f"{prod(shape[1:])} classes.",
            "Scores of groups of classes are none that gapcam computes: export the network without it, up to its "
            "logits.",
        )


def _read_tail(probe: _Probe, names: Sequence[str]) -> tuple[HeadKind, Tail]:
    """What computes the last of these tensors, the logits, from the first, the pooled vector.

    Raises:
        HeadError: it is nothing that gives maps.
        ModelError: it is quantised.
    """
    pooled, logits = names[0], names[-1]
    section, vectors = probe.section(pooled, logits), probe.vectors(pooled)
    # Probes go far out, where what is of no kind that we know may be infinite: then it agrees with nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        affine = read_affine(section, vectors, probe.constants(pooled, logits))
        if affine is not None:
            return (HeadKind.CLASS_MAPS if affine.is_identity else HeadKind.AFFINE), affine
        normed = read_normed(section, vectors)
        if normed is not None:
            return HeadKind.LAYERNORM, normed
        chain = read_chain(probe, names)
        if chain is not None:
            return HeadKind.NONLINEAR, chain
    raise not_affine(probe.model, pooled, logits)


def _observe(model: onnx.ModelProto, fed: str, logits: str, names: Sequence[str], image: Array) -> Mapping[str, Array]:
    """Values of tensors for one input, and of all tensors whose shape somebody asks for."""
    asked_for_shape = {node.input[0] for node in model.graph.node if node.op_type in ("Shape", "Size")}
    constants = {tensor.name for tensor in model.graph.initializer}
    made = [name for name in dict.fromkeys([*names, *asked_for_shape]) if name != fed and name not in constants]
    observed = {**observe(model, made, image), fed: image}
    values = observed.get(logits)
    if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
        wrong = [t.name for t in model.graph.initializer if not np.isfinite(onnx.numpy_helper.to_array(t)).all()]
        named = f"The constants {', '.join(wrong[:3])} hold some. " if wrong else ""
        raise ModelError(f"the network gives NaN or infinity for noise. {named}Export weights that are finite.")
    return observed


def _first_vector(model: onnx.ModelProto, names: Sequence[str], image: Array) -> str:
    """The first of the necessary tensors that has no spatial extent: [N,C], [N,C,1,1], at last the logits.

    Where all that is known of an image has gone through one vector, nothing after it is a map of the image, whatever
    its shape: the answers of several heads that are averaged look like one.
    """
    for start in range(0, len(names), _TENSORS_OBSERVED):
        part = names[start : start + _TENSORS_OBSERVED]
        for name, value in observe(model, part, image).items():
            if _has_batch(value, image) and sum(side > 1 for side in value.shape[1:]) < 2:
                return name
    return names[-1]


def _has_batch(value: Array, image: Array) -> bool:
    return value.shape[:1] == image.shape[:1]


def _find_pooling(probe: _Probe, spatial: Sequence[str], later: Sequence[str]) -> tuple[str, Layout, str]:
    """The feature maps, their layout, and the vector that is their mean."""
    features = spatial[-1]
    for pooled in later:
        layout = probe.mean_layout(features, pooled)
        if layout is not None:
            break
    else:
        raise no_average_pooling(probe.observed, probe.reduces_to, features, later)
    # Pooling may go in steps (rows, then columns), and a grid may be flattened before it: f is what goes in first.
    for earlier in reversed(spatial[:-1]):
        earlier_layout = probe.mean_layout(earlier, pooled)
        if earlier_layout is None:
            break
        if probe.extent(earlier) >= probe.extent(features):  # of equals the first, before anything permutes it
            features, layout = earlier, earlier_layout
    return features, layout, pooled


def _feature_shape(value: Array, layout: Layout, image: Array) -> tuple[int, int, int]:
    shape = value.shape
    if layout == "nchw":
        return shape[1], shape[2], shape[3]
    if layout == "nhwc":
        return shape[3], shape[1], shape[2]
    channels, tokens = (shape[2], shape[1]) if layout == "tokens" else (shape[1], shape[2])
    height, width = image.shape[1:3] if image.shape[-1] == 3 else image.shape[2:4]
    # Patches of p x p pixels, what is left over at the edges cut off or filled up.
    grids = {
        grid
        for patch in range(1, max(height, width) + 1)
        for grid in ((height // patch, width // patch), (-(-height // patch), -(-width // patch)))
        if prod(grid) == tokens
    }
    if len(grids) != 1:
        raise HeadError(
            HeadKind.NONE,
            f"{tokens} tokens are averaged, which is no grid of square patches of a {height}x{width} image.",
            "Average the patch tokens alone, without class or register tokens.",
        )
    ((rows, columns),) = grids
    return channels, rows, columns


def _scales(value: Array) -> tuple[float, ...]:
    """Sizes of values to probe with, that of the observed ones among them."""
    return 1.0, PROBE_SCALE, float(np.sqrt(np.mean(value.astype(np.float64) ** 2))) or 1.0


def _agree(got: Floats, expected: Floats, scale: float) -> bool:
    return got.shape == expected.shape and np.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE * scale)


class _Probe:
    """Runs sections of one network on vectors of our choice."""

    def __init__(self, model: onnx.ModelProto, observed: Mapping[str, Array], *, static_batch: bool) -> None:
        self.model, self.observed, self._static_batch = model, observed, static_batch
        self._random = np.random.default_rng(0)

    def extent(self, name: str) -> tuple[int, int]:
        """How good a tensor [N,...] is as f: its number of values, then whether it is a grid rather than tokens."""
        value = self.observed[name]
        return value.size, value.ndim

    def section(self, start: str, target: str) -> Section:
        """The part of the network between two tensors."""
        return Section(self.model, start, target, observed=self.observed, static_batch=self._static_batch)

    def mean_layout(self, features: str, pooled: str) -> Layout | None:
        """The layout in which `pooled` is the mean of `features` over space, or None."""
        return self.reduces_to(np.mean, features, pooled)

    def reduces_to(self, reduce: Callable[..., Any], features: str, pooled: str) -> Layout | None:
        """The layout in which `pooled` is some reduction of `features` over space, or None.

        It is to be that at every scale: a Clip does nothing to small values.
        """
        value = self.observed[features]
        random = self._random.standard_normal((2, *value.shape[1:]))
        section: Section | None = None
        for layout, axes in _SPATIAL_AXES[value.ndim].items():
            expected = reduce(random, axis=axes).reshape(2, -1)
            if self.observed[pooled].size != len(value) * expected.shape[1]:
                continue
            section = section or self.section(features, pooled)
            if all(_agree(section(scale * random), scale * expected, scale) for scale in _scales(value)):
                return layout
        return None

    def vectors(self, name: str) -> list[Floats]:
        """What may be fed in a vector's place, each [n,C]: what was seen, random ones like it, others."""
        seen = self.observed[name].reshape(len(self.observed[name]), -1).astype(np.float64)
        random = self._random.standard_normal((16, seen.shape[1]))
        return [seen, np.sqrt(np.mean(seen**2)) * random, random]

    def constants(self, start: str, target: str) -> dict[str, Array]:
        """The graph's constants that are read between two tensors."""
        nodes, _ = nodes_between(self.model.graph, start, target)
        read = {name for node in nodes for name in tensors_read(node)}
        return {t.name: onnx.numpy_helper.to_array(t) for t in self.model.graph.initializer if t.name in read}
