"""Lowers the nodes of a graph to float16 or bfloat16, except those that are to stay in float32.

ONNX Runtime's converter does the work (docs/precision.md compares it with others). It takes float32 graphs without
`Constant` nodes, without constants among the outputs, and without constants that nodes of both kinds read; it leaves
nodes out of order, the same Cast twice, and Casts to float16 and back between nodes that both stay in float32, which
would round there, too. So the graph is prepared for it and put in order after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from gapcam_export.graph import remove_unused, rename_tensor, sort_nodes, tensors_read, unused_name
from gapcam_export.section import Array


def lower_nodes(model: onnx.ModelProto, kept: Collection[str], dtypes: Mapping[str, int], half: int) -> onnx.ModelProto:
    """A model whose nodes compute in half precision, with inputs and outputs as they were.

    A constant that is an output stays one in float32; where nodes in half precision read it, it has their rounded
    values, and a Cast gives it to them: the file holds it once.

    Args:
        model: in float32; is not changed. Each node of its main graph has a name of its own.
        kept: names of the nodes that stay in float32; all that have subgraphs are among them.
        dtypes: the type of each tensor that a node makes; what is not there is no tensor (a sequence), and its maker
            and readers are among `kept`.
        half: TensorProto.FLOAT16 or TensorProto.BFLOAT16.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    graph = prepared.graph
    given = _take_out_constant_outputs(graph)
    lowered_copies = _separate_constants(graph, kept, given)
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    del graph.value_info[:]
    graph.value_info.extend(
        helper.make_tensor_value_info(name, dtype, None)
        for name, dtype in dtypes.items()
        if name not in {value.name for value in graph.output}
    )
    converted: onnx.ModelProto = convert_float_to_float16(
        prepared, keep_io_types=True, disable_shape_infer=True, op_block_list=[], node_block_list=list(kept)
    )
    graph = converted.graph
    half_tensors = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    del graph.value_info[:]
    _mend_casts(graph, {node.name for node in model.graph.node}, half_tensors)
    sort_nodes(graph)
    if half == TensorProto.BFLOAT16:
        _make_bfloat16(graph)
    _round_constants(graph, exact, half)
    for name, copy in lowered_copies.items():
        _cast_instead_of_copy(graph, name, copy, exact[name], half)
    del graph.output[:]
    graph.output.extend(model.graph.output)
    remove_unused(graph)
    return onnx.shape_inference.infer_shapes(converted)


def constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Make initializers of the main graph's `Constant` nodes, in place."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        (attribute,) = node.attribute
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            tensor = onnx.TensorProto.FromString(value.SerializeToString())
            tensor.name = node.output[0]
        elif attribute.name in ("value_float", "value_floats"):
            tensor = numpy_helper.from_array(np.asarray(value, np.float32), node.output[0])
        elif attribute.name in ("value_int", "value_ints"):
            tensor = numpy_helper.from_array(np.asarray(value, np.int64), node.output[0])
        else:  # texts and sparse tensors
            continue
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _take_out_constant_outputs(graph: onnx.GraphProto) -> set[str]:
    """Outputs that are constants: W and b."""
    constants = {tensor.name for tensor in graph.initializer}
    given = {value.name for value in graph.output if value.name in constants}
    computed = [value for value in graph.output if value.name not in given]
    del graph.output[:]
    graph.output.extend(computed)
    return given


def _separate_constants(graph: onnx.GraphProto, kept: Collection[str], given: set[str]) -> dict[str, str]:
    """Give nodes that are lowered a copy of each constant that must also stay as it is.

    Returns:
        The copies' names by those of the constants among them that are outputs.
    """
    stay = given | {name for node in graph.node if node.name in kept for name in tensors_read(node)}
    copies: dict[str, str] = {}
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if node.name in kept or name not in stay or name not in constants:
                continue
            if name not in copies:
                copies[name] = unused_name(graph, f"{name}_half")
                graph.initializer.append(constants[name])
                graph.initializer[-1].name = copies[name]
            node.input[position] = copies[name]
    return {name: copy for name, copy in copies.items() if name in given}


