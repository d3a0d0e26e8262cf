"""bfloat16: a model that no CPU runs, and a float32 model that rounds as it does."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import half_networks
import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx_files
import pytest
from half_networks import exported, exported_from, flat_frame
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import gapcam
from gapcam.contract import Contract
from gapcam.errors import ModelError
from gapcam_export.comparison.answers import answers
from gapcam_export.comparison.comparison import compare
from gapcam_export.graph import opset_of
from gapcam_export.photographs import default_photographs
from gapcam_export.precision.bfloat16 import to_bfloat16
from gapcam_export.precision.emulation import emulate
from gapcam_export.precision.head_nodes import head_nodes, name_nodes
from gapcam_export.precision.tolerances import identity_tolerance
from gapcam_export.section import onnx_session
from gapcam_export.verify import measure_identity

FRAMES = default_photographs()
Arrays = dict[str, NDArray[Any]]


def answer(model: onnx.ModelProto, contract: Contract, frame: NDArray[np.uint8]) -> Arrays:
    image = gapcam.preprocess(frame, contract.preprocessing)[None]
    names = [value.name for value in model.graph.output]
    return dict(zip(names, onnx_session(model).run(names, {"image": image}), strict=True))


def reference_answer(model: onnx.ModelProto, contract: Contract, frame: NDArray[np.uint8]) -> Arrays:
    """By ONNX's own evaluator, in NumPy, which has bfloat16."""
    image = gapcam.preprocess(frame, contract.preprocessing)[None]
    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, {"image": image}), strict=True))


def error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def assert_valid(half: onnx.ModelProto, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(half, full_check=True)
    assert list(half.graph.input) == list(model.graph.input)
    assert list(half.graph.output) == list(model.graph.output)
    assert list(half.metadata_props) == list(model.metadata_props)
    assert opset_of(half) >= 22


def test_onnx_runtime_rounds_to_bfloat16_as_ml_dtypes_does() -> None:
    """The emulation rests on this: to nearest, ties to even, also where nothing but Casts stands between operators."""
    random = np.random.default_rng(0)
    halves = random.integers(0, 2**16, 20_000, dtype=np.uint32) << 16
    bits = np.concatenate([halves | low for low in (0x7FFF, 0x8000, 0x8001)])  # below a tie, at it, above it
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, np.inf, -np.inf, 3.4e38, 1e-45, 1e-39])])
    values = values[np.isfinite(values) | np.isinf(values)]
    nodes = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Cast", ["minus"], ["half"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["half"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["back"], ["y"]),
    ]
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "rounding", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    (got,) = onnx_session(model).run(None, {"x": values})
    np.testing.assert_array_equal(got, rounded(values))


@pytest.mark.parametrize(
    "block", [half_networks.nothing, half_networks.normed_over_space(1e-6), half_networks.normed_to_length]
)
def test_the_emulation_answers_as_onnx_evaluates_the_model_itself(block: half_networks.Block, tmp_path: Path) -> None:
    model, contract = exported(tmp_path, block)
    half, emulation = to_bfloat16(model, head=head_nodes(model, contract), notes=[])
    assert_valid(half, model)
    for frame in FRAMES:
        got, expected = answer(emulation, contract, frame), reference_answer(half, contract, frame)
        np.testing.assert_array_equal(got["features"], expected["features"])
        np.testing.assert_array_equal(got["features"], rounded(got["features"]))
        assert error(got["logits"], expected["logits"]) <= 1e-6
        assert 1e-5 < error(got["features"], answer(model, contract, frame)["features"]) < 1e-2


