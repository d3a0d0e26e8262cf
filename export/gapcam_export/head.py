"""Finds the head of a classifier on its ONNX graph, and reads its affine map by probing.

No module or node name is looked at. The last tensor with spatial extent that every path from image to logits passes
through is f, the feature maps; a later one that is f's mean over space is the pooled vector; the tail from there to
the logits is cut out and run at 0 and at multiples of the unit vectors, which gives bias and weights; random vectors
then prove that it is affine, Dropout, Flatten, BatchNorm and further linear layers folded in for free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from gapcam.contract import HeadKind
from gapcam_export.errors import HeadError
from gapcam_export.graph import graph_inputs, necessary_tensors, nodes_between, tensors_read
from gapcam_export.section import Array, Section, observe

Layout = Literal["nchw", "nhwc", "tokens", "channels-tokens"]
Floats = NDArray[np.floating[Any]]

# Axes that a layout pools over.
_SPATIAL_AXES: dict[int, dict[Layout, tuple[int, ...]]] = {
    4: {"nchw": (2, 3), "nhwc": (1, 2)},
    3: {"tokens": (1,), "channels-tokens": (2,)},
}
# A head is at the end: f is among the last tensors that all paths share. Bounds the memory that observing takes.
_TENSORS_OBSERVED = 32
# A power of two, so that scaling is exact; large, so that the bias costs the weights no digits.
_PROBE_SCALE = 1024.0
# float32 sums of a few thousand products, in another order.
_TOLERANCE = 1e-4

_AFTER_SOFTMAX = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class FoundHead:
    """The head of a classifier.

    Attributes:
        kind: AFFINE or CLASS_MAPS.
        layout: how `features` is laid out.
        features: name of the tensor f that is pooled.
        feature_shape: (C, h, w) of f.
        pooled: name of the pooled vector, C values a sample.
        logits: name of the logits, K values a sample.
        logits_shape: a sample's shape of that tensor, [K] mostly.
        weights: W, float32 [K,C]; the identity for CLASS_MAPS.
        bias: b, float32 [K].
    """

    kind: HeadKind
    layout: Layout
    features: str
    feature_shape: tuple[int, int, int]
    pooled: str
    logits: str
    logits_shape: tuple[int, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


def find_logits(graph: onnx.GraphProto, output: str) -> str:
    """The tensor before the Softmax that ends a graph, or the output itself where there is none."""
    producers = {name: node for node in graph.node for name in node.output}
    name = output
    while name in producers:
        node = producers[name]
        if node.op_type in ("Softmax", "LogSoftmax"):
            return str(node.input[0])
        if node.op_type not in _AFTER_SOFTMAX:
            break
        name = node.input[0]
    return output


def find_head(model: onnx.ModelProto, output: str, image: Array) -> FoundHead:
    """Find the head between a network's input and its output.

    Args:
        model: ONNX model with one input to feed.
        output: the output that holds the logits, or their Softmax.
        image: an input [N,...] to run the network on; with a symbolic batch N should be 2 or more.

    Raises:
        HeadError: the head is of a kind whose maps this version does not compute.
    """
    (fed,) = graph_inputs(model.graph)
    logits = find_logits(model.graph, output)
    names = necessary_tensors(model.graph, fed.name, logits)[-_TENSORS_OBSERVED:]
    asked_for_shape = {node.input[0] for node in model.graph.node if node.op_type in ("Shape", "Size")}
    constants = {tensor.name for tensor in model.graph.initializer}
    made = [name for name in dict.fromkeys([*names, *asked_for_shape]) if name != fed.name and name not in constants]
    observed = {**observe(model, made, image), fed.name: image}

    probe = _Probe(model, observed, static_batch=fed.type.tensor_type.shape.dim[0].dim_value > 0)
    spatial = [name for name in names if name != fed.name and _is_spatial(observed[name])]
    if not spatial:
        raise HeadError(
            HeadKind.NONE,
            f"no tensor that all paths to the logits {logits!r} pass through has spatial extent.",
            "A class activation map needs feature maps larger than 1x1: try a larger --size.",
        )
    features = spatial[-1]
    later = names[names.index(features) + 1 :]
    for pooled in later:
        layout = probe.mean_layout(features, pooled)
        if layout is not None:
            break
    else:
        raise _no_average_pooling(probe, features, later)
    # Pooling may go in steps (rows, then columns): f is what goes into the first of them.
    for earlier in reversed(spatial[:-1]):
        earlier_layout = probe.mean_layout(earlier, pooled)
        if earlier_layout is None:
            break
        if observed[earlier].size > observed[features].size:
            features, layout = earlier, earlier_layout

    feature_shape = _feature_shape(observed[features], layout, image)
    weights, bias = probe.affine_tail(pooled, logits)
    kind = HeadKind.AFFINE
    if weights.shape[0] == weights.shape[1] and np.array_equal(weights, np.eye(len(weights))) and not bias.any():
        kind = HeadKind.CLASS_MAPS
    return FoundHead(kind, layout, features, feature_shape, pooled, logits, observed[logits].shape[1:], weights, bias)


def _is_spatial(value: Array) -> bool:
    """Whether a tensor [N,...] has a spatial axis beside its channels."""
    return value.ndim in _SPATIAL_AXES and sum(side > 1 for side in value.shape[1:]) > 1


def _feature_shape(value: Array, layout: Layout, image: Array) -> tuple[int, int, int]:
    shape = value.shape
    if layout == "nchw":
        return shape[1], shape[2], shape[3]
    if layout == "nhwc":
        return shape[3], shape[1], shape[2]
    channels, tokens = (shape[2], shape[1]) if layout == "tokens" else (shape[1], shape[2])
    height, width = image.shape[1:3] if image.shape[-1] == 3 else image.shape[2:4]
    for rows in range(1, tokens + 1):
        if tokens % rows == 0 and rows * width == tokens // rows * height:
            return channels, rows, tokens // rows
    raise HeadError(
        HeadKind.NONE,
        f"{tokens} tokens are averaged, which is no grid of the shape of a {height}x{width} image.",
        "Average the patch tokens alone, without class or register tokens.",
    )


class _Probe:
    """Runs sections of one network on vectors of our choice."""

    def __init__(self, model: onnx.ModelProto, observed: Mapping[str, Array], *, static_batch: bool) -> None:
        self._model, self._observed, self._static_batch = model, observed, static_batch
        self._random = np.random.default_rng(0)

    def value(self, name: str) -> Array:
        return self._observed[name]

    def section(self, start: str, target: str) -> Section:
        return Section(self._model, start, target, observed=self._observed, static_batch=self._static_batch)

    def mean_layout(self, features: str, pooled: str) -> Layout | None:
        """The layout in which `pooled` is the mean of `features` over space, or None."""
        return self._reduces_to(np.mean, features, pooled)

    def is_maximum(self, features: str, pooled: str) -> bool:
        return self._reduces_to(np.max, features, pooled) is not None

    def _reduces_to(self, reduce: np.ufunc | object, features: str, pooled: str) -> Layout | None:
        shape = self._observed[features].shape
        random = self._random.standard_normal((2, *shape[1:]))
        got: Floats | None = None
        for layout, axes in _SPATIAL_AXES[len(shape)].items():
            expected = reduce(random, axis=axes).reshape(2, -1)  # type: ignore[operator]
            if self._observed[pooled].size != shape[0] * expected.shape[1]:
                continue
            if got is None:
                got = self.section(features, pooled)(random)
            if got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=_TOLERANCE):
                return layout
        return None

    def affine_tail(self, pooled: str, logits: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """W [K,C] and b [K] with logits = W pooled + b.

        Raises:
            HeadError: the tail is not affine.
        """
        tail = self.section(pooled, logits)
        seen = self._observed[pooled].reshape(len(self._observed[pooled]), -1).astype(np.float64)
        channels = seen.shape[1]
        bias = tail(np.zeros((1, channels)))[0]
        weights = (tail(_PROBE_SCALE * np.eye(channels)) - bias).T / _PROBE_SCALE
        scale = np.sqrt(np.mean(seen**2)) or 1.0
        vectors = np.concatenate([seen, scale * self._random.standard_normal((16, channels))])
        got = tail(vectors)
        error = np.abs(got - (vectors @ weights.T + bias)).max()
        if not error <= _TOLERANCE * np.abs(got).max():
            raise _not_affine(self._model, tail, pooled, logits, 10 / scale * vectors[-16:])
        nodes, _ = nodes_between(self._model.graph, pooled, logits)
        read = {name for node in nodes for name in tensors_read(node)}
        constants = [onnx.numpy_helper.to_array(t) for t in self._model.graph.initializer if t.name in read]
        return _exact(weights, constants), _exact(bias, constants)


def _exact(probed: Floats, constants: Sequence[Array]) -> NDArray[np.float32]:
    """The constant that probing has read, bit for bit, if there is one: probing may round its last digit."""
    for constant in constants:
        candidates = [constant.reshape(probed.shape)] if constant.size == probed.size else []
        if constant.ndim == 2 and constant.T.shape == probed.shape:
            candidates.append(constant.T)
        for candidate in candidates:
            if np.allclose(candidate, probed, rtol=1e-5, atol=1e-6 * float(np.abs(probed).max())):
                return np.ascontiguousarray(candidate, np.float32)
    return np.ascontiguousarray(probed, np.float32)


def _not_affine(model: onnx.ModelProto, tail: Section, pooled: str, logits: str, vectors: Floats) -> HeadError:
    operators = ", ".join(node.op_type for node in nodes_between(model.graph, pooled, logits)[0])
    found = f"between the pooled vector {pooled!r} and the logits {logits!r} stand {operators}"
    before = tail(vectors)
    # LayerNorm takes mean and scale out of a vector: only a tail that begins with it is blind to them. (The vectors are
    # large enough for its epsilon not to matter.)
    if np.abs(tail(2 * vectors + 3) - before).max() <= 1e-2 * np.abs(before).max():
        return HeadError(
            HeadKind.LAYERNORM,
            f"{found}: a layer normalisation and an affine map (as in ConvNeXt).",
            "Its maps would be exact, but this version of gapcam does not compute them. Use a network that normalises "
            "before it pools, or take the normalisation out and fine-tune.",
        )
    return HeadError(
        HeadKind.NONLINEAR,
        f"{found}, which is not affine (as in MobileNetV3).",
        "A class activation map needs a head that is affine: global average pooling and one linear layer. Replace "
        "what follows the pooling by one linear layer and fine-tune it.",
    )


def _no_average_pooling(probe: _Probe, features: str, later: Sequence[str]) -> HeadError:
    shape = list(probe.value(features).shape[1:])
    maps = f"the last feature maps are {features!r} {shape}"
    for name in later:
        if probe.is_maximum(features, name):
            return HeadError(
                HeadKind.NONE,
                f"{maps}, pooled by their maximum.",
                "A maximum looks at one point and leaves no map of the object's extent (Zhou et al. 2016, section 2). "
                "Replace it by global average pooling and fine-tune.",
            )
    flat = next((name for name in later if probe.value(name).shape[1:] == (prod(shape),)), None)
    if flat is not None:
        found = f"{maps}, flattened into {prod(shape)} values for fully connected layers (as in AlexNet and VGG)."
    else:
        found = f"{maps}, and no tensor after them is their average over space."
    return HeadError(
        HeadKind.NONE,
        found,
        f"A class activation map needs global average pooling and one linear layer. Replace everything after "
        f"{features!r} by them and fine-tune, as Zhou et al. 2016 did with AlexNet and VGG.",
    )
