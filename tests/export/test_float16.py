"""float16: what it cannot hold stays in float32, and maps and logits stay what they were."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import half_networks
import numpy as np
import onnx
import onnx_files
import pytest
from half_networks import exported, exported_from, flat_frame
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

import gapcam
from gapcam.contract import Contract, Precision
from gapcam.identity import GREATEST_TOLERANCE, identity_error
from gapcam_export.comparison.answers import answers
from gapcam_export.comparison.comparison import compare
from gapcam_export.photographs import default_photographs
from gapcam_export.precision.float16 import to_float16
from gapcam_export.precision.half_converter import constants_to_initializers, lower_nodes
from gapcam_export.precision.head_nodes import head_nodes, name_nodes
from gapcam_export.precision.observed_tensors import observe_tensors
from gapcam_export.precision.tolerances import identity_tolerance
from gapcam_export.section import onnx_session
from gapcam_export.verify import measure_identity

FRAMES = default_photographs()
# A flat image is flat after the scaling, too, in every precision.
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
Frame = NDArray[np.uint8]


def float16(
    model: onnx.ModelProto, contract: Contract, head: Collection[str], notes: list[str] | None = None
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    images = [gapcam.preprocess(frame, contract.preprocessing) for frame in FRAMES]
    return to_float16(model, head=head, images=images, notes=[] if notes is None else notes)


def run(model: onnx.ModelProto, contract: Contract, frame: Frame) -> dict[str, Any]:
    image = gapcam.preprocess(frame, contract.preprocessing)[None]
    names = [value.name for value in model.graph.output]
    return dict(zip(names, onnx_session(model).run(names, {"image": image}), strict=True))


def error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The greatest difference over the greatest value; NaN if something is not finite."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Of all that has a type in a model."""
    graph = model.graph
    described = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return described | {tensor.name: tensor.data_type for tensor in graph.initializer}


def assert_right(half: onnx.ModelProto, model: onnx.ModelProto, contract: Contract, tolerance: float) -> None:
    """Valid ONNX, with the same inputs and outputs, whose logits are those of the float32 model."""
    onnx.checker.check_model(half, full_check=True)
    assert list(half.graph.input) == list(model.graph.input)
    assert list(half.graph.output) == list(model.graph.output)
    assert list(half.metadata_props) == list(model.metadata_props)
    for frame in (*FRAMES, flat_frame()):
        got, expected = run(half, contract, frame), run(model, contract, frame)
        for name in ("logits", "features", "maps"):
            if name in expected:
                assert error(got[name], expected[name]) <= tolerance, name


