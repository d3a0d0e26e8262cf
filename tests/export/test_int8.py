"""INT8 models: what they compute is what NumPy computes with the same integers, and all else stays as it was."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from calibration_images import write_photographs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from small_quantizable import BLOCKS, CHANNELS, CLASSES, Writing, exported, plain, relu6, residual

import gapcam
from gapcam.contract import Contract, Target
from gapcam.errors import ModelError
from gapcam.identity import identity_error
from gapcam_export.comparison.answers import answers
from gapcam_export.comparison.comparison import compare
from gapcam_export.precision.calibration import network_inputs
from gapcam_export.precision.head_nodes import head_nodes, name_nodes, tapped_tensor
from gapcam_export.precision.int8 import Int8Quantizer, check_float32

Array = NDArray[Any]
TARGETS: tuple[Target, ...] = ("cpu-x86", "cpu-arm", "tensorrt")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return sorted(write_photographs(tmp_path_factory.mktemp("photographs"), 16, 64).iterdir())


def quantizer(model: onnx.ModelProto, contract: Contract, images: Sequence[Path], **options: Any) -> Int8Quantizer:
    return Int8Quantizer(model, contract, images, **{"method": "minmax", "target": "cpu-x86", **options})


def run(model: onnx.ModelProto, feed: dict[str, Array], names: Sequence[str] = ()) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    asked = list(names) or [value.name for value in session.get_outputs()]
    return dict(zip(asked, session.run(asked, feed), strict=True))


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))


def nothing(writing: Writing, x: str) -> str:
    del writing
    return x


def quantized(values: Array, least: float, greatest: float, target: Target) -> tuple[Array, float, int]:
    """Integers, scale and zero point of activations with this range: Jacob et al. 2018, equation 1."""
    low, high = (0, 255) if target == "cpu-x86" else (-128, 127)
    if target == "tensorrt":
        scale, zero = np.float32(max(-least, greatest) / 127), 0
        low = -128
    else:
        scale = np.float32((max(greatest, 0) - min(least, 0)) / 255)
        zero = int(np.round(low - min(least, 0) / scale))
    integers = np.clip(np.round(values.astype(np.float32) / scale) + zero, low, high).astype(np.int64)
    return integers, float(scale), zero


@pytest.mark.parametrize("target", TARGETS)
def test_a_quantised_convolution_gives_what_numpy_gives_with_the_same_integers(
    tmp_path: Path, images: Sequence[Path], target: Target
) -> None:
    """Ranges, steps, weights, sums of integers, bias and head are computed anew here from the float32 weights."""
    model, contract = exported(tmp_path, nothing)
    made = quantizer(model, contract, images, target=target)
    int8 = made.quantize()
    bias, filters = (constants(model)[name] for name in ("c0", "c1"))
    # Four by four pixels at a stride of two, padded by one: sums of patches.
    feeds = [feed["image"] for feed in network_inputs(images, contract.preprocessing)]

    def convolved(image: Array, kernel: Array) -> Array:
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (4, 4), axis=(2, 3))[:, :, ::2, ::2]
        return np.einsum("nchwyx,kcyx->nkhw", patches, kernel)

    exact = [np.maximum(convolved(image, filters) + bias[:, None, None], 0) for image in feeds]
    image_range = min(image.min() for image in feeds), max(image.max() for image in feeds)
    feature_range = 0.0, float(max(one.max() for one in exact))
    weight_scale = np.abs(filters).max(axis=(1, 2, 3)) / np.float32(127)
    integer_filters = np.round(filters / weight_scale[:, None, None, None]).astype(np.int64)
    for image in feeds[:4]:
        pixels, image_scale, image_zero = quantized(image, *image_range, target)
        sums = convolved(pixels - image_zero, integer_filters)
        step = (image_scale * weight_scale.astype(np.float64))[:, None, None]
        floats = bias[:, None, None] if target == "tensorrt" else np.round(bias[:, None, None] / step) * step
        values = np.maximum(sums * step + floats, 0)
        integers, scale, zero = quantized(values, *feature_range, target)
        got = run(int8, {"image": image})
        there = np.round(got["features"] / scale) + zero
        # Where a value lies between two integers, a rounding of the last bit decides.
        assert np.abs(there - integers).max() <= 1
        assert np.mean(there != integers) < 1e-3
        weights, shift = constants(model)["cam_weights"], constants(model)["cam_bias"]
        logits = got["features"].mean(axis=(2, 3)) @ weights.T + shift
        np.testing.assert_allclose(got["logits"], logits, rtol=1e-4, atol=1e-5)
    stored = made.quantization(int8, ())
    assert stored.features_scale == pytest.approx(scale, rel=1e-6)
    assert stored.features_zero_point == zero


@pytest.mark.parametrize("name", BLOCKS)
def test_every_kind_of_network_keeps_its_outputs_and_is_near_its_float32_self(
    tmp_path: Path, images: Sequence[Path], name: str
) -> None:
    model, contract = exported(tmp_path, BLOCKS[name])
    feeds = list(network_inputs(images[:4], contract.preprocessing))
    for target in TARGETS:
        made = quantizer(model, contract, images, target=target)
        int8 = made.quantize()
        onnx.checker.check_model(int8, full_check=True)
        assert {node.domain for node in int8.graph.node} == {""}
        assert [entry.domain for entry in int8.opset_import] == [""]
        assert [value.SerializeToString() for value in int8.graph.output] == [
            value.SerializeToString() for value in model.graph.output
        ]
        assert int8.graph.input == model.graph.input
        assert {entry.key for entry in int8.metadata_props} == {"gapcam"}
        assert "QuantizeLinear" in operators(int8)
        values = constants(int8)
        for node in int8.graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                assert np.isfinite(values[node.input[1]]).all()
                assert (values[node.input[1]] > 0).all()
        path = tmp_path / "int8.onnx"
        onnx.save(int8, path)
        gapcam.load(path, threads=1).close()  # the identity holds
        for feed in feeds:
            wanted, got = run(model, feed), run(int8, feed)
            for output in ("logits", "features"):
                assert root_mean_square(got[output] - wanted[output]) < 0.1 * root_mean_square(wanted[output])


@pytest.mark.parametrize("name", BLOCKS)
def test_a_network_of_which_every_layer_is_kept_computes_as_before(
    tmp_path: Path, images: Sequence[Path], name: str
) -> None:
    """So folding constants and BatchNorm changed nothing, and what follows kept layers stays in float32, too."""
    model, contract = exported(tmp_path, BLOCKS[name])
    made = quantizer(model, contract, images)
    float32 = made.quantize(keep=made.layers)
    assert "QuantizeLinear" not in operators(float32)
    assert made.quantization(float32, made.layers).kept_layers == made.layers
    assert made.quantization(float32, made.layers).features_scale is None
    (feed,) = network_inputs(images[:1], contract.preprocessing)
    wanted, got = run(model, feed), run(float32, feed)
    for output, value in wanted.items():
        np.testing.assert_allclose(got[output], value, atol=2e-5 * max(1.0, float(np.abs(value).max())))


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_symmetric_with_a_step_for_each_channel(
    tmp_path: Path, images: Sequence[Path], target: Target
) -> None:
    model, contract = exported(tmp_path, residual)
    int8 = quantizer(model, contract, images, target=target).quantize()
    values, by_output = constants(int8), makers(int8)
    layers = [node for node in int8.graph.node if node.op_type == "Conv"]
    assert len(layers) == 4
    for node in layers:
        weights, scales, zeros = (values[name] for name in by_output[node.input[1]].input)
        assert weights.dtype == np.int8
        assert np.abs(weights).max(axis=(1, 2, 3)).tolist() == [127] * CHANNELS
        assert scales.shape == (CHANNELS,)
        assert not zeros.any()


def test_weights_of_seven_bits_are_made_where_they_are_asked_for(tmp_path: Path, images: Sequence[Path]) -> None:
    model, contract = exported(tmp_path, residual)
    int8 = quantizer(model, contract, images, reduce_range=True).quantize()
    values, by_output = constants(int8), makers(int8)
    for node in int8.graph.node:
        if node.op_type == "Conv":
            assert np.abs(values[by_output[node.input[1]].input[0]]).max() <= 64


def test_tensorrts_form_is_symmetric_has_float32_biases_and_one_int8_input_to_each_addition(
    tmp_path: Path, images: Sequence[Path]
) -> None:
    model, contract = exported(tmp_path, residual)
    made = quantizer(model, contract, images, target="tensorrt")
    int8 = made.quantize()
    values, by_output = constants(int8), makers(int8)
    for node in int8.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
        if node.op_type == "Conv":
            assert [by_output[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert values[node.input[2]].dtype == np.float32
    (addition,) = (node for node in int8.graph.node if node.op_type == "Add")
    # The last layer before the addition goes into it in float32, so that both are one kernel.
    inputs = {by_output[name].op_type: by_output[name].name for name in addition.input}
    assert sorted(inputs) == ["Conv", "DequantizeLinear"]
    assert inputs["Conv"] == made.layers[-1]
    assert by_output["features"].op_type == "DequantizeLinear"
    assert operators(int8).count("Relu") == operators(model).count("Relu")


def test_a_kept_layer_computes_in_float32_and_takes_what_follows_it_along(
    tmp_path: Path, images: Sequence[Path]
) -> None:
    model, contract = exported(tmp_path, relu6)
    made = quantizer(model, contract, images)
    assert len(made.layers) == 4
    first, _, depthwise, last = made.layers
    int8 = made.quantize(keep={depthwise, last})
    by_output, by_name = makers(int8), {node.name: node for node in int8.graph.node}
    for layer in made.layers:
        is_float = by_name[layer].input[1] in constants(int8)
        assert is_float == (layer in (depthwise, last))
    assert by_output["features"].op_type == "Add"
    described = made.quantization(int8, {depthwise, last})
    assert described.kept_layers == (depthwise, last)
    assert described.features_scale is None
    assert described.features_zero_point is None
    alone = made.quantize(only={first})
    by_name = {node.name: node for node in alone.graph.node}
    assert [by_name[layer].input[1] in constants(alone) for layer in made.layers] == [False, True, True, True]
    assert operators(alone).count("QuantizeLinear") == 2  # the image, and what the first layer's Relu gives
    # One calibration serves them all: each model is made anew.
    assert made.quantize().SerializeToString() == made.quantize().SerializeToString()


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("plain", "cpu-x86", {}),
        ("hard_swish", "cpu-x86", {"HardSwish": 2}),
        ("hard_swish", "tensorrt", {}),
        ("concat", "cpu-arm", {"BatchNormalization": 1}),
        ("grouped", "cpu-x86", {"ConvTranspose in groups": 1}),
        ("grouped", "cpu-arm", {"ConvTranspose in groups": 1}),
        ("grouped", "tensorrt", {}),
        ("tokens", "cpu-x86", {"Erf": 1, "LayerNormalization": 3, "MatMul": 2, "Softmax": 1}),
    ],
)
def test_operators_without_an_int8_form_are_named_and_counted(
    tmp_path: Path, images: Sequence[Path], name: str, target: Target, expected: dict[str, int]
) -> None:
    model, contract = exported(tmp_path, BLOCKS[name])
    assert quantizer(model, contract, images, target=target).unquantizable == expected


def test_a_transposed_convolution_in_groups_is_int8_where_its_bias_is_float32(
    tmp_path: Path, images: Sequence[Path]
) -> None:
    model, contract = exported(tmp_path, BLOCKS["grouped"])
    for target in TARGETS:
        int8 = quantizer(model, contract, images, target=target).quantize()
        (node,) = (node for node in int8.graph.node if node.op_type == "ConvTranspose")
        values, by_output = constants(int8), makers(int8)
        if target == "tensorrt":
            assert values[by_output[node.input[1]].input[0]].dtype == np.int8
        else:
            np.testing.assert_array_equal(values[node.input[1]], constants(model)[node.input[1]])
        assert values[node.input[2]].dtype == np.float32


def test_constants_that_are_added_or_multiplied_stay_in_float32(tmp_path: Path, images: Sequence[Path]) -> None:
    def with_constants(writing: Writing, x: str) -> str:
        factor, shift = (writing.constant(np.full((1, CHANNELS, 1, 1), value, np.float32)) for value in (2, 0.5))
        x = writing.node("Add", writing.node("Mul", writing.conv(x), factor), shift)
        return writing.node("Relu", writing.conv(x))

    model, contract = exported(tmp_path, with_constants)
    int8 = quantizer(model, contract, images).quantize()
    by_output, values = makers(int8), constants(int8)
    (addition,) = (node for node in int8.graph.node if node.op_type == "Add")
    assert by_output[addition.input[0]].op_type == "Mul"
    assert values[addition.input[1]].dtype == values[by_output[addition.input[0]].input[1]].dtype == np.float32


def test_an_activation_that_is_always_zero_gets_the_step_of_values_up_to_one(
    tmp_path: Path, images: Sequence[Path]
) -> None:
    model, contract = exported(tmp_path, BLOCKS["dead"])
    int8 = quantizer(model, contract, images).quantize()
    values = constants(int8)
    steps = [values[node.input[1]] for node in int8.graph.node if node.op_type == "QuantizeLinear"]
    assert sum(step == np.float32(1 / 255) for step in steps) == 1


def test_batch_norms_go_into_the_weights(tmp_path: Path, images: Sequence[Path]) -> None:
    for name in ("batch_norm", "transposed"):
        model, contract = exported(tmp_path, BLOCKS[name])
        assert "BatchNormalization" in operators(model)
        int8 = quantizer(model, contract, images).quantize()
        assert "BatchNormalization" not in operators(int8)


@pytest.mark.parametrize("name", ["channels_last", "tokens"])
def test_features_that_are_laid_out_anew_have_a_known_step_where_a_layer_makes_them(
    tmp_path: Path, images: Sequence[Path], name: str
) -> None:
    model, contract = exported(tmp_path, BLOCKS[name])
    made = quantizer(model, contract, images)
    int8 = made.quantize()
    described = made.quantization(int8, ())
    if name == "tokens":  # a norm makes them
        assert described.features_scale is None
        return
    assert described.features_scale is not None
    assert described.features_zero_point is not None
    (feed,) = network_inputs(images[:1], contract.preprocessing)
    steps = run(int8, feed, ["features"])["features"] / described.features_scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert 0 <= steps.min() + described.features_zero_point <= steps.max() + described.features_zero_point <= 255
    assert len(np.unique(np.round(steps))) > 32


@pytest.mark.parametrize("head", ["layernorm", "nonlinear", "class-maps"])
def test_every_kind_of_head_keeps_its_outputs_and_its_identity(
    tmp_path: Path, images: Sequence[Path], head: str
) -> None:
    model, contract = exported(tmp_path, plain, head=head, emit=("features", "maps", "topk"), topk=2)
    assert contract.head.kind.value == head
    for target in TARGETS:
        int8 = quantizer(model, contract, images, target=target).quantize()
        assert int8.graph.output == model.graph.output
        onnx.save(int8, tmp_path / "int8.onnx")
        with gapcam.load(tmp_path / "int8.onnx", threads=1) as session:
            result = session(gapcam.read_image(images[0]))
            assert np.isfinite(result.map()).all()


@pytest.mark.parametrize("batch", [1, "N"])
def test_embedded_preprocessing_stays_in_float32_and_the_batch_as_it_was(
    tmp_path: Path, images: Sequence[Path], batch: int | str
) -> None:
    model, contract = exported(tmp_path, plain, embed=True, batch=batch, emit=("features", "maps", "topk"), topk=2)
    int8 = quantizer(model, contract, images).quantize()
    by_output = makers(int8)
    assert int8.graph.input == model.graph.input
    assert int8.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    first = next(node for node in int8.graph.node if node.op_type == "QuantizeLinear")
    before = []
    name = first.input[0]
    while name in by_output:
        before.append(by_output[name].op_type)
        name = by_output[name].input[0]
    assert before == ["Transpose", "Add", "Mul", "Cast"]
    feeds = [feed["image"] for feed in network_inputs(images[:2], contract.preprocessing)]
    got = [run(int8, {"image": feed}) for feed in feeds]
    if batch == "N":
        both = run(int8, {"image": np.concatenate(feeds)})
        for output in ("logits", "features", "maps", "topk_maps"):
            np.testing.assert_allclose(both[output], np.concatenate([one[output] for one in got]), atol=1e-4)


@pytest.mark.parametrize("target", ["cpu-x86", "tensorrt"])
def test_a_lowered_head_is_described_by_the_weights_that_it_computes_with(
    tmp_path: Path, images: Sequence[Path], target: Target
) -> None:
    model, contract = exported(tmp_path, residual, emit=("features", "maps"))
    made = quantizer(model, contract, images, target=target, lower_head=True)
    int8 = made.quantize()
    values, by_output = constants(int8), makers(int8)
    (gemm,) = (node for node in int8.graph.node if node.op_type == "Gemm")
    assert by_output[gemm.input[0]].op_type == "DequantizeLinear"
    integers, scale, _ = (values[name] for name in by_output[gemm.input[1]].input)
    assert integers.dtype == np.int8
    assert gemm.name in made.layers
    worst = 0.0
    for feed in network_inputs(images, contract.preprocessing):
        got = run(int8, feed)
        np.testing.assert_allclose(got["cam_weights"], integers * scale[:, None], rtol=1e-6)
        maps = np.einsum("kc,nchw->nkhw", got["cam_weights"], got["features"])
        np.testing.assert_allclose(got["maps"], maps, atol=1e-4 * np.abs(maps).max())
        error = identity_error(got["logits"], got["features"], got["cam_weights"], got["cam_bias"])
        worst = max(worst, error)
    assert 1e-5 < worst < 2e-2


def test_weights_that_a_head_in_float32_reads_twice_are_in_the_file_once(
    tmp_path: Path, images: Sequence[Path]
) -> None:
    model, contract = exported(tmp_path, plain, head="nonlinear", emit=("features", "topk"), topk=2)
    int8 = quantizer(model, contract, images).quantize()
    floats = [value.shape for value in constants(int8).values() if value.dtype == np.float32 and value.ndim == 2]
    assert sorted(floats) == [(CLASSES, 7), (7, CHANNELS)]
    assert sum(value.nbytes for value in constants(int8).values()) < sum(
        value.nbytes for value in constants(model).values()
    )


@pytest.mark.parametrize("target", ["cpu-x86", "tensorrt"])
def test_rows_of_a_lowered_nonlinear_head_are_its_int8_weights(
    tmp_path: Path, images: Sequence[Path], target: Target
) -> None:
    """The tangent is computed anew here: second weights times the slope of SiLU times the first."""
    model, contract = exported(tmp_path, plain, head="nonlinear", emit=("features", "topk"), topk=2)
    int8 = quantizer(model, contract, images, target=target, lower_head=True).quantize()
    values, by_output = constants(int8), makers(int8)
    assert not [value for value in values.values() if value.dtype == np.float32 and value.ndim == 2]
    first, last = (node for node in int8.graph.node if node.op_type == "Gemm")
    weights = []
    for node in (first, last):
        integers, scale, _ = (values[name] for name in by_output[node.input[1]].input)
        assert integers.dtype == np.int8
        weights.append(integers * scale[:, None])
    (feed,) = network_inputs(images[:1], contract.preprocessing)
    probed = onnx.ModelProto()
    probed.CopyFrom(int8)
    probed.graph.output.append(helper.make_tensor_value_info("preactivation", TensorProto.FLOAT, None))
    got = run(probed, feed)
    hidden = got["preactivation"][0].astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-hidden))
    slopes = sigmoid * (1 + hidden * (1 - sigmoid))
    rows = (weights[1][got["topk_classes"][0]] * slopes) @ weights[0]
    np.testing.assert_allclose(got["topk_weights"][0], rows, atol=1e-4 * np.abs(rows).max())


def test_what_is_in_lower_precision_already_is_refused(tmp_path: Path, images: Sequence[Path]) -> None:
    model, contract = exported(tmp_path, plain)
    int8 = quantizer(model, contract, images).quantize()
    with pytest.raises(
        ModelError, match=r"precision of it\.onnx .*it is quantised already \(it has DequantizeLinear nodes\)"
    ):
        check_float32(int8, contract, "it.onnx")
    with pytest.raises(ModelError, match=r"the precision of the model cannot be lowered: it is quantised already"):
        quantizer(int8, contract, images)
    with pytest.raises(ModelError, match=r"quantised already \(its contract says int8\)"):
        quantizer(model, msgspec.structs.replace(contract, precision="int8"), images)
    with pytest.raises(ModelError, match="it is in bf16 already"):
        quantizer(model, msgspec.structs.replace(contract, precision="bf16"), images)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        if tensor.name == "c0":
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, "c0"))
    with pytest.raises(ModelError, match=r"it is in float16 already; give the float32 model that it was made from"):
        quantizer(half, contract, images)


def test_a_network_without_a_layer_to_quantise_is_refused(tmp_path: Path, images: Sequence[Path]) -> None:
    model, contract = exported(tmp_path, plain)
    moved = []
    for node in model.graph.node:
        if node.op_type == "Conv":  # weights that are no constants
            moved.append(helper.make_node("Add", [node.input[1], "moving"], [f"{node.input[1]}_moving"]))
            node.input[1] = moved[-1].output[0]
    for node in moved:
        model.graph.node.insert(0, node)
    model.graph.node.insert(0, helper.make_node("Mul", ["one", "zero"], ["moving"]))
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["image"], ["one"], keepdims=0))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    with pytest.raises(ModelError, match=r"has no layer with constant weights .* nothing to quantise"):
        quantizer(model, contract, images)


def test_an_old_opset_is_raised_to_one_that_has_steps_for_each_channel(tmp_path: Path, images: Sequence[Path]) -> None:
    model, contract = exported(tmp_path, relu6, opset=11)
    int8 = quantizer(model, contract, images).quantize()
    assert int8.opset_import[0].version == 13
    onnx.checker.check_model(int8, full_check=True)
    assert {entry.key for entry in int8.metadata_props} == {"gapcam"}
    (feed,) = network_inputs(images[:1], contract.preprocessing)
    wanted, got = run(model, feed, ["features"]), run(int8, feed, ["features"])
    assert np.abs(got["features"] - wanted["features"]).max() < 0.1 * np.abs(wanted["features"]).max()


def test_functions_of_a_models_own_are_written_out(tmp_path: Path, images: Sequence[Path]) -> None:
    """PyTorch's exporter writes some operators so."""
    model, contract = exported(tmp_path, plain)
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Rectify", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    for node in relus:
        node.op_type, node.domain = "Rectify", "own"
    int8 = quantizer(model, contract, images).quantize()
    assert not int8.functions
    assert {node.domain for node in int8.graph.node} == {""}
    (feed,) = network_inputs(images[:1], contract.preprocessing)
    wanted, got = run(model, feed, ["logits"]), run(int8, feed, ["logits"])
    assert np.abs(got["logits"] - wanted["logits"]).max() < 0.1 * np.abs(wanted["logits"]).max()