def test_a_lowered_head_is_emulated_within_some_steps(tmp_path: Path) -> None:
    """ONNX's evaluator also sums in bfloat16, which no device does."""
    model, contract = exported(tmp_path, half_networks.nothing)
    odd = numpy_helper.from_array(half_networks.WEIGHTS * np.float32(1.001), "cam_weights")
    next(tensor for tensor in model.graph.initializer if tensor.name == "cam_weights").CopyFrom(odd)
    half, emulation = to_bfloat16(model, head=(), notes=[])
    assert_valid(half, model)
    for frame in FRAMES:
        got, expected = answer(emulation, contract, frame), reference_answer(half, contract, frame)
        np.testing.assert_array_equal(got["features"], expected["features"])
        np.testing.assert_array_equal(got["cam_weights"], rounded(numpy_helper.to_array(odd)))
        np.testing.assert_array_equal(got["cam_weights"], expected["cam_weights"])
        np.testing.assert_array_equal(got["logits"], rounded(got["logits"]))
        assert error(got["logits"], expected["logits"]) <= 3 * 2**-8


def test_all_but_the_head_is_bfloat16_in_opset_22(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing, emit=("maps", "topk"))
    before = model.SerializeToString()
    head = head_nodes(model, contract)
    notes: list[str] = []
    half, _ = to_bfloat16(model, head=head, notes=notes)
    assert (model.SerializeToString(), notes) == (before, [])
    assert_valid(half, model)
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    for node in half.graph.node:
        weights = {stored[name] for name in node.input if stored.get(name, TensorProto.INT64) != TensorProto.INT64}
        assert weights <= {TensorProto.FLOAT if node.name in head else TensorProto.BFLOAT16}, node.name
    assert Counter(stored.values())[TensorProto.BFLOAT16] == 1  # the convolution's filters
    operators = Counter(node.op_type for node in half.graph.node)
    assert operators - Counter(node.op_type for node in model.graph.node) == Counter(Cast=2)


BLOCKS: dict[str, tuple[half_networks.Block, str]] = {
    "a normalisation": (half_networks.normed_by_reciprocal, "Pow"),
    "an If": (half_networks.with_branches, "If"),
    "a Loop": (half_networks.with_loop, "Loop"),
    "a Resize": (half_networks.resized, ""),
    "large values": (half_networks.large, ""),
    "small variances": (half_networks.batch_normed, ""),
    "an operator that is not ONNX's": (half_networks.with_runtimes_own, "BiasGelu"),
}


@pytest.mark.parametrize("options", [{}, {"static_batch": True, "embed": True, "emit": ("maps", "topk")}])
@pytest.mark.parametrize("name", BLOCKS)
def test_what_stays_in_float32_is_named_and_the_answers_stay(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    block, kept = BLOCKS[name]
    model, contract = exported(tmp_path, block, **options)
    notes: list[str] = []
    half, emulation = to_bfloat16(model, head=head_nodes(model, contract), notes=notes)
    assert_valid(half, model)
    assert [kept in note for note in notes] == [True] * bool(kept)
    for frame in (*FRAMES, flat_frame()):
        got, expected = answer(emulation, contract, frame), answer(model, contract, frame)
        assert error(got["features"], expected["features"]) <= 0.02
        assert error(got["logits"], expected["logits"]) <= 0.02


def tolerance(head: Collection[str]) -> float:
    return identity_tolerance("bf16", "fp32" if head else "bf16")


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("networks:many_layers_in_head", (64, 64)),
        ("networks:normed_head", (64, 64)),
        ("networks:three_layers", (64, 64)),
        ("vision_transformers:averaged_without_its_registers", (64, 96)),
    ],
)
def test_every_kind_of_head_keeps_its_identity(source: str, size: tuple[int, int], tmp_path: Path) -> None:
    model, contract = exported_from(source, tmp_path, size=size, emit=("maps",))
    for head in (head_nodes(model, contract), ()):
        half, emulation = to_bfloat16(model, head=head, notes=[])
        assert_valid(half, model)
        measured = measure_identity(onnx_session(emulation), contract.preprocessing, FRAMES, 0.05)
        assert measured <= tolerance(head)


def test_tensorrt_has_no_hardswish_in_bfloat16_so_it_stays(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, lambda writing, x: writing.node("HardSwish", x))
    notes: list[str] = []
    half, _ = to_bfloat16(model, head=head_nodes(model, contract), notes=notes)
    assert_valid(half, model)
    assert notes == ["left in float32, since there is no bfloat16 form of them: HardSwish HardSwish_1"]


