"""Small models that keep the contract, as real ONNX files and as fake backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import gapcam
from gapcam.backends import TensorInfo
from gapcam.backends.fake import FakeBackend
from gapcam.contract import (
    METADATA_KEY,
    Contract,
    Head,
    HeadKind,
    Preprocessing,
    Scores,
    Source,
    Verification,
    contract_to_json,
)

# The hand-computed model: features are the input's red and blue channels, two classes.
WEIGHTS = np.array([[3.0, -1.0], [1.0, 2.0]], np.float32)
BIAS = np.array([0.5, -0.25], np.float32)

ENGINES = ("onnxruntime", "fake")


def a_contract(
    size: tuple[int, int] = (2, 2),
    labels: tuple[str, ...] = ("red", "blue"),
    kind: HeadKind = HeadKind.AFFINE,
    *,
    exact: bool = True,
    scores: Scores = "softmax",
    **preprocessing: object,
) -> Contract:
    """A contract whose preprocessing keeps pixels as pixel / 255, so that numbers can be followed by hand."""
    settings = {"size": size, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), **preprocessing}
    return Contract(
        contract=1,
        producer="gapcam tests",
        head=Head(kind=kind, layout="nchw", tapped="features", exact=exact, scores=scores),
        preprocessing=Preprocessing(**settings),  # type: ignore[arg-type]
        labels=labels,
        source=Source(spec="tests:red_and_blue", sha256="0" * 64),
        precision="fp32",
        verification=Verification(
            images=1,
            identity_error=0.0,
            identity_tolerance=1e-4,
            source_max_abs=0.0,
            source_error=0.0,
            source_tolerance=1e-4,
            source_cosine=1.0,
            source_top1=1.0,
            reference="onnxruntime",
        ),
    )


def red_and_blue(
    path: Path,
    *,
    contract: Contract | None = None,
    metadata: dict[str, str] | None = None,
    weights: np.ndarray = WEIGHTS,
    bias: np.ndarray = BIAS,
    logits_weights: np.ndarray | None = None,
    batch: str | int = "N",
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> Path:
    """Write an ONNX model: features = [red, blue] of the input, logits = GAP(features) W^T + b.

    `logits_weights` other than `weights` breaks the identity; `change` may break anything else.
    """
    contract = contract or a_contract()
    height, width = contract.preprocessing.size
    class_maps = contract.head.kind is HeadKind.CLASS_MAPS
    used = weights if logits_weights is None else logits_weights
    embedded = contract.preprocessing.embedded
    nodes, source = [], "image"
    if embedded:
        nodes += [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        ]
        source = "nchw"
    nodes += [
        helper.make_node("Gather", [source, "red_and_blue"], ["features"], axis=1),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits" if class_maps else "vector"]),
    ]
    constants = {
        "red_and_blue": np.array([0, 2] if contract.preprocessing.color == "rgb" else [2, 0], np.int64),
        "scale": np.array(1 / 255, np.float32),
    }
    outputs = {"logits": [batch, len(used)], "features": [batch, 2, height, width]}
    if not class_maps:
        nodes.append(helper.make_node("Gemm", ["vector", "used_weights", "cam_bias"], ["logits"], transB=1))
        constants |= {"cam_weights": weights, "cam_bias": bias, "used_weights": used}
        outputs |= {"cam_weights": list(weights.shape), "cam_bias": list(bias.shape)}
    if not embedded:
        del constants["scale"]
    image_shape = [batch, height, width, 3] if embedded else [batch, 3, height, width]
    graph = helper.make_graph(
        nodes,
        "red_and_blue",
        [helper.make_tensor_value_info("image", TensorProto.UINT8 if embedded else TensorProto.FLOAT, image_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: contract_to_json(contract)} if metadata is None else metadata)
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def in_bfloat16(model: onnx.ModelProto) -> None:
    """Compute something in bfloat16, which ONNX Runtime's CPU provider does not."""
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.BFLOAT16),
        helper.make_node("Abs", ["half"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["float"], to=TensorProto.FLOAT),
    ]
    rest = list(model.graph.node)
    rest[0].input[0] = "float"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def fake_red_and_blue(contract: Contract | None = None) -> FakeBackend:
    """The same model without an engine."""
    contract = contract or a_contract()

    def compute(image: np.ndarray) -> dict[str, np.ndarray]:
        features = image[:, [0, 2]]
        logits = features.mean(axis=(2, 3)) @ WEIGHTS.T + BIAS
        return {"logits": logits, "features": features, "cam_weights": WEIGHTS, "cam_bias": BIAS}

    info = TensorInfo("image", (None, 3, *contract.preprocessing.size), "float32")
    return FakeBackend(compute, info, {METADATA_KEY: contract_to_json(contract)})


def open_on(
    engine: str, fake: Callable[[], FakeBackend], write: Callable[[Path], Path], folder: Path
) -> gapcam.Session:
    """A session of one model on one of `ENGINES`: as a file that `write` writes to the folder, or as a fake."""
    if engine == "fake":
        return gapcam.Session(fake())
    return gapcam.load(write(folder / "model.onnx"), threads=1)
