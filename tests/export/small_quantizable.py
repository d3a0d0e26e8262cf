"""Small networks of all that quantising meets, as ONNX models with the contract's outputs, and what they compute.

image [N,3,32,32] -> Conv 4x4, stride 2 -> (a block of one kind) -> mean over space -> W, b -> logits [N,5]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import gapcam_export
from gapcam.contract import Contract, contract_from_metadata

SIDE, CHANNELS, CLASSES = 32, 8, 5


class Writing:
    """A graph that grows; every weight is random, and the same each time."""

    def __init__(self, opset: int = 17) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(3)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"{operator.lower()}_{name}", **attributes))
        return name

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant((self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))

    def conv(self, x: str, into: int = CHANNELS, out: int = CHANNELS, side: int = 3, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        bias = self.constant((self._random.standard_normal(out) / 4).astype(np.float32))
        attributes.setdefault("pads", [side // 2] * 4)
        return self.node("Conv", x, self.weight(out, into // group, side, side), bias, **attributes)


def plain(writing: Writing, x: str) -> str:
    return writing.node("Relu", writing.conv(x))


def relu6(writing: Writing, x: str) -> str:
    """An inverted residual: expanded, depthwise, projected, added."""
    low, high = writing.constant(np.float32(0)), writing.constant(np.float32(6))
    wide = writing.node("Clip", writing.conv(x, out=16, side=1), low, high)
    wide = writing.node("Clip", writing.conv(wide, 16, 16, group=16), low, high)
    return writing.node("Add", writing.conv(wide, 16, side=1), x)


def residual(writing: Writing, x: str) -> str:
    inner = writing.conv(writing.node("Relu", writing.conv(x)))
    return writing.node("Relu", writing.node("Add", inner, writing.conv(x, side=1)))


def silu(writing: Writing, x: str) -> str:
    """With a squeeze-and-excite gate."""
    inner = writing.conv(x)
    x = writing.node("Mul", inner, writing.node("Sigmoid", inner))
    gate = writing.node("Sigmoid", writing.conv(writing.node("GlobalAveragePool", x), side=1))
    return writing.node("Relu", writing.conv(writing.node("Mul", x, gate)))


def hard_swish(writing: Writing, x: str) -> str:
    return writing.node("HardSwish", writing.conv(writing.node("HardSwish", writing.conv(x))))


def concat(writing: Writing, x: str) -> str:
    """DenseNet's: with a BatchNorm that nothing can fold, since it stands before its convolution."""
    grown = writing.conv(writing.node("Relu", _norm(writing, x)))
    x = writing.node("Concat", x, grown, axis=1)
    return writing.node("Relu", writing.conv(writing.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 16))


def batch_norm(writing: Writing, x: str) -> str:
    """One that can be folded, with statistics far from 0 and 1; the convolution has no bias."""
    x = writing.node("Conv", x, writing.weight(CHANNELS, CHANNELS, 3, 3), pads=[1, 1, 1, 1])
    return writing.node("Relu", _norm(writing, x))


def transposed(writing: Writing, x: str) -> str:
    """A transposed convolution with a BatchNorm, and weights that are computed from constants."""
    x = writing.node("ConvTranspose", x, writing.weight(CHANNELS, CHANNELS, 2, 2), strides=[2, 2])
    x = writing.node("Relu", _norm(writing, x))
    turned = writing.node("Transpose", writing.weight(3, 3, CHANNELS, CHANNELS), perm=[3, 2, 0, 1])
    return writing.node("Relu", writing.node("Conv", x, turned, pads=[1, 1, 1, 1]))


