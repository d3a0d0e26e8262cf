"""What an engine computes in is read from the engine inspector's JSON, and float16 that became float32 is an error.

The JSON is written as TensorRT 10's inspector gives it (NVIDIA, TensorRT documentation, "Engine Inspector").
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gapcam.errors import VerificationError
from gapcam_export.engines.built_precision import CountedLayer, built_precision, check_network, engine_layers

FP16 = [CountedLayer("/stem/Conv", "fp16"), CountedLayer("/stem/Conv_1", "fp16"), CountedLayer("/head/Gemm", "fp32")]


def a_layer(name: str, *formats: str, weights: str = "", metadata: str = "") -> dict[str, Any]:
    first, *rest = [{"Name": "t", "Dimensions": [1, 8, 8, 8], "Format/Datatype": text} for text in formats]
    layer: dict[str, Any] = {"Name": name, "LayerType": "CaskConvolution", "Inputs": [first], "Outputs": rest}
    if weights:
        layer["Weights"] = {"Type": weights, "Count": 27}
    return {**layer, "Metadata": metadata}


def inspected(*layers: dict[str, Any] | str) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["image", "logits"]})


HALF = "Channel major FP16 format where channel % 8 == 0"


def test_an_engine_that_kept_its_types_is_counted_layer_by_layer() -> None:
    information = inspected(
        a_layer("Reformatting CopyNode for Input Tensor 0 to /stem/Conv", "Row major linear FP32", HALF),
        a_layer("/stem/Conv + /stem/Relu", HALF, HALF, weights="Half"),
        a_layer(
            "__myl_Conv_myl0_3", "Half", "Half", metadata="[ONNX Layer: /stem/Conv_1]\x1e[ONNX Layer: /stem/Relu_1]"
        ),
        a_layer("/head/Gemm", "Row major linear FP32", "Row major linear FP32"),
    )
    precision = built_precision(FP16, "fp16", information, "", "model.onnx")
    assert precision.network == precision.engine == {"fp16": 2, "fp32": 1}
    assert precision.not_read == ""


def test_float16_that_became_float32_is_an_error_that_names_the_layers() -> None:
    information = inspected(
        a_layer("Reformatting CopyNode for Input Tensor 0 to /stem/Conv", "Half", "Float"),
        a_layer("/stem/Conv + /stem/Relu", "Float", "Float", weights="Float"),
        a_layer("/stem/Conv_1", "Half", "Half"),
        a_layer("/head/Gemm", "Float", "Float"),
    )
    with pytest.raises(VerificationError, match=r"1 of 2 layers in fp16 became fp32 in the engine \(/stem/Conv\)"):
        built_precision(FP16, "fp16", information, "", "model.onnx")


def test_a_layer_is_not_taken_for_one_whose_name_begins_alike() -> None:
    shown = engine_layers(inspected(a_layer("/stem/Conv_1 + /stem/Relu", "Half", "Half")), FP16)
    assert shown == {"/stem/Conv_1": {"fp16"}}


def test_what_is_inside_of_a_block_is_not_guessed_from_its_ends() -> None:
    ends = ("Row major linear FP32", "Row major linear FP32")
    block = a_layer("{ForeignNode[/stem/Conv.../head/Gemm]}", *ends, metadata="[ONNX Layer: /stem/Conv]")
    precision = built_precision(FP16, "fp16", inspected(block), "", "model.onnx")
    assert precision.engine == {}
    assert precision.not_read == "the engine inspector shows no layer's types: the engine is compiled as one block"
    fused = a_layer("__myl_0", *ends, metadata="[ONNX Layer: /stem/Conv]\x1e[ONNX Layer: /stem/Conv_1]")
    assert engine_layers(inspected(fused), FP16) == {}


@pytest.mark.parametrize(
    "information",
    [
        inspected("/stem/Conv + /stem/Relu", "/head/Gemm"),  # built without details
        inspected(a_layer("/stem/Conv", "N/A due to dynamic shapes", "N/A due to dynamic shapes")),
        "",
        "[]",
        "{}",
    ],
)
def test_what_the_inspector_does_not_show_is_said_not_to_be_read(information: str) -> None:
    precision = built_precision(FP16, "fp16", information, "", "model.onnx")
    assert precision.engine == {}
    assert precision.not_read


def test_bfloat16_is_not_taken_for_float16_nor_the_other_way_round() -> None:
    for text, expected in (
        ("BFloat16", "bf16"),
        ("Row major linear BF16", "bf16"),
        ("Half", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
    ):
        assert engine_layers(inspected(a_layer("/head/Gemm", text, text)), FP16) == {"/head/Gemm": {expected}}, text


def test_int8_may_stay_in_float32_here_and_there_but_not_everywhere() -> None:
    counted = [CountedLayer("a", "int8"), CountedLayer("b", "int8")]
    some = inspected(a_layer("a", "Int8", "Int8", weights="Int8"), a_layer("b", "Half", "Half"))
    assert built_precision(counted, "int8", some, "", "m").engine == {"fp16": 1, "int8": 1}
    none = inspected(a_layer("a", "Float", "Float"), a_layer("b", "Float", "Float"))
    with pytest.raises(VerificationError, match="2 of 2 layers in int8 became fp32"):
        built_precision(counted, "int8", none, "", "m")


def test_an_engine_that_was_not_opened_says_why() -> None:
    precision = built_precision(FP16, "fp16", None, "there is no GPU here", "m")
    assert (precision.engine, precision.not_read) == ({}, "there is no GPU here")
    assert precision.network == {"fp16": 2, "fp32": 1}


def test_a_network_without_one_layer_in_its_precision_is_an_error_before_the_build() -> None:
    check_network(FP16, "fp16", "m")
    check_network(FP16, "fp32", "m")
    check_network([], "fp16", "m")
    with pytest.raises(VerificationError, match=r"m should compute in bf16, .*\(2 in fp16, 1 in fp32\); exp"):
        check_network(FP16, "bf16", "m")
