"""Which nodes run where, read from real sessions of ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import red_and_blue

from gapcam.backends.onnxruntime_assignment import RECORDING, SHAPE_OPERATORS, check_on_device, nodes_by_provider
from gapcam.errors import BackendError

CPU = "CPUExecutionProvider"


def session_of(path: Path, *, record: bool = True) -> onnxruntime.InferenceSession:
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("ONNX Runtime says from 1.24 on which nodes run where")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if record:
        options.add_session_config_entry(*RECORDING)
    return onnxruntime.InferenceSession(str(path), options, providers=[CPU])


def test_every_node_is_counted_with_the_provider_that_runs_it(tmp_path: Path) -> None:
    session = session_of(red_and_blue(tmp_path / "m.onnx"))
    assert nodes_by_provider(session) == {CPU: Counter(Gather=1, GlobalAveragePool=1, Flatten=1, Gemm=1)}


def test_a_real_network_is_counted_as_its_graph_has_it(demo_model: Path) -> None:
    import onnx

    session = session_of(demo_model)
    assert nodes_by_provider(session)[CPU] == Counter(node.op_type for node in onnx.load(demo_model).graph.node)


def test_operators_beside_onnx_s_own_have_their_domain_in_front(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["image"], ["out"], domain="com.microsoft")],
        "g",
        [value],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    assert nodes_by_provider(session_of(path)) == {CPU: Counter({"com.microsoft.Gelu": 1})}


def test_a_model_that_is_on_the_cpu_altogether_is_refused_with_what_allows_it(tmp_path: Path) -> None:
    session = session_of(red_and_blue(tmp_path / "m.onnx"))
    with pytest.raises(BackendError, match="the whole of it on the CPU instead of CUDA") as caught:
        check_on_device(nodes_by_provider(session), "CUDA", "m.onnx")
    assert "--allow-cpu-fallback" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arithmetic_on_shapes_may_be_on_the_cpu() -> None:
    nodes = {"CUDAExecutionProvider": ["Conv", "Reshape"], CPU: ["Shape", "Gather", "Concat"]}
    check_on_device({name: Counter(counted) for name, counted in nodes.items()}, "CUDA", "m.onnx")


def test_layers_on_the_cpu_are_refused_by_name_the_most_frequent_first() -> None:
    on_cpu = ["Shape", "Resize", "TopK", "TopK", "NonZero", "Loop", "LSTM", "RoiAlign"]
    nodes = {"CUDAExecutionProvider": ["Conv"], CPU: on_cpu}
    with pytest.raises(BackendError, match=r"with 2 TopK, 1 \w+, 1 \w+, 1 \w+, 1 \w+ and 1 more kinds on the CPU"):
        check_on_device({name: Counter(counted) for name, counted in nodes.items()}, "CUDA", "m.onnx")


def test_every_shape_operator_is_one_of_onnx() -> None:
    import onnx

    assert {name for name in SHAPE_OPERATORS if not onnx.defs.has(name)} == set()


def test_what_a_dynamic_graph_computes_of_shapes_is_of_those_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["image", "target"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 12])],
        [numpy_helper.from_array(np.array([0]), "zero"), numpy_helper.from_array(np.array([-1]), "rest")],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )
    assert set(nodes_by_provider(session_of(path))[CPU]) <= SHAPE_OPERATORS


def test_a_session_that_did_not_record_is_no_silent_success(tmp_path: Path) -> None:
    from gapcam.backends.onnxruntime_session import ORT_ERRORS

    with pytest.raises(ORT_ERRORS, match="record_ep_graph_assignment_info"):
        nodes_by_provider(session_of(red_and_blue(tmp_path / "m.onnx"), record=False))
