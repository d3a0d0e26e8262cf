"""Questions about an ONNX graph, and the few edits that tapping one needs.

Nodes of a valid ONNX graph stand in topological order; everything here relies on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx

# What these give depends on their input's shape alone: no pixel's value passes through.
_SHAPE_OPERATORS = frozenset({"Shape", "Size"})


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those that its subgraphs (If, Loop) capture included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            made = {name for inner in subgraph.node for name in inner.output}
            made.update(value.name for value in subgraph.input)
            made.update(tensor.name for tensor in subgraph.initializer)
            for inner in subgraph.node:
                yield from (name for name in tensors_read(inner) if name not in made)
            yield from (value.name for value in subgraph.output if value.name not in made)


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, those inside its nodes (If, Loop), and the bodies of functions."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop(0)
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a model: initializers and attributes, sparse ones included."""
    for graph in all_graphs(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors
                one = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
                for sparse in (*one, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Bring the nodes to topological order, in place; those that stand in it stay where they are.

    ONNX demands that order, and ONNX Runtime does not: some tools (its own converter to float16) add nodes at the end.
    """
    made_here = {name for node in graph.node for name in node.output}
    done: set[str] = set()
    sorted_nodes: list[onnx.NodeProto] = []
    waiting = list(graph.node)
    while waiting:
        later = []
        for node in waiting:
            if all(name in done or name not in made_here for name in tensors_read(node)):
                sorted_nodes.append(node)
                done.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):  # a circle: ONNX Runtime says so
            sorted_nodes += later
            break
        waiting = later
    if any(one is not other for one, other in zip(sorted_nodes, graph.node, strict=True)):
        in_order = onnx.GraphProto(node=sorted_nodes)
        del graph.node[:]
        graph.node.extend(in_order.node)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ONNX's own operator set that a model is written in."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that must be fed: initializers are listed among `graph.input` too in files of IR version 3."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def necessary_tensors(graph: onnx.GraphProto, source: str, target: str) -> list[str]:
    """Tensors that every path of data from `source` to `target` passes through, both included, in graph order.

    In a directed acyclic graph these are the tensors for which (paths from source) * (paths to target) equals the
    number of all paths. Python's integers count them exactly, be they as many as in a DenseNet. Paths through Shape
    carry no pixel's value and do not count. Empty if no path leads from `source` to `target`.
    """
    from_source: defaultdict[str, int] = defaultdict(int, {source: 1})
    order = [source]
    for node in graph.node:
        paths = 0 if node.op_type in _SHAPE_OPERATORS else sum(from_source[name] for name in tensors_read(node))
        for name in node.output:
            if paths and name:
                from_source[name] = paths
                order.append(name)
    to_target: defaultdict[str, int] = defaultdict(int, {target: 1})
    for node in reversed(graph.node):
        if node.op_type not in _SHAPE_OPERATORS:
            paths = sum(to_target[name] for name in node.output if name)
            for name in tensors_read(node):
                to_target[name] += paths
    total = from_source[target]
    return [name for name in order if total and from_source[name] * to_target[name] == total]


def nodes_between(graph: onnx.GraphProto, start: str, target: str) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes that compute `target` once `start` is known, and what they look at of the graph before `start`.

    Returns:
        The nodes in graph order, and the names of tensors of which only the shape is asked (the network's input, say,
        for its batch size).
    """
    wanted = {target}
    shape_only: list[str] = []
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted.isdisjoint(node.output) or start in node.output:
            continue
        nodes.append(node)
        if node.op_type in _SHAPE_OPERATORS:
            shape_only.append(node.input[0])
        else:
            wanted.update(name for name in tensors_read(node) if name != start)
    nodes.reverse()
    made = {name for node in nodes for name in node.output} | {start}
    return nodes, [name for name in dict.fromkeys(shape_only) if name not in made]


def rename_tensor(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it is made, read or described.

    Whatever had the new name before is renamed out of the way.
    """
    if old == new:
        return
    if new in tensor_names(graph):
        rename_tensor(graph, new, unused_name(graph, f"{new}_source"))
    _rename(graph, old, new)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename(subgraph, old, new)


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Every name that a tensor of the graph has; subgraphs see these too."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.output)
        names.update(tensors_read(node))
    return names


def unused_name(graph: onnx.GraphProto, wish: str) -> str:
    """`wish`, or `wish_2`, `wish_3`, ... if the graph has such a tensor already."""
    names = tensor_names(graph)
    return next(name for name in (wish, *(f"{wish}_{i}" for i in range(2, len(names) + 3))) if name not in names)


def remove_unused(graph: onnx.GraphProto) -> None:
    """Drop nodes, initializers and value infos that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(tensors_read(node))
    kept.reverse()
    made = {name for node in kept for name in node.output}
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    # Files of IR version 3 list initializers among the inputs, too.
    dropped = {tensor.name for tensor in graph.initializer if tensor.name not in needed}
    inputs = [value for value in graph.input if value.name not in dropped]
    value_infos = [value for value in graph.value_info if value.name in made]
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.input[:]
    graph.input.extend(inputs)
    graph.node.extend(kept)
    graph.initializer.extend(initializers)
    graph.value_info.extend(value_infos)


def fix_dimension(graph: onnx.GraphProto, fed: onnx.ValueInfoProto, axis: int, side: int) -> None:
    """Give an axis of the input a number, and with it all axes that the graph describes by its symbol.

    A symbol that several axes of the input share, such as "?", says nothing of the others.
    """
    dims = fed.type.tensor_type.shape.dim
    symbol = dims[axis].dim_param
    shared = [dim.dim_param for dim in dims].count(symbol) > 1
    dims[axis].dim_value = side
    if not symbol or shared:
        return
    for value in (*graph.output, *graph.value_info):
        for other in value.type.tensor_type.shape.dim:
            if other.dim_param == symbol:
                other.dim_value = side