def test_everything_before_the_head_is_in_float16_and_the_head_as_it_was(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing, emit=("maps", "topk"))
    before = model.SerializeToString()
    head = head_nodes(model, contract)
    notes: list[str] = []
    half, _ = float16(model, contract, head, notes)
    assert model.SerializeToString() == before
    assert notes == []
    assert_right(half, model, contract, 2e-3)
    assert operators(half) - operators(model) == Counter(Cast=2)  # of the image, and of the features for the head
    dtypes = types(half)
    for node in half.graph.node:
        if node.op_type != "Cast":
            floats = {dtypes[name] for name in node.input if name and dtypes[name] != TensorProto.INT64}
            assert floats <= {TensorProto.FLOAT if node.name in head else TensorProto.FLOAT16}, node.name
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    for name in ("cam_weights", "cam_bias"):
        (exact,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        np.testing.assert_array_equal(numpy_helper.to_array(stored[name]), numpy_helper.to_array(exact))
    sizes = Counter(tuple(tensor.dims) for tensor in half.graph.initializer)
    assert sizes[half_networks.WEIGHTS.shape] == 1


def test_features_are_what_the_head_reads_so_the_identity_holds_as_in_float32(
    demo_model: Path, cat: Frame, tmp_path: Path
) -> None:
    model = onnx.load(demo_model)
    name_nodes(model)
    with gapcam.load(demo_model) as session:
        contract, expected = session.contract, session(cat)
    half, emulation = float16(model, contract, head_nodes(model, contract))
    for lowered in (half, emulation):
        assert measure_identity(onnx_session(lowered), contract.preprocessing, FRAMES, 1e-4) <= 1e-5
        onnx.save(lowered, tmp_path / "half.onnx")
        with gapcam.load(tmp_path / "half.onnx") as session:
            result = session(cat)
        np.testing.assert_array_equal(result.features, result.features.astype(np.float16).astype(np.float32))
        assert result.top[0].index == expected.top[0].index
        assert np.corrcoef(result.map().ravel(), expected.map().ravel())[0, 1] > 0.9999
    assert half.ByteSize() < 0.65 * model.ByteSize()  # all but W, which the head reads in float32


def test_a_lowered_head_reads_the_rounded_weights_that_are_given_and_the_file_holds_them_once(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing, emit=("maps", "topk"))
    odd = numpy_helper.from_array(half_networks.WEIGHTS * np.float32(1.0001), "cam_weights")
    next(tensor for tensor in model.graph.initializer if tensor.name == "cam_weights").CopyFrom(odd)
    half, emulation = float16(model, contract, ())
    assert_right(half, model, contract, 3e-3)
    given = run(half, contract, FRAMES[0])["cam_weights"]
    assert not np.array_equal(given, numpy_helper.to_array(odd))
    np.testing.assert_array_equal(given, numpy_helper.to_array(odd).astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(run(emulation, contract, FRAMES[0])["cam_weights"], given)
    assert sum(tuple(tensor.dims) == given.shape for tensor in half.graph.initializer) == 1
    dtypes = types(half)
    (gemm,) = (node for node in half.graph.node if node.op_type == "Gemm")
    assert [dtypes.get(name) for name in gemm.input] == [TensorProto.FLOAT16] * 3
    assert measure_identity(onnx_session(emulation), contract.preprocessing, FRAMES, 3e-3) <= identity_tolerance(
        "fp16", "fp16"
    )


NORMALIZATIONS: dict[str, tuple[half_networks.Block, set[str]]] = {
    "single steps": (half_networks.normed_over_space(1e-12), {"Sub", "Sqrt", "Div"}),
    "reciprocal": (half_networks.normed_by_reciprocal, {"Pow"}),
    "length": (half_networks.normed_to_length, {"ReduceL2", "Max", "Div"}),
    "InstanceNormalization": (half_networks.instance_normed, {"InstanceNormalization"}),
    "BatchNormalization": (half_networks.batch_normed, {"BatchNormalization"}),
    "constant nodes": (half_networks.with_constant_nodes, {"Sqrt", "Reciprocal"}),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalisation_stays_in_float32_with_its_epsilon(name: str, tmp_path: Path) -> None:
    block, expected = NORMALIZATIONS[name]
    model, contract = exported(tmp_path, block, **PIXELS)
    notes: list[str] = []
    half, emulation = float16(model, contract, head_nodes(model, contract), notes)
    assert len(notes) == 1
    assert "left in float32" in notes[0]
    dtypes = types(half)
    kept = {node.op_type for node in half.graph.node if dtypes.get(node.output[0]) == TensorProto.FLOAT}
    assert expected <= kept
    for lowered in (half, emulation):
        assert_right(lowered, model, contract, 2e-3)


@pytest.mark.parametrize(
    ("block", "value"),
    [
        (half_networks.normed_over_space(1e-12), 77),
        (half_networks.normed_over_space(1e-12), 255),
        (half_networks.normed_by_reciprocal, 0),
        (half_networks.normed_to_length, 0),
        (half_networks.with_constant_nodes, 0),
    ],
)
def test_a_flat_image_gives_a_flat_map_which_is_shown_as_zeros(
    block: half_networks.Block, value: int, tmp_path: Path
) -> None:
    model, contract = exported(tmp_path, block, **PIXELS)
    head = head_nodes(model, contract)
    constants_to_initializers(model.graph)
    dtypes = {name: each.dtype for name, each in observe_tensors(model, []).items()}
    naive = lower_nodes(model, head, dtypes, TensorProto.FLOAT16)
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(run(naive, contract, flat_frame(value))["logits"]).all()  # the epsilon is 0 in float16
    for lowered in float16(model, contract, head):
        onnx.save(lowered, tmp_path / "half.onnx")
        with gapcam.load(tmp_path / "half.onnx") as session:
            frame = flat_frame(value)
            result = session(frame)
            assert np.isfinite(result.logits).all()
            for target in range(half_networks.CLASSES):
                heatmap = result.heatmap(target)
                np.testing.assert_array_equal(heatmap, np.zeros_like(heatmap))
                assert len(result.boxes(target)) == 0
                assert result.overlay(target).shape == frame.shape
                assert np.isfinite(result.map(target)).all()


@pytest.mark.parametrize(
    ("block", "reason", "named"),
    [
        (half_networks.large, "too large for float16", ("Mul", "Conv", "Div")),
        (half_networks.small, "too small for float16", ("Mul", "Relu", "Div")),
    ],
)
def test_values_beyond_float16_stay_in_float32_and_are_named(
    block: half_networks.Block, reason: str, named: tuple[str, ...], tmp_path: Path
) -> None:
    model, contract = exported(tmp_path, block, **PIXELS)
    head = head_nodes(model, contract)
    dtypes = {name: each.dtype for name, each in observe_tensors(model, []).items()}
    naive = lower_nodes(model, head, dtypes, TensorProto.FLOAT16)
    got, expected = run(naive, contract, FRAMES[1]), run(model, contract, FRAMES[1])
    assert not error(got["features"], expected["features"]) <= 0.1
    notes: list[str] = []
    half, emulation = float16(model, contract, head, notes)
    (note,) = notes
    assert reason in note
    for operator in named:
        assert f"{operator} {operator}_" in note
    for lowered in (half, emulation):
        assert_right(lowered, model, contract, 2e-3)


@pytest.mark.parametrize("head_is_lowered", [False, True])
@pytest.mark.parametrize("options", [{}, {"static_batch": True, "embed": True, "emit": ("maps", "topk")}])
@pytest.mark.parametrize(
    "block",
    [
        half_networks.with_branches,
        half_networks.with_loop,
        half_networks.resized,
        half_networks.with_runtimes_own,
    ],
)
def test_subgraphs_resizes_and_a_runtimes_own_operators_read_float32_where_they_must(
    block: half_networks.Block, options: dict[str, Any], head_is_lowered: bool, tmp_path: Path
) -> None:
    model, contract = exported(tmp_path, block, **options)
    notes: list[str] = []
    half, emulation = float16(model, contract, () if head_is_lowered else head_nodes(model, contract), notes)
    for lowered in (half, emulation):
        assert_right(lowered, model, contract, 3e-3)
    assert len(notes) == (block is not half_networks.resized)
    assert all("no float16 form" in note and any(name in note for name in ("If", "Loop", "BiasGelu")) for note in notes)


SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "affine": ("networks:many_layers_in_head", {"size": (64, 64), "emit": ("maps", "topk")}),
    "layernorm": ("networks:normed_head", {"size": (64, 64), "emit": ("maps", "topk"), "embed": True}),
    "nonlinear": ("networks:three_layers", {"size": (64, 64), "emit": ("maps", "topk"), "static_batch": True}),
    "tokens": ("vision_transformers:averaged_without_its_registers", {"size": (64, 96), "emit": ("maps",)}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_head_keeps_its_identity(name: str, tmp_path: Path) -> None:
    source, options = SOURCES[name]
    model, contract = exported_from(source, tmp_path, **options)
    for head in (head_nodes(model, contract), ()):
        half, emulation = float16(model, contract, head)
        tolerance = identity_tolerance("fp16", "fp32" if head else "fp16")
        for lowered in (half, emulation):
            assert_right(lowered, model, contract, 5e-3)
            onnx_error = measure_identity(onnx_session(lowered), contract.preprocessing, FRAMES, 5e-3)
            assert onnx_error <= tolerance
        assert operators(half)["Cast"] <= (4 if head else 30)


@pytest.mark.parametrize(
    "variant",
    [
        onnx_files.Variant(opset=7),
        onnx_files.Variant(layout="nhwc", pixels=True, opset=11),
        onnx_files.Variant(end="ZipMap", opset=12),
        onnx_files.Variant(end="names"),
        onnx_files.Variant(end="all", shape="static"),
        onnx_files.Variant(stored="float16", computed="float16"),
    ],
    ids=str,
)
def test_files_of_every_opset_layout_and_ending_can_be_lowered(
    variant: onnx_files.Variant, tmp_path: Path, cat: Frame
) -> None:
    source = onnx_files.write(tmp_path / "source.onnx", variant)
    size = None if variant.shape == "static" else onnx_files.SIZE
    model, contract = exported_from(str(source), tmp_path, **({"size": size} if size else {}))
    maps = onnx_files.oracle(cat, contract.preprocessing, variant)
    for head in (head_nodes(model, contract), ()):
        for lowered in float16(model, contract, head):
            got = run(lowered, contract, cat)
            given = np.einsum("kc,cyx->kyx", got["cam_weights"], got["features"][0])
            assert error(given, maps) <= 2e-3


def test_tolerances_pass_what_is_rounded_and_not_what_is_wrong(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing)
    _, emulation = float16(model, contract, ())
    for frame in FRAMES:
        got = run(emulation, contract, frame)
        weights, bias = got["cam_weights"], got["cam_bias"]
        measured = identity_error(got["logits"], got["features"], weights, bias)
        assert identity_tolerance("fp16", "fp32") < measured < identity_tolerance("fp16", "fp16")
        wrong = identity_error(got["logits"], got["features"], np.roll(weights, 1, axis=0), bias)
        assert wrong > GREATEST_TOLERANCE
    for precision in get_args(Precision):
        with_head, lowered = identity_tolerance(precision, "fp32"), identity_tolerance(precision, precision)
        assert with_head == identity_tolerance("fp32", "fp32") <= lowered <= GREATEST_TOLERANCE


def test_uint8_pixels_are_scaled_in_float32(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing, embed=True)
    half, _ = float16(model, contract, head_nodes(model, contract))
    dtypes = types(half)
    conv = next(node for node in half.graph.node if node.op_type == "Conv")
    cast = next(node for node in half.graph.node if node.output[0] == conv.input[0])
    assert cast.op_type == "Cast"
    assert dtypes[cast.input[0]] == TensorProto.FLOAT
    image = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    original = next(node for node in model.graph.node if node.op_type == "Conv")
    expected = value_of(model, original.input[0], image).astype(np.float16)
    np.testing.assert_array_equal(value_of(half, conv.input[0], image), expected)


def value_of(model: onnx.ModelProto, tensor: str, image: NDArray[np.uint8]) -> NDArray[Any]:
    """What a tensor inside a model is."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.ValueInfoProto(name=tensor))
    (value,) = onnx_session(probe).run([tensor], {"image": image})
    return value


def test_imagenets_images_have_the_same_classes_and_boxes_in_float16(
    demo_model: Path, data: Path, tmp_path: Path
) -> None:
    model = onnx.load(demo_model)
    name_nodes(model)
    with (data / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "check"]
    paths = [data / row["file"] for row in rows[::10]]
    assert len(paths) == 33
    with gapcam.load(demo_model) as session:
        contract, reference = session.contract, answers(session, paths)
    for lowered in float16(model, contract, head_nodes(model, contract)):
        onnx.save(lowered, tmp_path / "half.onnx")
        with gapcam.load(tmp_path / "half.onnx") as session:
            fidelity = compare(reference, session, paths).summary()
        assert fidelity.top1_agreement >= 0.995
        assert fidelity.box_iou >= 0.98
        assert fidelity.map_pearson >= 0.999
        assert 0 < fidelity.logit_error <= 0.01
