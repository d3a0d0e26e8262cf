"""Finds where a classifier's feature maps end and its head begins, on its traced graph, and cuts there.

No module, parameter or function name is looked at. The cut is the last tensor with spatial extent that every path from
the image passes through, before all has gone through one vector. What pools, drops or reshapes right before the head
does not belong to the features: it has no parameters, and only loses resolution. That makes "after conv5" of AlexNet
and "after conv5-3" of VGG16 (Zhou et al. 2016, section 3.1) cases of one rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from gapcam.errors import UsageError
from gapcam_export.errors import SourceError
from gapcam_export.surgery.dataflow import (
    copy_nodes,
    image_of,
    is_changed_later,
    name_changes,
    necessary_nodes,
    needed_for,
    shape_of,
)
from gapcam_export.surgery.layouts import Layout, layouts_of

_aten = torch.ops.aten
_POOLING = frozenset(
    {
        _aten.max_pool2d.default,
        _aten.avg_pool2d.default,
        _aten.adaptive_avg_pool2d.default,
        _aten.adaptive_max_pool2d.default,
    }
)
_REARRANGING = frozenset(
    {
        _aten.dropout.default,
        _aten.dropout_.default,
        _aten.feature_dropout.default,
        _aten.flatten.using_ints,
        _aten.view.default,
        _aten.reshape.default,
        _aten.permute.default,
        _aten.transpose.int,
        _aten.contiguous.default,
        _aten.clone.default,
        _aten.alias.default,
    }
)
_LOGITS_TO_SCORES = frozenset({_aten.softmax.int, _aten.log_softmax.int, _aten.sigmoid.default})
_MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class Cut:
    """Where a classifier is cut.

    Attributes:
        node: the tensor f after which it is cut.
        layout: of that tensor.
        features: (C, h, w) of f as [N,C,h,w].
        skipped_tokens: class and register tokens before the grid's, which the new network leaves out.
        image: the node of the image.
        logits: the node of the logits; a Softmax or Sigmoid after it is left out.
        scores: the operator that made scores of the logits, or "".
    """

    node: fx.Node
    layout: Layout
    features: tuple[int, int, int]
    skipped_tokens: int
    image: fx.Node
    logits: fx.Node
    scores: str

    @property
    def classes(self) -> int:
        """K."""
        shape = shape_of(self.logits)
        assert shape is not None  # noqa: S101  # find_cut has seen to it
        return shape[0]


@dataclass(frozen=True)
class _Spatial:
    """A tensor with spatial extent: its node, layout, (C, h, w), and how many tokens stand before its grid.

    `other` is a layout that fits its sizes as well, where nothing tells which it is.
    """

    node: fx.Node
    layout: Layout
    features: tuple[int, int, int]
    skipped: int = 0
    other: Layout | None = None


def find_cut(
    traced: fx.GraphModule, size: tuple[int, int], stride: int | None = None, *, before_pooling: bool = True
) -> Cut:
    """Find the cut of a classifier.

    Args:
        traced: by `program.trace`. Its graph is put in order: it computes the same.
        size: (H, W) that it was traced with, in pixels.
        stride: take the last tensor whose map is the image's size over this one instead, to the nearest power of two.
        before_pooling: leave out what pools right before the head, too.

    Raises:
        SourceError: it gives something else than logits [N,K], or nothing with spatial extent lies on all paths.
        UsageError: no such tensor has this stride.
    """
    name_changes(traced.graph)
    image = image_of(traced.graph)
    logits, scores = _logits(traced.graph)
    spatial = [each for each in _spatial_tensors(necessary_nodes(image, logits), size) if not _is_image(each.node)]
    if not spatial:
        raise SourceError(
            "there is nothing to cut: no tensor with spatial extent lies on every path from the image to the logits "
            "(the network flattens the image, or has branches that meet in vectors only). Surgery needs feature maps "
            "that all passes through."
        )
    by_node = {each.node: each for each in spatial if stride is None or _has_stride(each, size, stride)}
    if not by_node:
        raise UsageError(f"--cut-stride is {stride}; every path passes through maps of {_listed(spatial, size)}.")
    *_, found = by_node.values()
    trailing = _REARRANGING | _POOLING if before_pooling else _REARRANGING
    while found.node.target in trailing and not is_changed_later(found.node):
        before = by_node.get(found.node.all_input_nodes[0])
        if before is None:
            break
        found = before
    if found.other is not None:
        sides = ",".join(map(str, shape_of(found.node) or ()))
        raise SourceError(
            f"the last feature maps {found.node.name} are [N,{sides}], which may be {found.layout} as well as "
            f"{found.other}, and nothing in the network tells which. Cut elsewhere with --cut-stride, or give another "
            "--size."
        )
    return Cut(found.node, found.layout, found.features, found.skipped, image, logits, scores)


def backbone_of(traced: fx.GraphModule, cut: Cut) -> fx.GraphModule:
    """The network up to the cut: takes [N,3,H,W], gives f as [N,C,h,w]; its parameters keep their names."""
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {cut.image: graph.node_copy(cut.image)}
    copy_nodes(needed_for(cut.node, known), known, graph)
    channels, rows, columns = cut.features
    maps = known[cut.node]
    if cut.layout == "nhwc":
        maps = _call(graph, _aten.permute.default, maps, [0, 3, 1, 2])
    elif cut.layout != "nchw":
        axis = 1 if cut.layout == "tokens" else 2
        if cut.skipped_tokens or _sides(cut)[axis - 1] != rows * columns:
            end = cut.skipped_tokens + rows * columns
            maps = _call(graph, _aten.slice.Tensor, maps, axis, cut.skipped_tokens, end)
        if axis == 1:
            maps = _call(graph, _aten.transpose.int, maps, 1, 2)
        maps = _call(graph, _aten.reshape.default, maps, [-1, channels, rows, columns])
    graph.output(maps)
    return fx.GraphModule(traced, graph)


def logits_of(traced: fx.GraphModule, cut: Cut) -> fx.GraphModule:
    """The whole network as it was traced, with nothing left out but what makes scores of its logits."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(traced.graph, copies)
    graph.output(copies[cut.logits])
    return fx.GraphModule(traced, graph)


