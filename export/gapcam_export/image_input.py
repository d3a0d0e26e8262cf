"""Finds a graph's one image input, and brings it to the layout of the contract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gapcam_export.errors import SourceError
from gapcam_export.graph import graph_inputs, rename_tensor, tensors_read, unused_name
from gapcam_export.report import summarize
from gapcam_export.section import Array

_DTYPES: dict[int, type[np.generic] | None] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: None,
    TensorProto.UINT8: np.uint8,
}
_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
# A factor at most so large, or a shift at least so large, is for pixel values 0..255 rather than for 0..1.
_SMALL_FACTOR, _LARGE_SHIFT = 1 / 32, 8.0


@dataclass(frozen=True)
class ImageInput:
    """How a model's file wants its image.

    Attributes:
        name: of the input.
        is_uint8: pixels rather than floats.
        channels_last: [N,H,W,3] rather than [N,3,H,W].
        batch: the number that N is fixed at, or 0.
        dtype: of the floats or pixels.
    """

    name: str
    is_uint8: bool
    channels_last: bool
    batch: int
    dtype: int

    def feed(self, image: Array) -> Array:
        """A batch for the model of an image [3,H,W] float32, or [H,W,3] uint8 where the model takes uint8."""
        if self.is_uint8 != self.channels_last:
            image = image.transpose((2, 0, 1) if self.is_uint8 else (1, 2, 0))
        batch: Array = np.repeat(image[None], self.batch or 1, axis=0).astype(_DTYPES[self.dtype])
        return batch


def find_image_input(model: onnx.ModelProto, name: str, notes: list[str]) -> ImageInput:
    """The one input of a model, which must be an image.

    Args:
        model: as its file has it; where an axis may be the channels and has no number, it gets one.
        name: how messages call the model.
        notes: gets what was assumed.

    Raises:
        SourceError: there are several, or it is no image of three channels.
    """
    inputs = graph_inputs(model.graph)
    shown = ", ".join(str(summarize(value)) for value in inputs)
    if len(inputs) != 1:
        raise SourceError(
            f"{name} has {len(inputs)} inputs ({shown or 'none'}); expected one, the image. "
            "Make constants (initializers) of the others, or export it again with the image alone."
        )
    tensor = inputs[0].type.tensor_type
    dims = tensor.shape.dim
    expected = f"{name} takes {shown}; expected one image"
    if tensor.elem_type not in _DTYPES:
        raise SourceError(f"{expected} [N,3,H,W] or [N,H,W,3] of float32, float16 or uint8. Cast it in the graph.")
    if len(dims) != 4:
        raise SourceError(f"{expected} [N,3,H,W] of float32. Is it an image classifier?")
    sides = [dim.dim_value for dim in dims]
    if 3 not in (sides[1], sides[3]):
        if 1 in (sides[1], sides[3]):
            raise SourceError(
                f"{expected} of three channels, and this is grey-scale. Put a 1x1 convolution from three channels to "
                "one in front of it, and export that."
            )
        if sides[1] or sides[3] in (2, 4):
            raise SourceError(f"{expected} of three channels, [N,3,H,W] or [N,H,W,3]. Export it so.")
        notes.append(f"no axis of the input {inputs[0].name!r} is said to have 3 channels; the second was taken for it")
        dims[1].dim_value = 3
    channels_last = dims[1].dim_value != 3
    return ImageInput(
        name=inputs[0].name,
        is_uint8=tensor.elem_type == TensorProto.UINT8,
        channels_last=channels_last,
        batch=sides[0],
        dtype=tensor.elem_type,
    )


def to_contract_layout(graph: onnx.GraphProto, found: ImageInput) -> None:
    """Let a graph take [N,3,H,W] floats, or [N,H,W,3] uint8, in place; it may be so already.

    Where the graph itself begins with a Transpose to that layout, it is taken out; else one from it is put in.
    """
    if found.channels_last == found.is_uint8:
        return
    inner = unused_name(graph, f"{found.name}_{'nhwc' if found.channels_last else 'nchw'}")
    rename_tensor(graph, found.name, inner)
    fed = next(value for value in graph.input if value.name == inner)
    fed.name = found.name
    order = _TO_FIRST if found.channels_last else _TO_LAST
    dims = [fed.type.tensor_type.shape.dim[axis] for axis in order]
    shape = onnx.TensorShapeProto(dim=dims)
    fed.type.tensor_type.shape.CopyFrom(shape)
    outputs = {value.name for value in graph.output}
    for node in [node for node in graph.node if list(node.input) == [inner] and _is_transpose(node, order)]:
        if node.output[0] not in outputs:
            graph.node.remove(node)
            _read_instead(graph, str(node.output[0]), found.name)
    if any(inner in tensors_read(node) for node in graph.node):
        back = _TO_LAST if found.channels_last else _TO_FIRST
        graph.node.insert(0, helper.make_node("Transpose", [found.name], [inner], perm=back))


def scales_pixels(graph: onnx.GraphProto, name: str) -> str:
    """What shows that a graph takes pixel values 0..255, or "": it begins by bringing them to a smaller range itself.

    Args:
        graph: of a classifier.
        name: of its input.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants.update({node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"})
    while True:
        readers = [node for node in graph.node if name in tensors_read(node) and node.op_type != "Shape"]
        if len(readers) != 1:
            return ""
        (node,) = readers
        if node.op_type in ("Transpose", "Cast", "Identity"):
            name = str(node.output[0])
            continue
        others = [constants[other] for other in node.input if other in constants]
        if len(node.input) != 2 or len(others) != 1:
            return ""
        values = np.abs(numpy_helper.to_array(others[0]).astype(np.float64))
        is_so = {
            "Mul": bool(values.size and values.max() <= _SMALL_FACTOR),
            "Div": bool(values.size and values.min() >= 1 / _SMALL_FACTOR and node.input[0] == name),
            "Sub": bool(values.size and values.min() >= _LARGE_SHIFT),
            "Add": bool(values.size and values.min() >= _LARGE_SHIFT),
        }.get(node.op_type, False)
        return f"{node.op_type} by {', '.join(f'{value:.4g}' for value in values.reshape(-1)[:3])}" if is_so else ""


def _is_transpose(node: onnx.NodeProto, order: list[int]) -> bool:
    return node.op_type == "Transpose" and [list(a.ints) for a in node.attribute if a.name == "perm"] == [order]


def _read_instead(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let whatever reads one tensor read another."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _read_instead(subgraph, old, new)
