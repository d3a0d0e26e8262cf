"""Questions about a traced network: which tensors all of an image's data passes through, and what a part of it reads.

The graphs are those of `program.trace`: ATen operators in an order in which they can run, some of them in place.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
# What gives its first argument, or a part of it, without its schema's saying so: a list's part, dropout in evaluation.
_PASSING = frozenset({operator.getitem, _aten.dropout.default, _aten.feature_dropout.default, _aten.type_as.default})


def image_of(graph: fx.Graph) -> fx.Node:
    """The node that stands for the image."""
    image: fx.Node = next(node for node in graph.nodes if node.op == "placeholder")
    return image


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """A tensor's shape without the batch, or None for what is no tensor of a batch of images."""
    value = node.meta.get("val")
    sides: tuple[Any, ...] = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    if len(sides) < 2 or not isinstance(sides[0], torch.SymInt):
        return None
    return sides[1:] if all(isinstance(side, int) for side in sides[1:]) else None


def name_changes(graph: fx.Graph) -> None:
    """Let what is read after a change in place be the changed tensor by name, too; in place.

    `relu_(x)` gives x itself, and a later reader of x reads what relu_ left in it. Afterwards the edges say so.
    """
    for node in graph.nodes:
        if _changes_in_place(node):
            changed = node.args[0]
            later = {user for user in changed.users if user is not node and node < user}
            changed.replace_all_uses_with(node, delete_user_cb=later.__contains__)


def necessary_nodes(source: fx.Node, target: fx.Node) -> list[fx.Node]:
    """Tensors that every path of data from `source` to `target` passes through, both included, in graph order.

    As in `gapcam_export.graph`: those for which (paths from source) * (paths to target) is the number of all paths.
    Sizes carry no pixel's value and do not count.
    """
    nodes = [node for node in source.graph.nodes if _carries_data(node)]
    from_source = dict.fromkeys(nodes, 0)
    from_source[source] = 1
    for node in nodes:
        if node is not source:
            from_source[node] = sum(from_source.get(read, 0) for read in node.all_input_nodes)
    to_target = dict.fromkeys(nodes, 0)
    to_target[target] = 1
    for node in reversed(nodes):
        for read in node.all_input_nodes:
            if read in to_target:
                to_target[read] += to_target[node]
    total = from_source[target]
    return [node for node in nodes if total and from_source[node] * to_target[node] == total]


def needed_for(target: fx.Node, known: Collection[fx.Node]) -> list[fx.Node]:
    """The nodes that compute `target` as its last reader sees it, in graph order; `known` ones need not be computed."""
    changes = {node for node in target.graph.nodes if _changes_later(node, target)}
    needed = {target, *changes}
    last = max(needed)
    # What is changed through a view of it, or by an operator in place, is read by another name later.
    memory = {_viewed(node) for node in needed}
    kept: list[fx.Node] = []
    for node in reversed(target.graph.nodes):
        if node < last and _changes_in_place(node) and _viewed(node) in memory and not _is_in(node, known):
            needed.add(node)
        if node in needed and node not in known:
            kept.append(node)
            needed.update(node.all_input_nodes)
            memory.update(map(_viewed, node.all_input_nodes))
    return kept[::-1]


def is_changed_later(target: fx.Node) -> bool:
    """Whether a tensor is changed in place after it was made, under whatever name, and read after that."""
    return any(_changes_later(node, target) for node in target.graph.nodes)


def copy_nodes(nodes: Iterable[fx.Node], known: dict[fx.Node, fx.Node], into: fx.Graph) -> None:
    """Copy nodes into another graph; `known` maps what they read to what is there, and gets the copies."""
    for node in nodes:
        known[node] = into.node_copy(node, known.__getitem__)


def _carries_data(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (tuple, list)) and any(isinstance(part, torch.Tensor) for part in value)
    )


def _alias(node: fx.Node) -> Any:
    """What an operator's schema says of its first argument's memory; None where nothing shares it."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return None
    arguments = node.target._schema.arguments
    return arguments[0].alias_info if arguments else None


def _changes_in_place(node: fx.Node) -> bool:
    alias = _alias(node)
    return alias is not None and alias.is_write and isinstance(node.args[0], fx.Node)


def _changes_later(node: fx.Node, target: fx.Node) -> bool:
    """Whether a node changes `target` after it was made, and before its last reader."""
    shares = target < node and _changes_in_place(node) and _viewed(node) is _viewed(target)
    return shares and any(node < user for user in target.users)


def _is_in(change: fx.Node, known: Collection[fx.Node]) -> bool:
    """Whether known tensors, as their last readers see them, hold a change already; the image is as it came."""
    return any(
        change <= each or any(change < user for user in each.users)
        for each in known
        if each.op != "placeholder" and _viewed(each) is _viewed(change)
    )


def _viewed(node: fx.Node) -> fx.Node:
    """The tensor whose memory a chain of views, their parts and changes in place is of."""
    while (_alias(node) is not None or node.target in _PASSING) and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
