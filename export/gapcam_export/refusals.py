"""Why a head gives no exact map, and what would mend it: the messages of `head`, and the probing that they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gapcam.contract import HeadKind
from gapcam.errors import ModelError
from gapcam_export.errors import HeadError
from gapcam_export.graph import nodes_between
from gapcam_export.section import Array, Section

Floats = NDArray[np.floating[Any]]


def not_affine(model: onnx.ModelProto, tail: Section, pooled: str, logits: str, vectors: Floats) -> ModelError:
    """For a tail that follows the pooling and is not affine.

    Args:
        model: the network.
        tail: from `pooled` to `logits`.
        pooled: name of the pooled vector.
        logits: name of the logits.
        vectors: [n,C] random ones, large enough for the epsilon of a normalisation not to matter.
    """
    operators = [node.op_type for node in nodes_between(model.graph, pooled, logits)[0]]
    found = f"between the pooled vector {pooled!r} and the logits {logits!r} stand {', '.join(operators)}"
    if any("Quantize" in operator or operator.endswith("Integer") for operator in operators):
        return ModelError(
            f"the network is quantised: {found}. Export the float32 network: it can be quantised afterwards."
        )
    if _is_layernorm_and_affine(tail, vectors):
        return HeadError(
            HeadKind.LAYERNORM,
            f"{found}: a layer normalisation and an affine map (as in ConvNeXt).",
            "Its maps would be exact, but this version of gapcam does not compute them. Use a network that normalises "
            "before it pools, or take the normalisation out and fine-tune.",
        )
    if operators[-1] == "Sigmoid":
        mend = "Take the Sigmoid at its end out: gapcam wants logits."
    else:
        mend = (
            "A class activation map needs a head that is affine: global average pooling and one linear layer. Replace "
            "what follows the pooling by one linear layer and fine-tune it."
        )
    return HeadError(HeadKind.NONLINEAR, f"{found}, which is not affine (as in MobileNetV3).", mend)


def _is_layernorm_and_affine(tail: Section, vectors: Floats) -> bool:
    """Whether a tail first takes mean and deviation out of a vector, and is affine in what is left."""

    def close(a: Floats, b: Floats) -> bool:
        return float(np.abs(a - b).max()) <= 1e-2 * float(np.abs(before).max())

    before = tail(vectors)
    if not close(tail(2 * vectors + 3), before):
        return False
    # Unit vectors without mean, in orthogonal pairs: their sums and differences are of one length, so that the
    # normalisation scales all alike.
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    u, w = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(centred, 2))
    w -= np.sum(u * w, axis=1, keepdims=True) * u
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    large = 1000.0
    shift = (tail(large * u) + tail(-large * u)) / 2
    both = tail(large * (u + w)) - shift
    return close(both, ((tail(large * u) - shift) + (tail(large * w) - shift)) / np.sqrt(2))


def not_float32(features: str, dtype: np.dtype[Any]) -> ModelError:
    """For a network that computes in less than float32."""
    return ModelError(
        f"the network computes its feature maps {features!r} in {dtype}; expected float32. Export the float32 network: "
        "its precision can be lowered afterwards."
    )


def no_average_pooling(
    observed: Mapping[str, Array],
    reduces_to: Callable[[Callable[..., Any], str, str], object],
    features: str,
    later: Sequence[str],
) -> HeadError:
    """For a network that does not average its last feature maps over space.

    Args:
        observed: values [N,...] of tensors.
        reduces_to: whether one tensor is a reduction of another over space.
        features: name of the last tensor with spatial extent.
        later: names of the tensors after it.
    """
    shape = list(observed[features].shape[1:])
    maps = f"the last feature maps are {features!r} {shape}"
    for name in later:
        if reduces_to(np.max, features, name):
            return HeadError(
                HeadKind.NONE,
                f"{maps}, pooled by their maximum.",
                "A maximum looks at one point and leaves no map of the object's extent (Zhou et al. 2016, section 2). "
                "Replace it by global average pooling and fine-tune.",
            )
        if reduces_to(np.sum, features, name):
            return HeadError(
                HeadKind.NONE,
                f"{maps}, pooled by their sum.",
                f"Divide it by the number of positions ({prod(shape) // observed[name][0].size}) and the next layer's "
                "weights the other way: then it is global average pooling.",
            )
    if len(shape) == 3 and any(observed[name].shape[1:] == (prod(shape),) for name in later):
        found = f"{maps}, flattened into {prod(shape)} values for fully connected layers (as in AlexNet and VGG)."
    elif len(shape) == 2:
        found = (
            f"{maps}, and they are not averaged: a class token or attention takes what it needs of them (as in ViT)."
        )
    else:
        found = f"{maps}, and no tensor after them is their average over space."
    return HeadError(
        HeadKind.NONE,
        found,
        f"A class activation map needs global average pooling and one linear layer. Replace everything after "
        f"{features!r} by them and fine-tune, as Zhou et al. 2016 did with AlexNet and VGG.",
    )
