"""Why a head gives no exact map, and what would mend it: the messages of `head`, and the probing that they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx

from gapcam.contract import HeadKind
from gapcam.errors import ModelError
from gapcam_export.errors import HeadError
from gapcam_export.graph import nodes_between
from gapcam_export.section import Array

SURGERY = "`gapcam gap SOURCE -o gapnet.pt2` does that with a network in PyTorch. Then fine-tune it."


def _mean_and_maximum(maps: Array, axis: tuple[int, ...]) -> tuple[Array, Array]:
    return np.mean(maps, axis=axis), np.max(maps, axis=axis)


# What a maximum has part in: reductions of feature maps [N,...] over axes.
_WITH_MAXIMUM: Mapping[str, Callable[..., Array]] = {
    "their maximum": np.max,
    "the mean of their average and their maximum": lambda maps, axis: np.mean(_mean_and_maximum(maps, axis), axis=0),
    "their average beside their maximum": lambda maps, axis: np.hstack(_mean_and_maximum(maps, axis)),
    "their maximum beside their average": lambda maps, axis: np.hstack(_mean_and_maximum(maps, axis)[::-1]),
}


def not_affine(model: onnx.ModelProto, pooled: str, logits: str) -> HeadError:
    """For a tail that follows the pooling and is of no kind that gives maps.

    Args:
        model: the network.
        pooled: name of the pooled vector.
        logits: name of the logits.
    """
    operators = [node.op_type for node in nodes_between(model.graph, pooled, logits)[0]]
    found = f"between the pooled vector {pooled!r} and the logits {logits!r} stand {', '.join(operators)}"
    return HeadError(
        HeadKind.NONLINEAR,
        f"{found}: neither an affine map, nor one after a layer normalisation, nor several with known elementwise "
        "activations between.",
        f"Replace what follows the pooling by one linear layer: {SURGERY}",
    )


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
        pooled = next((how for how, reduce in _WITH_MAXIMUM.items() if reduces_to(reduce, features, name)), "")
        if pooled:
            return HeadError(
                HeadKind.NONE,
                f"{maps}, pooled by {pooled}.",
                "A maximum looks at one point and leaves no map of the object's extent (Zhou et al. 2016, section 2). "
                f"Replace it by global average pooling: {SURGERY}",
            )
        if reduces_to(np.sum, features, name):
            return HeadError(
                HeadKind.NONE,
                f"{maps}, pooled by their sum.",
                f"Divide it by the number of positions ({prod(shape) // observed[name][0].size}) and the next layer's "
                "weights the other way: then it is global average pooling.",
            )
    if len(shape) == 3 and 1 in shape:  # a query's heads, say
        return HeadError(
            HeadKind.NONE,
            f"the last tensor with spatial extent is {features!r} {shape}, which is no grid of the image: what the "
            "network knows of all positions was pooled before, by attention mostly.",
            f"A class activation map needs global average pooling and one linear layer in its place: {SURGERY}",
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
        f"{features!r} by them, as Zhou et al. 2016 did with AlexNet and VGG: {SURGERY}",
    )