def _mend_casts(graph: onnx.GraphProto, own: set[str], half_tensors: set[str]) -> None:
    """Put the Casts in order that the converter wrote.

    Args:
        graph: is changed.
        own: names of the nodes that were there before.
        half_tensors: names of the float16 tensors that nodes make.
    """
    _drop_repeated_nodes(graph)
    _give_subgraphs_float32(graph, half_tensors)
    outputs = {value.name for value in graph.output}
    makers = {name: node for node in graph.node for name in node.output}
    replaced: dict[str, str] = {}
    cast_to: dict[tuple[str, int], str] = {}
    # Those to outputs first, so that others are replaced by them.
    casts = [node for node in graph.node if node.op_type == "Cast" and node.name not in own]
    for node in sorted(casts, key=lambda node: node.output[0] not in outputs):
        source, made, dtype = str(node.input[0]), str(node.output[0]), node.attribute[0].i
        before = makers.get(source)
        if dtype == TensorProto.FLOAT and before is not None and before.op_type == "Cast" and before.name not in own:
            # Both ends are float32: nobody is to see what was rounded in between.
            source = str(before.input[0])
            if made not in outputs:
                replaced[made] = source
            elif source in makers and source not in outputs and source not in replaced:
                replaced[source] = made
            else:  # an output that is the input, or another output, as it is
                node.CopyFrom(helper.make_node("Identity", [source], [made]))
                continue
        elif (source, dtype) in cast_to and made not in outputs:
            replaced[made] = cast_to[source, dtype]
        else:
            cast_to.setdefault((source, dtype), made)
            continue
        graph.node.remove(node)
    _rename(graph, replaced)


def _rename(graph: onnx.GraphProto, replaced: Mapping[str, str]) -> None:
    def new(name: str) -> str:
        while name in replaced:
            name = replaced[name]
        return name

    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new(name) for name in names]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename(subgraph, replaced)
                for value in subgraph.output:
                    value.name = new(value.name)


def _drop_repeated_nodes(graph: onnx.GraphProto) -> None:
    """Drop Casts that were written once for each of their readers."""
    made: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            graph.node.remove(node)
        made.update(node.output)


def _give_subgraphs_float32(graph: onnx.GraphProto, half_tensors: set[str]) -> None:
    """Let subgraphs, which stay in float32, read float32: the converter casts only what a node lists as its inputs."""
    for node in list(graph.node):
        subgraphs = [subgraph for attribute in node.attribute for subgraph in (attribute.g, *attribute.graphs)]
        listed = set(node.input)
        captured = {name for name in tensors_read(node) if name in half_tensors and name not in listed}
        for name in sorted(captured):
            float32 = unused_name(graph, f"{name}_float32")
            for subgraph in subgraphs:
                rename_tensor(subgraph, name, float32)
            graph.node.append(helper.make_node("Cast", [name], [float32], to=TensorProto.FLOAT))


def _make_bfloat16(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16


def _round_constants(graph: onnx.GraphProto, exact: Mapping[str, Array], half: int) -> None:
    """Constants in half precision: their float32 values rounded to the nearest."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and tensor.name in exact:
            tensor.CopyFrom(numpy_helper.from_array(rounded_to(exact[tensor.name], half), tensor.name))


def rounded_to(values: Array, half: int) -> Array:
    """Values in float16 or bfloat16, the nearest; beyond float16's range infinity."""
    with np.errstate(over="ignore"):
        lowered: Array = values.astype(helper.tensor_dtype_to_np_dtype(half))
    return lowered


def _cast_instead_of_copy(graph: onnx.GraphProto, name: str, copy: str, exact: Array, half: int) -> None:
    """Store a constant once, in float32 with values that half precision has exactly, and cast it for its readers."""
    values = rounded_to(exact, half).astype(np.float32)
    kept = [tensor for tensor in graph.initializer if tensor.name not in (name, copy)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.append(numpy_helper.from_array(values, name))
    graph.node.insert(0, helper.make_node("Cast", [name], [copy], to=half, name=copy))
