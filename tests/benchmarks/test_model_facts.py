"""The precision of a model is read from it, never from what was asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_headers import PLAN, TENSORS, a_header
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.contract import contract_to_json
from gapcam.engine_file import BuiltPrecision, write_engine
from gapcam_bench.model_facts import model_facts


def test_a_contract_says_it(tmp_path: Path) -> None:
    contract = replace(a_contract((6, 8)), precision="int8")
    file = red_and_blue(tmp_path / "model.onnx", contract=contract)
    found = model_facts(file)
    assert (found.name, found.precision, found.precision_source) == ("model.onnx", "int8", "contract")
    assert (found.input_size, found.head) == ((6, 8), "affine")
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("built", "precision", "source"),
    [
        (BuiltPrecision(asked="fp16", network={"fp16": 3}, engine={"fp16": 3, "fp32": 1}), "fp16", "3 layers in fp16"),
        (BuiltPrecision(asked="fp16", network={"fp16": 3}, engine={"fp32": 4}), "fp32", "4 layers in fp32"),
        (BuiltPrecision(asked="int8", network={"int8": 3}, not_read="one block"), "int8", "asked for (one block)"),
    ],
)
def test_an_engine_inspector_says_it_or_that_it_does_not(
    tmp_path: Path, built: BuiltPrecision, precision: str, source: str
) -> None:
    file = tmp_path / "model.engine"
    contract = contract_to_json(replace(a_contract((6, 8)), precision=built.asked))
    write_engine(file, a_header(precision=built, metadata={"gapcam": contract}), TENSORS, PLAN)
    found = model_facts(file)
    assert found.precision == precision
    assert source in found.precision_source
    assert (found.input_size, found.head) == ((6, 8), "affine")


def a_graph(path: Path, weights: list[np.ndarray], nodes: list[onnx.NodeProto] | None = None) -> Path:
    tensors = [numpy_helper.from_array(values, f"w{index}") for index, values in enumerate(weights)]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["scores"]), *(nodes or [])],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", 20])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "K"])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_without_a_contract_most_of_the_weights_say_it(tmp_path: Path) -> None:
    weights = [np.ones((3, 10), np.float16), np.ones(10, np.float32), np.ones(1000, np.int64)]
    found = model_facts(a_graph(tmp_path / "any.onnx", weights))
    assert (found.precision, found.precision_source) == ("fp16", "75% of the weights")
    assert (found.input_size, found.head) == ((224, 20), None)


def test_without_a_contract_nodes_that_quantise_say_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["image", "w0"], ["q"])]
    found = model_facts(a_graph(tmp_path / "any.onnx", [np.ones((), np.float32)], nodes))
    assert found.precision == "int8"
    assert found.precision_source == "1 nodes of the graph that quantise"


def test_a_graph_without_weights_has_no_precision(tmp_path: Path) -> None:
    found = model_facts(a_graph(tmp_path / "any.onnx", []))
    assert found.precision is None
    assert "no weights" in found.precision_source


def test_what_is_no_model_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(gapcam.ModelError, match="not an ONNX model"):
        model_facts(tmp_path / "model.onnx")
