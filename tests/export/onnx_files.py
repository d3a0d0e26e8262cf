"""Small classifiers as ONNX files of every layout, type, opset and ending, and NumPy's answer to what each computes.

image -> Conv 4x4, stride 4 -> Relu -> f [N,6,h,w] -> mean over space -> W, b -> logits [N,4]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import gapcam
from gapcam.contract import Preprocessing

CHANNELS, CLASSES, PATCH = 6, 4, 4
SIZE = (32, 48)
NAMES = ("ant", "bee", "cat", "dog")
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}

_RANDOM = np.random.default_rng(11)
# Values that float16 and bfloat16 hold exactly, so that every type has the same network.
FILTERS = (_RANDOM.integers(-8, 9, (CHANNELS, 3, PATCH, PATCH)) / 32).astype(np.float32)
WEIGHTS = (_RANDOM.integers(-16, 17, (CLASSES, CHANNELS)) / 16).astype(np.float32)
BIAS = (_RANDOM.integers(-16, 17, CLASSES) / 16).astype(np.float32)


def newest_opset() -> int:
    """The newest opset that the installed ONNX Runtime loads, found by trying."""
    opsets = [opset for opset in range(7, onnx.defs.onnx_opset_version() + 1) if _loads(opset)]
    return max(opsets)


def _loads(opset: int) -> bool:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options)
    except ort.capi.onnxruntime_pybind11_state.Fail:
        return False
    return True


@dataclass(frozen=True)
class Variant:
    """One way to write the network.

    Attributes:
        layout: of the input: "nchw", "nhwc", or "nhwc-scaled": pixel values 0..255, scaled in the graph before the
            Transpose, as tf2onnx 1.17 writes Keras' Rescaling(1 / 128, offset=-1).
        pixels: the input is uint8.
        opset: version of ONNX's operator set.
        stored: type of the weights.
        computed: type in which the network computes; weights stored in another are cast.
        fed: type of the input where it is no uint8.
        end: what follows the logits.
        shape: "static" (batch 1), "batch" (symbolic batch), "sizes" (all symbolic), or "asked" (likewise, and the graph
            asks for the shape to flatten).
    """

    layout: str = "nchw"
    pixels: bool = False
    opset: int = 17
    stored: str = "float32"
    computed: str = "float32"
    fed: str = "float32"
    end: str = "logits"
    shape: str = "batch"

    def __str__(self) -> str:
        changed = [str(value) for name, value in vars(self).items() if value != getattr(Variant, name)]
        return "-".join(changed) or "plain"


class _Writing:
    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        self._count += 1
        names = [f"t{self._count}", f"t{self._count}_second"][:outputs]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]

    def constant(self, value: Any, dtype: str = "") -> str:
        self._count += 1
        array = np.asarray(value)
        if dtype:
            array = array.astype(helper.tensor_dtype_to_np_dtype(TYPES[dtype]))
        self.constants.append(numpy_helper.from_array(array, f"c{self._count}"))
        return f"c{self._count}"

    def weight(self, value: NDArray[np.float32]) -> str:
        stored, computed = self.variant.stored, self.variant.computed
        name = self.constant(value, stored)
        return name if stored == computed else self.node("Cast", name, to=TYPES[computed])

    def output(self, name: str, inner: str, dtype: int) -> None:
        self.nodes.append(helper.make_node("Identity", [inner], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, None))


def write(path: Path, variant: Variant) -> Path:
    """Write a variant's file."""
    writing = _Writing(variant)
    x = "data"
    computed = TYPES[variant.computed]
    fed = TensorProto.UINT8 if variant.pixels else TYPES[variant.fed]
    if fed != computed:
        x = writing.node("Cast", x, to=computed)
    if variant.layout == "nhwc-scaled":
        x = writing.node("Mul", x, writing.constant(np.float32(1 / 128), variant.computed))
        x = writing.node("Add", x, writing.constant(np.float32(-1), variant.computed))
    if variant.layout != "nchw":
        x = writing.node("Transpose", x, perm=[0, 3, 1, 2])
    x = writing.node("Conv", x, writing.weight(FILTERS), strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH])
    x = writing.node("Relu", x)
    x = writing.node("GlobalAveragePool", x)
    if variant.shape == "asked":
        batch = writing.node("Gather", writing.node("Shape", x), writing.constant(np.int64([0])), axis=0)
        shape = writing.node("Concat", batch, writing.constant(np.int64([CHANNELS])), axis=0)
        x = writing.node("Reshape", x, shape)
    else:
        x = writing.node("Flatten", x)
    if variant.end.startswith("sklearn"):
        _sklearn(writing, x)
    else:
        x = writing.node("Gemm", x, writing.weight(WEIGHTS), writing.weight(BIAS), transB=1)
        _end(writing, x, computed)
    sides: dict[str, list[int | str]] = {"static": [1, *SIZE], "batch": ["n", *SIZE]}
    batch_size, height, width = sides.get(variant.shape, ["n", "h", "w"])
    dims = [batch_size, 3, height, width] if variant.layout == "nchw" else [batch_size, height, width, 3]
    graph = helper.make_graph(
        writing.nodes,
        "network",
        [helper.make_tensor_value_info("data", fed, dims)],
        writing.outputs,
        writing.constants,
    )
    domains = {node.domain for node in writing.nodes} - {""}
    opsets = [helper.make_opsetid("", variant.opset), *(helper.make_opsetid(domain, 2) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _end(writing: _Writing, x: str, computed: int) -> None:
    end, axis = writing.variant.end, {"axis": 1}
    if end in ("logits", "all"):
        writing.output("scores", x, computed)
    if end in ("Softmax", "LogSoftmax", "Sigmoid"):
        writing.output("out", writing.node(end, x, **({} if end == "Sigmoid" else axis)), computed)
    if end == "Softmax-Cast":
        soft = writing.node("Softmax", writing.node("Cast", x, to=TensorProto.FLOAT), **axis)
        writing.output("out", soft, TensorProto.FLOAT)
    if end == "ArgMax":
        writing.output("best", writing.node("ArgMax", x, **axis, keepdims=0), TensorProto.INT64)
    if end == "TopK":
        if writing.variant.opset < 10:
            values = writing.node("TopK", x, outputs=2, axis=1, k=2)
        else:
            values = writing.node("TopK", x, writing.constant(np.int64([2])), outputs=2, axis=1)
        writing.output("best_scores", values, computed)
        writing.output("best", f"{values}_second", TensorProto.INT64)
    if end in ("all", "Softmax+ArgMax", "names", "names-encoder", "ZipMap"):
        soft = writing.node("Softmax", x, **axis)
        best = writing.node("ArgMax", soft, **axis, keepdims=0)
        if end in ("all", "Softmax+ArgMax"):
            writing.output("best", best, TensorProto.INT64)
        elif end == "names-encoder":
            label = writing.node(
                "LabelEncoder",
                best,
                domain="ai.onnx.ml",
                keys_int64s=[3, 1, 0, 2],
                values_strings=[NAMES[i] for i in (3, 1, 0, 2)],
            )
            writing.output("label", label, TensorProto.STRING)
        else:
            names = writing.constant(np.array(NAMES, object))
            writing.output(
                "label", writing.node("ArrayFeatureExtractor", names, best, domain="ai.onnx.ml"), TensorProto.STRING
            )
        if end == "ZipMap":
            writing.nodes.append(
                helper.make_node("ZipMap", [soft], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=NAMES)
            )
            key_to_float = helper.make_map_type_proto(
                TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
            )
            writing.outputs.append(
                helper.make_value_info("probabilities", helper.make_sequence_type_proto(key_to_float))
            )
        else:
            writing.output("probabilities", soft, computed)


def _sklearn(writing: _Writing, x: str) -> None:
    """LogisticRegression as skl2onnx 1.20 writes it: with its Normalizer and ZipMap, or with raw scores."""
    raw = writing.variant.end == "sklearn-raw"
    writing.nodes.append(
        helper.make_node(
            "LinearClassifier",
            [x],
            ["label", "raw_scores"],
            domain="ai.onnx.ml",
            classlabels_strings=NAMES,
            coefficients=WEIGHTS.reshape(-1).tolist(),
            intercepts=BIAS.tolist(),
            multi_class=1,
            post_transform="NONE" if raw else "SOFTMAX",
        )
    )
    writing.output("output_label", "label", TensorProto.STRING)
    scores = "raw_scores"
    if not raw:
        scores = writing.node("Normalizer", scores, domain="ai.onnx.ml", norm="L1")
    writing.output("probabilities", scores, TensorProto.FLOAT)


def oracle(frame: NDArray[np.uint8], preprocessing: Preprocessing, variant: Variant) -> NDArray[np.float64]:
    """Every class's map [4,h,w] in float64, from the filters and weights alone."""
    image = gapcam.preprocess(frame, preprocessing).astype(np.float64)
    if variant.pixels:
        image = image.transpose(2, 0, 1)
    if variant.layout == "nhwc-scaled":
        image = image / 128 - 1
    channels, height, width = image.shape
    patches = image.reshape(channels, height // PATCH, PATCH, width // PATCH, PATCH)
    features = np.maximum(np.einsum("kcij,cyixj->kyx", FILTERS.astype(np.float64), patches), 0)
    return np.einsum("ck,kyx->cyx", WEIGHTS.astype(np.float64), features)