def section_of(traced: fx.GraphModule, start: fx.Node, target: fx.Node) -> fx.GraphModule | None:
    """The part from one tensor to another as a function of the first; None if it reads other data of the image."""
    graph = fx.Graph()
    entry = graph.placeholder("start")
    known = {start: entry}
    for node in traced.graph.nodes:
        if node.target is _aten.sym_size.int and node.args[1] == 0:  # of whatever tensor: it is the batch
            known[node] = graph.call_function(_aten.sym_size.int, (entry, 0))
    nodes = needed_for(target, known)
    if any(node.op == "placeholder" for node in nodes):
        return None
    copy_nodes(nodes, known, graph)
    graph.output(known[target])
    return fx.GraphModule(traced, graph)


def _call(graph: fx.Graph, operator: Any, *arguments: Any) -> fx.Node:
    node = graph.call_function(operator, arguments)
    node.meta["val"] = operator(*fx.node.map_arg(arguments, lambda read: read.meta["val"]))
    return node


def _sides(cut: Cut) -> tuple[int, ...]:
    sides = shape_of(cut.node)
    assert sides is not None  # noqa: S101  # it is a spatial tensor
    return sides


def _logits(graph: fx.Graph) -> tuple[fx.Node, str]:
    (output,) = (node for node in graph.nodes if node.op == "output")
    given = output.args[0]
    if isinstance(given, (tuple, list)) and len(given) == 1:
        given = given[0]
    shape = shape_of(given) if isinstance(given, fx.Node) else None
    if not isinstance(given, fx.Node) or shape is None or len(shape) != 1:
        got = f"[N,{','.join(map(str, shape))}]" if shape else f"a {_structure(given)}"
        raise SourceError(
            f"the network gives {got}; expected logits [N,K]. Wrap it in a module whose forward returns the logits "
            "alone."
        )
    if given.target in _LOGITS_TO_SCORES:
        return given.all_input_nodes[0], str(given.target).split(".")[1]
    return given, ""


def _structure(given: Any) -> str:
    if isinstance(given, fx.Node):
        return "tensor that is not one row an image"
    return f"{type(given).__name__} of {len(given)}" if isinstance(given, (tuple, list, dict)) else type(given).__name__


def _spatial_tensors(nodes: Sequence[fx.Node], size: tuple[int, int]) -> list[_Spatial]:
    """The tensors with spatial extent among necessary ones, in order, until the first vector."""
    found: list[_Spatial] = []
    layouts = layouts_of(nodes[0].graph)
    for node in nodes[1:]:
        shape = shape_of(node)
        if shape is None:
            continue
        if sum(side > 1 for side in shape) <= 1:
            break
        grid = found[-1].features[1:] if found else None
        readings = _readings(node, shape, size, grid)
        if not readings:
            continue
        followed = [each for each in readings if each.layout == layouts.get(node)]
        if followed or len(readings) == 1:
            found.append((followed or readings)[0])
        else:
            found.append(replace(readings[0], other=readings[1].layout))
    return found


def _readings(
    node: fx.Node, shape: tuple[int, ...], size: tuple[int, int], grid: tuple[int, int] | None
) -> list[_Spatial]:
    """The ways in which a tensor may lie in the image, told by the image's sides."""
    readings = []
    if len(shape) == 3:
        if _is_map(shape[1:], size):
            readings.append(_Spatial(node, "nchw", shape))
        if _is_map(shape[:2], size):
            readings.append(_Spatial(node, "nhwc", (shape[2], shape[0], shape[1])))
    if len(shape) == 2:
        # Tokens are those of the feature maps before, and perhaps some that belong to no place; or fewer, evenly.
        if grid is not None and 0 <= shape[0] - math.prod(grid) <= _MOST_PREFIX_TOKENS:
            readings.append(_Spatial(node, "tokens", (shape[1], *grid), shape[0] - math.prod(grid)))
        if grid is not None and shape[1] == math.prod(grid):
            readings.append(_Spatial(node, "channels-tokens", (shape[0], *grid)))
        rows = math.isqrt(shape[0] * size[0] // size[1])
        if not readings and rows and shape[0] % rows == 0 and rows * size[1] == shape[0] // rows * size[0]:
            readings.append(_Spatial(node, "tokens", (shape[1], rows, shape[0] // rows)))
    return readings


def _is_map(sides: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether two sides are those of an image that was divided by one number, up to what padding adds or takes."""
    height, width = sides
    return height * width > 1 and abs(height - width * size[0] / size[1]) <= 2 * max(1, size[0] / size[1])


def _has_stride(spatial: _Spatial, size: tuple[int, int], stride: int) -> bool:
    return round(math.log2(size[0] / spatial.features[1] / stride)) == 0


def _listed(spatial: Sequence[_Spatial], size: tuple[int, int]) -> str:
    sides = dict.fromkeys(each.features[1:] for each in spatial)
    return ", ".join(f"{h}x{w} (stride {2 ** round(math.log2(size[0] / h))})" for h, w in sides)


def _is_image(node: fx.Node) -> bool:
    """Whether a tensor is nothing but the image, or pixels of it rearranged."""
    while node.target in _REARRANGING:
        node = node.all_input_nodes[0]
    return node.op == "placeholder"
