"""What the benchmarks' tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import a_contract

from gapcam import contract as names
from gapcam.contract import contract_to_json

CLASSES, CHANNELS, SIZE, MAP_SIZE = 5, 8, 32, 8


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """An ONNX model that keeps the contract: one convolution with stride 4, ReLU, GAP, affine; random weights."""
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.standard_normal((CHANNELS, 3, 4, 4)),
        names.CAM_WEIGHTS: random.standard_normal((CLASSES, CHANNELS)),
        names.CAM_BIAS: random.standard_normal(CLASSES),
    }
    outputs = {
        names.LOGITS: ["N", CLASSES],
        names.FEATURES: ["N", CHANNELS, MAP_SIZE, MAP_SIZE],
        names.CAM_WEIGHTS: [CLASSES, CHANNELS],
        names.CAM_BIAS: [CLASSES],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [names.IMAGE, "kernel"], ["convolved"], strides=[4, 4]),
            helper.make_node("Relu", ["convolved"], [names.FEATURES]),
            helper.make_node("GlobalAveragePool", [names.FEATURES], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["vector"]),
            helper.make_node("Gemm", ["vector", names.CAM_WEIGHTS, names.CAM_BIAS], [names.LOGITS], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info(names.IMAGE, TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    contract = a_contract((SIZE, SIZE), labels=())
    helper.set_model_props(model, {names.METADATA_KEY: contract_to_json(contract)})
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return path
