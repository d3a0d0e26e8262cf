"""How tensors of a traced network lie in the image, followed from the image on through what moves their axes.

Sizes alone do not tell [N,64,49] of 64 channels on 7x7 from 49 positions and 15 class tokens, nor [N,8,8,8] as
[N,C,h,w] from [N,h,w,C].
"""

from __future__ import annotations

import operator
from typing import Literal

import torch
from torch import fx

from gapcam_export.surgery.dataflow import image_of, shape_of

Layout = Literal["nchw", "nhwc", "tokens", "channels-tokens"]

_aten = torch.ops.aten
_MAKING_MAPS = {
    "conv2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "pixel_shuffle", "pixel_unshuffle",
}  # fmt: skip
_MOVING = {"permute", "transpose", "swapaxes", "swapdims", "movedim"}
_RESHAPING = {"view", "reshape", "flatten", "unflatten", "_unsafe_view"}
_MIXING = {"matmul", "bmm", "einsum", "baddbmm"}
# The axes after the batch: channels, rows, columns, positions.
_AXES: dict[Layout, str] = {"nchw": "chw", "nhwc": "hwc", "tokens": "pc", "channels-tokens": "cp"}
_LAYOUTS: dict[str, Layout] = {axes: layout for layout, axes in _AXES.items()}


def layouts_of(graph: fx.Graph) -> dict[fx.Node, Layout]:
    """The layouts of those tensors that they can be followed to; the others are left out."""
    axes: dict[fx.Node, str] = {image_of(graph): "chw"}
    for node in graph.nodes:
        found = axes.get(node) or _axes_after(node, axes)
        if found is not None:
            axes[node] = found
    return {node: _LAYOUTS[each] for node, each in axes.items() if each in _LAYOUTS}


def _axes_after(node: fx.Node, axes: dict[fx.Node, str]) -> str | None:
    shape = shape_of(node)
    if shape is None or node.op != "call_function":
        return None
    name = node.target._schema.name.partition("::")[2] if isinstance(node.target, torch._ops.OpOverload) else ""
    if name in _MAKING_MAPS and len(shape) == 3:
        return "chw"
    sources = node.all_input_nodes
    if node.target is operator.getitem:  # of a list of parts
        sources = sources[0].all_input_nodes
    source = next((each for each in sources if each in axes), None)
    if source is None or name in _MIXING:
        return None
    if name in _MOVING:
        return _moved(node, axes[source])
    if name in _RESHAPING:
        return _reshaped(axes[source], shape_of(source) or (), shape)
    return next((axes[each] for each in sources if each in axes and len(axes[each]) == len(shape)), None)


def _moved(node: fx.Node, axes: str) -> str | None:
    sides = torch.empty(tuple(range(1, len(axes) + 2)), device="meta")  # a length of its own for each axis
    assert callable(node.target)  # noqa: S101  # an operator
    moved = [side - 2 for side in node.target(sides, *node.args[1:], **node.kwargs).shape]
    return "".join(axes[side] for side in moved[1:]) if moved[0] == -1 else None


def _reshaped(axes: str, old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    if old == new:
        return axes
    if axes == "chw" and new == (old[0], old[1] * old[2]):
        return "cp"
    if axes == "hwc" and new == (old[0] * old[1], old[2]):
        return "pc"
    if axes == "cp" and len(new) == 3 and (new[0], new[1] * new[2]) == old:
        return "chw"
    if axes == "pc" and len(new) == 3 and (new[0] * new[1], new[2]) == old:
        return "hwc"
    return None