def test_old_files_are_brought_to_a_newer_opset(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = onnx_files.Variant(layout="nhwc", pixels=True, opset=9)
    source = onnx_files.write(tmp_path / "source.onnx", variant)
    model, contract = exported_from(str(source), tmp_path, size=onnx_files.SIZE)
    half, emulation = to_bfloat16(model, head=head_nodes(model, contract), notes=[])
    assert opset_of(half) == 22
    got = answer(emulation, contract, cat)
    maps = np.einsum("kc,cyx->kyx", got["cam_weights"], got["features"][0])
    assert error(maps, onnx_files.oracle(cat, contract.preprocessing, variant)) <= 0.02


def test_an_operator_that_onnx_cannot_bring_to_a_newer_opset_is_refused_in_one_line(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Unheard"
    with pytest.raises(ModelError, match=r"bfloat16 needs operators of opset 22.*--opset 22") as caught:
        to_bfloat16(model, head=head_nodes(model, contract), notes=[])
    assert "\n" not in str(caught.value)


def test_a_models_own_functions_are_refused_until_they_are_inlined(tmp_path: Path) -> None:
    model, contract = exported(tmp_path, half_networks.nothing)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Own", "here"
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("here", "Own", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("here", 1))
    head = head_nodes(model, contract)
    with pytest.raises(ModelError, match=r"own functions \(Own\).*inline_local_functions"):
        to_bfloat16(model, head=head, notes=[])
    inlined = onnx.inliner.inline_local_functions(model)
    name_nodes(inlined)
    half, _ = to_bfloat16(inlined, head=head_nodes(inlined, contract), notes=[])
    onnx.checker.check_model(half, full_check=True)


def test_a_constant_that_nodes_of_both_kinds_read_is_rounded_for_those_in_half_precision_alone(tmp_path: Path) -> None:
    model, _ = exported(tmp_path, half_networks.nothing)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.001), "shared"))
    model.graph.node.append(helper.make_node("Mul", [conv.output[0], "shared"], ["low"], name="lowered"))
    model.graph.node.append(helper.make_node("Mul", [relu.output[0], "shared"], ["high"], name="kept"))
    shape = ["n", half_networks.CHANNELS, 8, 8]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("low", "high"))
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    kept = {node.name for node in model.graph.node} - {"lowered"}
    dtypes = {name: TensorProto.FLOAT for node in model.graph.node for name in node.output}
    emulation = emulate(model, kept, dtypes, TensorProto.BFLOAT16)
    names = ["low", "high", "features"]
    low, high, features = onnx_session(emulation).run(names, {"image": image})
    np.testing.assert_array_equal(high, features * np.float32(1.001))
    assert rounded(np.float32(1.001)) == 1
    np.testing.assert_array_equal(np.maximum(low, 0), rounded(features))


def test_imagenets_images_have_the_same_classes_and_boxes_in_bfloat16(
    demo_model: Path, data: Path, tmp_path: Path
) -> None:
    model = onnx.load(demo_model)
    name_nodes(model)
    with (data / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "check"]
    paths = [data / row["file"] for row in rows[::10]]
    with gapcam.load(demo_model) as session:
        contract, reference = session.contract, answers(session, paths)
    half, emulation = to_bfloat16(model, head=head_nodes(model, contract), notes=[])
    assert_valid(half, model)
    assert half.ByteSize() < 0.65 * model.ByteSize()
    onnx.save(emulation, tmp_path / "emulation.onnx")
    with gapcam.load(tmp_path / "emulation.onnx") as session:
        fidelity = compare(reference, session, paths).summary()
    assert fidelity.top1_agreement >= 0.95
    assert fidelity.box_iou >= 0.96
    assert fidelity.map_pearson >= 0.995
    assert fidelity.logit_error > 0.005  # it was rounded
