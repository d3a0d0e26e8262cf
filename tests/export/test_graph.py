"""Questions about graphs, on graphs small enough to answer by eye."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from gapcam_export.graph import necessary_tensors, nodes_between, remove_unused, rename_tensor, unused_name


def graph_of(*edges: str, outputs: str = "out") -> onnx.GraphProto:
    """A graph from lines such as "a b -> c" or "Shape: a -> s"; its input is "image"."""
    nodes = []
    for edge in edges:
        operator, _, wiring = edge.rpartition(":")
        inputs, _, made = wiring.partition("->")
        nodes.append(helper.make_node(operator or "Sum", inputs.split(), made.split()))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()]
    return helper.make_graph(nodes, "graph", [helper.make_tensor_value_info("image", TensorProto.FLOAT, None)], values)


def test_a_tensor_beside_a_shortcut_is_not_necessary() -> None:
    graph = graph_of("image -> a", "a -> branch", "a branch -> joined", "joined -> out")
    assert necessary_tensors(graph, "image", "out") == ["image", "a", "joined", "out"]


def test_a_squeeze_and_excite_blocks_pooled_vector_is_not_necessary() -> None:
    graph = graph_of("image -> x", "GlobalAveragePool: x -> p", "Sigmoid: p -> gate", "Mul: x gate -> y", "y -> out")
    assert necessary_tensors(graph, "image", "out") == ["image", "x", "y", "out"]


def test_a_path_through_a_shape_carries_no_pixels() -> None:
    graph = graph_of("image -> x", "Shape: image -> size", "Reshape: x size -> y", "y -> out")
    assert necessary_tensors(graph, "image", "out") == ["image", "x", "y", "out"]


def test_a_tensor_that_a_nodes_subgraph_captures_counts_as_read() -> None:
    graph = graph_of("image -> x", "x -> a", "x -> b", outputs="out")
    inner = helper.make_graph(
        [helper.make_node("Neg", ["b"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    graph.node.append(helper.make_node("If", ["a"], ["out"], then_branch=inner, else_branch=inner))
    assert necessary_tensors(graph, "image", "out") == ["image", "x", "out"]


def test_as_many_paths_as_in_a_deep_densenet_are_counted_exactly() -> None:
    edges, seen = [], ["image"]
    for layer in range(200):  # each reads all before it: 2**199 paths
        edges.append(f"{' '.join(seen)} -> t{layer}")
        seen.append(f"t{layer}")
    graph = graph_of(*edges, "t199 -> last", "last -> out")
    assert necessary_tensors(graph, "image", "out") == ["image", "t199", "last", "out"]


def test_nothing_is_necessary_where_no_path_leads() -> None:
    assert necessary_tensors(graph_of("Shape: image -> s", "s -> out"), "image", "out") == []


def test_a_section_names_what_it_asks_only_the_shape_of() -> None:
    graph = graph_of("image -> x", "Shape: image -> s", "x -> p", "Reshape: p s -> y", "y -> out")
    nodes, shape_only = nodes_between(graph, "p", "out")
    assert [node.output[0] for node in nodes] == ["s", "y", "out"]
    assert shape_only == ["image"]


def test_renaming_moves_whatever_had_the_name_out_of_the_way() -> None:
    graph = graph_of("image -> features", "features -> x", "x -> out")
    rename_tensor(graph, "x", "features")
    assert [(list(node.input), list(node.output)) for node in graph.node] == [
        (["image"], ["features_source"]),
        (["features_source"], ["features"]),
        (["features"], ["out"]),
    ]


def test_a_wished_name_is_given_only_once() -> None:
    graph = graph_of("image -> a", "a -> a_2", "a_2 -> out")
    assert unused_name(graph, "a") == "a_3"
    assert unused_name(graph, "b") == "b"


def test_what_no_output_needs_is_removed_and_the_order_kept() -> None:
    graph = graph_of("image -> a", "a -> dead", "a -> b", "dead -> dead2", "b -> out")
    remove_unused(graph)
    assert [node.output[0] for node in graph.node] == ["a", "b", "out"]