def test_a_weight_that_two_layers_share_may_be_kept_for_one(tmp_path: Path, images: Sequence[Path]) -> None:
    def shared(writing: Writing, x: str) -> str:
        x = writing.node("Relu", writing.conv(x))
        last = writing.nodes[-2]
        return writing.node("Relu", writing.node("Conv", x, *last.input[1:], pads=[1, 1, 1, 1]))

    model, contract = exported(tmp_path, shared)
    made = quantizer(model, contract, images)
    int8 = made.quantize(keep={made.layers[1]})
    by_name = {node.name: node for node in int8.graph.node}
    floats = [constants(int8).get(by_name[layer].input[1]) is not None for layer in made.layers]
    assert floats == [False, True, False]


def test_the_model_that_is_given_is_not_changed(tmp_path: Path, images: Sequence[Path]) -> None:
    model, contract = exported(tmp_path, relu6)
    before = model.SerializeToString()
    quantizer(model, contract, images).quantize()
    assert model.SerializeToString() == before


def test_the_heads_nodes_are_all_that_follows_the_features(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, BLOCKS["channels_last"], emit=("features", "maps", "topk"), topk=2)
    with pytest.raises(ValueError, match="name_nodes"):
        head_nodes(model, contract)
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    head = set(head_nodes(model, contract))
    after, reached = set(), {tapped_tensor(model, contract)}
    for node in model.graph.node:
        if not reached.isdisjoint(node.input):
            after.add(node.name)
            reached.update(node.output)
    assert head == after
    assert {node.op_type for node in model.graph.node if node.name in head} == {
        *("ReduceMean", "Flatten", "Gemm", "Transpose", "Reshape", "MatMul", "TopK", "Gather"),
    }
    again = onnx.ModelProto()
    again.CopyFrom(model)
    name_nodes(again)
    assert again == model  # names stay


