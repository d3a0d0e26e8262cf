"""Small classifiers with what half precision cannot hold, as ONNX files.

image [N,3,32,32] -> Conv 4x4, stride 4 -> (something) -> mean over space -> W, b -> logits [N,4]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import gapcam_export
from gapcam.contract import Contract, contract_from_metadata
from gapcam_export.precision.head_nodes import name_nodes

SIDE, CHANNELS, CLASSES = 32, 8, 4
_RANDOM = np.random.default_rng(5)
# Values that half precision holds exactly, and sums that float32 does: a flat image stays flat.
FILTERS = (_RANDOM.integers(-8, 9, (CHANNELS, 3, 4, 4)) / 32).astype(np.float32)
SHIFT = (_RANDOM.integers(-8, 9, CHANNELS) / 8).astype(np.float32)
WEIGHTS = (_RANDOM.integers(-16, 17, (CLASSES, CHANNELS)) / 16).astype(np.float32)


class Writing:
    """A graph that grows."""

    def __init__(self, opset: int = 18) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"t{len(self.nodes)}"], **attributes))
        return f"t{len(self.nodes) - 1}"

    def constant(self, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
        return f"c{len(self.constants) - 1}"

    def mean(self, x: str) -> str:
        return self.node("ReduceMean", x, self.constant(np.int64([2, 3])), keepdims=1)


Block = Callable[[Writing, str], str]


def nothing(writing: Writing, x: str) -> str:
    del writing
    return x


def normed_over_space(epsilon: float) -> Block:
    """(x - mean) / sqrt(mean((x - mean)^2) + epsilon), in single steps."""

    def block(writing: Writing, x: str) -> str:
        centred = writing.node("Sub", x, writing.mean(x))
        spread = writing.mean(writing.node("Mul", centred, centred))
        sigma = writing.node("Sqrt", writing.node("Add", spread, writing.constant(np.float32(epsilon))))
        normed = writing.node("Div", centred, sigma)
        return writing.node("Add", normed, writing.constant(SHIFT[:, None, None]))

    return block


def normed_by_reciprocal(writing: Writing, x: str) -> str:
    """x * (gain * (mean(x^2) + epsilon) ** -0.5), with x ** 2 as a Pow."""
    spread = writing.mean(writing.node("Pow", x, writing.constant(np.float32(2))))
    shifted = writing.node("Add", writing.constant(np.float32(1e-12)), spread)
    inverse = writing.node("Pow", shifted, writing.constant(np.float32(-0.5)))
    return writing.node("Mul", x, writing.node("Mul", inverse, writing.constant(np.float32(0.75))))


def normed_to_length(writing: Writing, x: str) -> str:
    """x / max(|x|, epsilon) over the channels."""
    length = writing.node("ReduceL2", x, writing.constant(np.int64([1])), keepdims=1)
    return writing.node("Div", x, writing.node("Max", length, writing.constant(np.float32(1e-12))))


def instance_normed(writing: Writing, x: str) -> str:
    gain, shift = writing.constant(np.ones(CHANNELS, np.float32)), writing.constant(SHIFT)
    return writing.node("InstanceNormalization", x, gain, shift, epsilon=1e-5)


def batch_normed(writing: Writing, x: str) -> str:
    """With variances of 1e-8, which float16 has no digits of."""
    gain, shift = writing.constant(np.full(CHANNELS, 1e-4, np.float32)), writing.constant(SHIFT)
    mean, variance = writing.constant(SHIFT / 4), writing.constant(np.full(CHANNELS, 1e-8, np.float32))
    return writing.node("BatchNormalization", x, gain, shift, mean, variance, epsilon=1e-12)


def large(writing: Writing, x: str) -> str:
    """Values of 1e5, which a weight too large for float16 brings back."""
    larger = writing.node("Relu", writing.node("Mul", x, writing.constant(np.float32(40000))))
    mixed = writing.node("Conv", larger, writing.constant(np.eye(CHANNELS, dtype=np.float32)[:, :, None, None]))
    return writing.node("Div", mixed, writing.constant(np.float32(80000)))


def small(writing: Writing, x: str) -> str:
    """Values of 1e-9, which a division brings back."""
    smaller = writing.node("Relu", writing.node("Mul", x, writing.constant(np.float32(1e-9))))
    return writing.node("Div", smaller, writing.constant(np.float32(2e-9)))


def with_constant_nodes(writing: Writing, x: str) -> str:
    """Constants as nodes, one of which passes through a Cast, and one is read in float32 and in half precision."""
    shared = numpy_helper.from_array(SHIFT[:, None, None] + 2)
    gain = writing.node("Constant", value=shared)
    epsilon = writing.node("Cast", writing.node("Constant", value_float=1e-12), to=TensorProto.FLOAT)
    spread = writing.mean(writing.node("Mul", x, x))
    sigma = writing.node("Sqrt", writing.node("Add", spread, epsilon))
    inverse = writing.node("Mul", gain, writing.node("Reciprocal", sigma))
    return writing.node("Mul", writing.node("Mul", x, inverse), gain)


def _graph(name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], output: str) -> onnx.GraphProto:
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, inputs, [result])


def with_branches(writing: Writing, x: str) -> str:
    """An If whose branches read what is around them."""
    positive = writing.node("Relu", x)
    yes = _graph("yes", [helper.make_node("Add", [x, positive], ["sum"])], [], "sum")
    no = _graph("no", [helper.make_node("Neg", [x], ["minus"])], [], "minus")
    condition = writing.node(
        "Greater", writing.node("ReduceMax", positive, keepdims=0), writing.constant(np.float32(0))
    )
    chosen = writing.node("If", condition, then_branch=yes, else_branch=no)
    return writing.node("Sigmoid", chosen)


def with_loop(writing: Writing, x: str) -> str:
    """A Loop that halves what it carries and adds what is around it."""
    inputs = [
        helper.make_tensor_value_info("step", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("Add", ["carried", x], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["next"]),
    ]
    body = _graph("body", nodes, inputs, "next")
    body.output.insert(0, helper.make_tensor_value_info("go_on", TensorProto.BOOL, []))
    body.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    times, go = writing.constant(np.int64(3)), writing.constant(np.bool_(True))
    return writing.node("Tanh", writing.node("Loop", times, go, writing.node("Relu", x), body=body))


def resized(writing: Writing, x: str) -> str:
    """Scales stay float32 beside float16 data."""
    scales = writing.constant(np.float32([1, 1, 2, 2]))
    return writing.node("Resize", x, "", scales, mode="linear")


def with_runtimes_own(writing: Writing, x: str) -> str:
    """An operator of ONNX Runtime's own."""
    last = writing.node("Transpose", x, perm=[0, 2, 3, 1])
    gelu = writing.node("BiasGelu", last, writing.constant(SHIFT), domain="com.microsoft")
    return writing.node("Transpose", gelu, perm=[0, 3, 1, 2])