def grouped(writing: Writing, x: str) -> str:
    """A transposed convolution whose weights have fewer scales than its bias has channels."""
    bias = writing.constant(np.linspace(-1, 1, CHANNELS, dtype=np.float32))
    weights = writing.weight(CHANNELS, CHANNELS // 2, 2, 2)
    x = writing.node("ConvTranspose", writing.conv(x), weights, bias, strides=[2, 2], group=2)
    return writing.node("Relu", writing.conv(writing.node("Relu", x)))


def dead(writing: Writing, x: str) -> str:
    """A channel whose weights are all zero, and an activation that is never above zero."""
    values = np.random.default_rng(4).standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 4
    values[2] = 0
    x = writing.node("Relu", writing.node("Conv", x, writing.constant(values), pads=[1, 1, 1, 1]))
    below = writing.node(
        "Sub", writing.node("Mul", x, writing.constant(np.float32(-1))), writing.constant(np.float32(9))
    )
    return writing.node("Relu", writing.node("Add", writing.conv(x), writing.conv(writing.node("Relu", below))))


def tokens(writing: Writing, x: str) -> str:
    """A transformer's block: positions, attention, then two layers with GELU; ends in a norm of each token."""
    x = writing.node("Reshape", x, writing.constant(np.int64([0, CHANNELS, -1])))
    x = writing.node("Transpose", x, perm=[0, 2, 1])
    x = writing.node("Add", x, writing.constant(_positions()))
    y = _layer_norm(writing, x)
    query, key, value = (writing.node("MatMul", y, writing.weight(CHANNELS, CHANNELS)) for _ in range(3))
    scores = writing.node("MatMul", query, writing.node("Transpose", key, perm=[0, 2, 1]))
    attended = writing.node("MatMul", writing.node("Softmax", scores, axis=-1), value)
    x = writing.node("Add", x, writing.node("MatMul", attended, writing.weight(CHANNELS, CHANNELS)))
    inner = writing.node("MatMul", _layer_norm(writing, x), writing.weight(CHANNELS, 16))
    half = writing.node("Mul", inner, writing.constant(np.float32(np.sqrt(0.5))))
    gelu = writing.node("Mul", inner, writing.node("Add", writing.node("Erf", half), writing.constant(np.float32(1))))
    return _layer_norm(writing, writing.node("Add", x, writing.node("MatMul", gelu, writing.weight(16, CHANNELS))))


def channels_last(writing: Writing, x: str) -> str:
    """f is [N,h,w,C], and follows from a layer without weights' norm between."""
    x = writing.node("Transpose", writing.node("Relu", writing.conv(x)), perm=[0, 2, 3, 1])
    return writing.node("Relu", writing.node("MatMul", x, writing.weight(CHANNELS, CHANNELS)))


def _norm(writing: Writing, x: str) -> str:
    random = np.random.default_rng(5)
    values = (random.uniform(0.5, 2, CHANNELS), random.normal(0, 1, CHANNELS), random.normal(0, 1, CHANNELS))
    variance = random.uniform(0.2, 3, CHANNELS)
    names = [writing.constant(value.astype(np.float32)) for value in (*values, variance)]
    return writing.node("BatchNormalization", x, *names, epsilon=1e-3)


def _positions() -> NDArray[np.float32]:
    """[1, tokens, CHANNELS]; without them tokens of dark patches have next to no variance for a norm to divide by."""
    return np.random.default_rng(6).standard_normal((1, (SIDE // 2) ** 2, CHANNELS)).astype(np.float32)


def _layer_norm(writing: Writing, x: str) -> str:
    gain, shift = (writing.constant(np.linspace(a, b, CHANNELS, dtype=np.float32)) for a, b in ((0.5, 2), (-0.3, 0.3)))
    return writing.node("LayerNormalization", x, gain, shift, axis=-1)


Block = Callable[[Writing, str], str]
BLOCKS: Mapping[str, Block] = {
    block.__name__: block
    for block in (
        *(
            plain,
            relu6,
            residual,
            silu,
            hard_swish,
            concat,
            batch_norm,
            transposed,
            grouped,
            dead,
            tokens,
            channels_last,
        ),
    )
}


def write_network(path: Path, block: Block, *, opset: int = 17, head: str = "affine", batch: int | str = "N") -> Path:
    """Write a network without the contract.

    Args:
        path: of the file.
        block: what stands between the first convolution and the pooling.
        opset: of the file.
        head: "affine", "layernorm", "nonlinear" or "class-maps".
        batch: 1 or "N".
    """
    writing = Writing(opset)
    x = writing.node("Relu", writing.conv("image", 3, side=4, strides=[2, 2], pads=[1, 1, 1, 1]))
    x = block(writing, x)
    if head == "class-maps":
        x = writing.node("Relu", writing.conv(x, out=CLASSES, side=1))
    if block in (tokens, channels_last):
        axes = [1] if block is tokens else [1, 2]
        x = writing.node("ReduceMean", x, axes=axes, keepdims=0)
    else:
        x = writing.node("Flatten", writing.node("GlobalAveragePool", x))
    if head == "layernorm":
        x = _layer_norm(writing, x)
    if head == "nonlinear":
        x = writing.node("Gemm", x, writing.weight(7, CHANNELS), transB=1)
        x = writing.node("Mul", x, writing.node("Sigmoid", x))
        x = writing.node("Gemm", x, writing.weight(CLASSES, 7), transB=1)
    elif head != "class-maps":
        bias = writing.constant(np.linspace(-1, 1, CLASSES, dtype=np.float32))
        x = writing.node("Gemm", x, writing.weight(CLASSES, CHANNELS), bias, transB=1)
    writing.nodes[-1].output[0] = "scores"
    graph = helper.make_graph(
        writing.nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        initializer=writing.constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def exported(
    folder: Path,
    block: Block,
    *,
    opset: int = 17,
    head: str = "affine",
    batch: int | str = "N",
    **options: Any,
) -> tuple[onnx.ModelProto, Contract]:
    """A network with the contract's outputs."""
    source = write_network(folder / "source.onnx", block, opset=opset, head=head, batch=batch)
    gapcam_export.export(str(source), folder / "exported.onnx", **options)
    model = onnx.load(folder / "exported.onnx")
    return model, contract_from_metadata({entry.key: entry.value for entry in model.metadata_props}, "exported.onnx")