def test_names_that_nodes_share_become_their_own() -> None:
    nodes = [helper.make_node("Relu", [a], [b], name=name) for a, b, name in (("x", "y", "one"), ("y", "z", "one"))]
    nodes.append(helper.make_node("Relu", ["z"], ["w"]))
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["one", "Relu_1", "Relu_2"]


def test_features_that_are_not_laid_out_by_an_export_are_refused(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, BLOCKS["channels_last"])
    head = msgspec.structs.replace(contract.head, layout="tokens")
    with pytest.raises(ModelError, match=r"'features' is made by Transpose; expected Reshape for the layout 'tokens'"):
        tapped_tensor(model, msgspec.structs.replace(contract, head=head))


@pytest.mark.slow
def test_efficientnet_keeps_its_classes_and_maps_on_photographs(tmp_path: Path, data: Path, demo_model: Path) -> None:
    """ImageNet weights, calibrated on 32 images, checked on 60 others."""
    with (data / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    calibrate, check = (
        [data / row["file"] for row in rows if row["split"] == split] for split in ("calibrate", "check")
    )
    model, checked = onnx.load(demo_model), check[:60]
    with gapcam.load(demo_model, threads=1) as float32:
        contract, reference = float32.contract, answers(float32, checked)
    for target in ("cpu-x86", "tensorrt"):
        path = tmp_path / f"{target}.onnx"
        onnx.save(quantizer(model, contract, calibrate[:32], target=target).quantize(), path)
        with gapcam.load(path, threads=1) as session:
            measured = compare(reference, session, checked).summary()
        assert measured.top1_agreement >= 0.95
        assert measured.box_iou >= 0.85
        assert measured.map_pearson >= 0.97
        assert path.stat().st_size < demo_model.stat().st_size / 2