def exported(folder: Path, block: Block, opset: int = 18, **options: Any) -> tuple[onnx.ModelProto, Contract]:
    """The model with the contract's outputs, its nodes named, and its contract."""
    writing = Writing(opset)
    x = writing.node("Conv", "data", writing.constant(FILTERS), strides=[4, 4])
    x = writing.node("Relu", block(writing, x))
    x = writing.node("Flatten", writing.node("GlobalAveragePool", x))
    weights, bias = writing.constant(WEIGHTS), writing.constant(SHIFT[:CLASSES])
    writing.nodes.append(helper.make_node("Gemm", [x, weights, bias], ["scores"], transB=1))
    graph = helper.make_graph(
        writing.nodes,
        "network",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])],
        writing.constants,
    )
    domains = {node.domain: 1 for node in writing.nodes} | {"": opset}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "source.onnx")
    return exported_from(str(folder / "source.onnx"), folder, **options)


def exported_from(source: str, folder: Path, **options: Any) -> tuple[onnx.ModelProto, Contract]:
    """Likewise, of any source."""
    gapcam_export.export(source, folder / "float32.onnx", **options)
    model = onnx.load(folder / "float32.onnx")
    name_nodes(model)
    return model, contract_from_metadata({entry.key: entry.value for entry in model.metadata_props}, source)


def flat_frame(value: int = 128) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, 3), value, np.uint8)
