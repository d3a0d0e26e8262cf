"""ONNX files as sources: somebody else's, of other exporters, and gapcam's own given back."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from calibration_images import write_photographs
from networks import gap_network, with_softmax
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

import gapcam
import gapcam_export
from gapcam.contract import HeadKind, Precision
from gapcam.errors import ContractError, ModelError, UsageError
from gapcam_export import PrecisionOptions

RANDOM = np.random.default_rng(5)


def constant(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RANDOM.standard_normal(shape).astype(np.float32), name)


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    *,
    image: tuple[int | str, ...] = ("n", 3, 32, 48),
    outputs: tuple[str, ...] = ("out",),
    opset: int = 17,
    ir_version: int = 8,
    listed_inputs: tuple[onnx.ValueInfoProto, ...] = (),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, image), *listed_inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), path)
    return path


def convolution() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """data -> f [N,6,8,12], by operators of every opset."""
    nodes = [
        helper.make_node("Conv", ["data", "w"], ["c"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Relu", ["c"], ["f"]),
    ]
    return nodes, [constant("w", 6, 3, 4, 4)]


def maps_of(path: Path, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    with gapcam.load(path) as session:
        return session(frame).maps(range(len(session.labels)))


@pytest.mark.parametrize("exporter", ["torch.export", "TorchScript"])
def test_somebodys_file_of_a_network_gives_the_maps_of_the_network(
    exporter: str, tmp_path: Path, cat: NDArray[np.uint8]
) -> None:
    dynamic: dict[str, object] = {"dynamo": True, "dynamic_shapes": ({0: "n"},)}
    if exporter == "TorchScript":
        dynamic = {"dynamo": False, "dynamic_axes": {"data": {0: "n"}}, "opset_version": 13}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated; the files that it wrote are not
        torch.onnx.export(
            gap_network(),
            (torch.zeros(2, 3, 64, 64),),
            tmp_path / "theirs.onnx",
            input_names=["data"],
            output_names=["scores"],
            verbose=False,
            **dynamic,
        )
    gapcam_export.export("networks:gap_network", tmp_path / "direct.onnx", size=(64, 64))
    report = gapcam_export.export(str(tmp_path / "theirs.onnx"), tmp_path / "from_onnx.onnx")

    assert [tensor.name for tensor in report.outputs] == ["scores", "logits", "features", "cam_weights", "cam_bias"]
    assert "the input 'data' is now called 'image'" in report.notes
    np.testing.assert_allclose(
        maps_of(tmp_path / "from_onnx.onnx", cat), maps_of(tmp_path / "direct.onnx", cat), atol=1e-6
    )


def test_a_model_given_back_to_the_export_gives_the_same_model(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    first = gapcam_export.export(
        "networks:gap_network", tmp_path / "1.onnx", size=(64, 64), mean=(0.1, 0.2, 0.3), emit=("maps", "topk"),
        embed=True,
    )  # fmt: skip
    second = gapcam_export.export(str(tmp_path / "1.onnx"), tmp_path / "2.onnx")
    assert [tensor.name for tensor in second.outputs] == ["logits", "features", "cam_weights", "cam_bias"]
    assert second.contract.preprocessing == first.contract.preprocessing
    np.testing.assert_array_equal(maps_of(tmp_path / "1.onnx", cat), maps_of(tmp_path / "2.onnx", cat))


@pytest.mark.parametrize(
    ("source", "kind"),
    [("networks:normed_head", HeadKind.LAYERNORM), ("networks:three_layers", HeadKind.NONLINEAR)],
)
def test_a_file_with_another_head_that_was_exported_before_is_exported_again(
    tmp_path: Path, source: str, kind: HeadKind
) -> None:
    first = gapcam_export.export(source, tmp_path / "model.onnx", size=(64, 64), emit=("maps", "topk"))
    again = gapcam_export.export(str(tmp_path / "model.onnx"), tmp_path / "again.onnx", emit=("maps", "topk"))
    assert again.contract.head.kind is kind
    assert again.outputs == first.outputs
    assert abs(again.size_bytes - first.size_bytes) < 300  # the names of where they come from differ


def test_outputs_that_were_there_keep_their_names_and_values_to_the_last_digits(tmp_path: Path) -> None:
    nodes, constants = convolution()
    nodes += [
        helper.make_node("GlobalAveragePool", ["f"], ["features"]),  # an inner name that the contract uses otherwise
        helper.make_node("Flatten", ["features"], ["cam_weights"]),
        helper.make_node("MatMul", ["cam_weights", "w2"], ["m"]),
        helper.make_node("Add", ["m", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"], axis=1),
    ]
    path = write_model(tmp_path / "a.onnx", nodes, [*constants, constant("w2", 6, 4), constant("b2", 4)])
    gapcam_export.export(str(path), tmp_path / "b.onnx")
    image = RANDOM.standard_normal((3, 3, 32, 48)).astype(np.float32)
    before = ort.InferenceSession(path).run(["out"], {"data": image})[0]
    after, logits = ort.InferenceSession(tmp_path / "b.onnx").run(["out", "logits"], {"image": image})
    np.testing.assert_allclose(after, before, rtol=1e-6)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), before, rtol=1e-5)


def test_a_softmax_at_the_end_is_seen_and_the_logits_before_it_are_used(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    report = gapcam_export.export("networks:with_softmax", tmp_path / "model.onnx", size=(64, 64))
    assert any("ends in a Softmax" in note for note in report.notes)
    with gapcam.load(tmp_path / "model.onnx") as session, torch.no_grad():
        result = session(cat)
        image = torch.from_numpy(gapcam.preprocess(cat, session.contract.preprocessing))[None]
        np.testing.assert_allclose(result.scores, with_softmax()(image)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "pooling",
    [
        [helper.make_node("GlobalAveragePool", ["f"], ["p"])],
        [helper.make_node("AveragePool", ["f"], ["p"], kernel_shape=[8, 12])],
        [helper.make_node("ReduceMean", ["f"], ["p"], axes=[2, 3], keepdims=0)],
        [
            helper.make_node("ReduceMean", ["f"], ["q"], axes=[3]),
            helper.make_node("ReduceMean", ["q"], ["p"], axes=[2]),
        ],
        [
            helper.make_node("ReduceSum", ["f", "axes"], ["s"], keepdims=0),
            helper.make_node("Div", ["s", "count"], ["p"]),
        ],
    ],
    ids=["GlobalAveragePool", "AveragePool", "ReduceMean", "two means", "sum over count"],
)
@pytest.mark.parametrize("head", ["Gemm", "MatMul", "Conv"])
def test_however_pooling_and_head_are_written_they_are_found(
    tmp_path: Path, pooling: list[onnx.NodeProto], head: str
) -> None:
    nodes, constants = convolution()
    nodes += pooling
    constants += [
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(np.float32(96), "count"),
        numpy_helper.from_array(np.array([0, 6, 1, 1]), "as_image"),
    ]
    if head == "Conv":
        nodes.append(helper.make_node("Reshape", ["p", "as_image"], ["v"]))
        nodes.append(helper.make_node("Conv", ["v", "w2"], ["c2"]))
        nodes.append(helper.make_node("Flatten", ["c2"], ["out"]))
        constants.append(constant("w2", 4, 6, 1, 1))
    else:
        nodes.append(helper.make_node("Flatten", ["p"], ["v"]))
        nodes.append(helper.make_node(head, ["v", "w2"], ["out"]))
        constants.append(constant("w2", 6, 4))
    report = gapcam_export.export(str(write_model(tmp_path / "a.onnx", nodes, constants)), tmp_path / "b.onnx")
    assert report.contract.head.kind is HeadKind.AFFINE
    assert report.contract.head.tapped == "f"
    w2 = next(numpy_helper.to_array(tensor) for tensor in constants if tensor.name == "w2").reshape(
        -1, 4 if head != "Conv" else 6
    )
    weights = ort.InferenceSession(tmp_path / "b.onnx").run(
        ["cam_weights"], {"image": np.zeros((1, 3, 32, 48), np.float32)}
    )[0]
    np.testing.assert_array_equal(weights, w2 if head == "Conv" else w2.T)  # read bit for bit


def test_class_maps_need_no_weights(tmp_path: Path) -> None:
    nodes, constants = convolution()
    nodes += [helper.make_node("GlobalAveragePool", ["f"], ["p"]), helper.make_node("Flatten", ["p"], ["out"])]
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("maps", "topk"), topk=2)
    assert report.contract.head.kind is HeadKind.CLASS_MAPS
    assert "cam_weights" not in [tensor.name for tensor in report.outputs]
    image = RANDOM.standard_normal((2, 3, 32, 48)).astype(np.float32)
    logits, features, maps, classes, best = ort.InferenceSession(tmp_path / "b.onnx").run(
        ["logits", "features", "maps", "topk_classes", "topk_maps"], {"image": image}
    )
    np.testing.assert_array_equal(maps, features)
    np.testing.assert_allclose(features.mean(axis=(2, 3)), logits, rtol=1e-5)
    np.testing.assert_array_equal(best, np.stack([features[n, classes[n]] for n in range(2)]))


def test_a_fixed_batch_stays_fixed(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    nodes, constants = convolution()
    nodes += [
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["v"]),
        helper.make_node("Gemm", ["v", "w2"], ["out"]),
    ]
    constants += [constant("w2", 6, 4), numpy_helper.from_array(np.array([1, 6]), "shape")]
    path = write_model(tmp_path / "a.onnx", nodes, constants, image=(1, 3, 32, 48))
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("topk",), topk=2)
    assert str(report.inputs[0]) == "image [1,3,32,48] float"
    with gapcam.load(tmp_path / "b.onnx") as session:
        assert len(session.batch([cat, cat, cat])) == 3


def test_any_size_becomes_the_one_that_is_asked_for(tmp_path: Path) -> None:
    nodes, constants = convolution()
    nodes += [
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("Gemm", ["v", "w2"], ["out"]),
    ]
    path = write_model(tmp_path / "a.onnx", nodes, [*constants, constant("w2", 6, 4)], image=("n", 3, "h", "w"))
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", size=(40, 64))
    assert str(report.inputs[0]) == "image [n,3,40,64] float"
    assert report.contract.preprocessing.size == (40, 64)
    with pytest.raises(UsageError, match=r"takes images of 40x64 only"):
        gapcam_export.export(str(tmp_path / "b.onnx"), tmp_path / "c.onnx", size=(32, 32))


def test_global_max_pooling_is_refused_with_the_papers_reason(tmp_path: Path) -> None:
    with pytest.raises(gapcam_export.HeadError, match=r"pooled by their maximum\. A maximum looks at one point"):
        gapcam_export.export("networks:max_pooled", tmp_path / "model.onnx", size=(64, 64))


def test_several_outputs_are_refused_by_name(tmp_path: Path) -> None:
    nodes, constants = convolution()
    nodes += [helper.make_node("GlobalAveragePool", ["f"], ["p"]), helper.make_node("Flatten", ["p"], ["out"])]
    path = write_model(tmp_path / "a.onnx", nodes, constants, outputs=("out", "f"))
    with pytest.raises(gapcam_export.SourceError, match=r"2 outputs \(out, f\)"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


def test_an_input_that_is_no_image_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["data"], ["out"])]
    path = write_model(tmp_path / "a.onnx", nodes, [], image=("n", 10))
    with pytest.raises(gapcam_export.SourceError, match=r"takes data \[n,10\] float; expected one image"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x00" * 5000])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(gapcam_export.SourceError, match=r"a\.onnx is no ONNX model"):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def test_a_truncated_model_is_refused(tmp_path: Path, demo_model: Path) -> None:
    content = demo_model.read_bytes()
    for part in (0.3, 0.9, 0.999):
        (tmp_path / "a.onnx").write_bytes(content[: int(len(content) * part)])
        with pytest.raises(gapcam_export.SourceError, match=r"a\.onnx is no"):
            gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def test_an_operator_that_the_runtime_does_not_know_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sparkle", ["data"], ["out"], domain="made.up")]
    path = write_model(tmp_path / "a.onnx", nodes, [])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("made.up", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="Sparkle"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


def test_a_contract_of_a_newer_version_is_refused(tmp_path: Path, demo_model: Path) -> None:
    model = onnx.load(demo_model)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "gapcam")
    entry.value = entry.value.replace('"contract":1', '"contract":2')
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ContractError, match="version 2 of the contract; this gapcam knows version 1"):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def gap_and_gemm() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """data -> f -> p -> v -> out [N,4]."""
    nodes, constants = convolution()
    nodes += [
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("Gemm", ["v", "w2", "b2"], ["out"]),
    ]
    return nodes, [*constants, constant("w2", 6, 4), constant("b2", 4)]


@pytest.mark.parametrize(("ir_version", "opset"), [(3, 8), (4, 9), (8, 17)])
def test_initializers_may_stand_among_the_inputs(tmp_path: Path, ir_version: int, opset: int) -> None:
    nodes, constants = gap_and_gemm()
    listed = tuple(helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants)
    path = write_model(tmp_path / "a.onnx", nodes, constants, opset=opset, ir_version=ir_version, listed_inputs=listed)
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("maps",))
    assert [tensor.name for tensor in report.inputs] == ["image"]
    gapcam.load(tmp_path / "b.onnx").close()


@pytest.mark.parametrize(
    ("data", "f", "p", "out"),
    [
        ("logits", "f", "p", "image"),
        ("features", "logits", "image", "cam_weights"),
        ("data", "cam_bias", "features", "logits"),
        ("topk_maps", "image", "logits", "maps"),
    ],
)
def test_names_that_the_contract_uses_otherwise_are_moved_out_of_the_way(
    tmp_path: Path, data: str, f: str, p: str, out: str
) -> None:
    nodes, constants = gap_and_gemm()
    names = {"data": data, "f": f, "p": p, "out": out}
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    model = onnx.load(path)
    for old, new in names.items():
        for node in model.graph.node:
            for field in (node.input, node.output):
                field[:] = [f"_{new}" if name == old else name for name in field]
    model.graph.input[0].name, model.graph.output[0].name = f"_{data}", f"_{out}"
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [name.removeprefix("_") for name in field]
    model.graph.input[0].name, model.graph.output[0].name = data, out
    onnx.save(model, path)

    image = RANDOM.standard_normal((3, 3, 32, 48)).astype(np.float32)
    (before,) = ort.InferenceSession(path).run([out], {data: image})
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("maps", "topk"))
    after = ort.InferenceSession(tmp_path / "b.onnx").run(["logits"], {"image": image})[0]
    np.testing.assert_allclose(after, before, rtol=1e-6)
    if out != "logits":
        assert any(f"the output {out!r} is now called" in note for note in report.notes)
    gapcam.load(tmp_path / "b.onnx").close()


@pytest.mark.parametrize("ending", ["Softmax", "[N,K,1,1]", "Softmax and a Cast"])
def test_an_output_called_logits_that_is_something_else_is_renamed_and_said(tmp_path: Path, ending: str) -> None:
    nodes, constants = gap_and_gemm()
    if ending == "Softmax":
        nodes.append(helper.make_node("Softmax", ["out"], ["logits"], axis=1))
    elif ending == "[N,K,1,1]":
        nodes.append(helper.make_node("Reshape", ["out", "shape"], ["logits"]))
        constants.append(numpy_helper.from_array(np.array([0, 4, 1, 1]), "shape"))
    else:
        nodes.append(helper.make_node("Softmax", ["out"], ["s"], axis=1))
        nodes.append(helper.make_node("Cast", ["s"], ["logits"], to=TensorProto.FLOAT))
    path = write_model(tmp_path / "a.onnx", nodes, constants, outputs=("logits",))
    report = gapcam_export.export(str(path), tmp_path / "b.onnx")
    assert any("is now called 'logits_source'" in note for note in report.notes)
    image = RANDOM.standard_normal((2, 3, 32, 48)).astype(np.float32)
    (before,) = ort.InferenceSession(path).run(None, {"data": image})
    logits, after = ort.InferenceSession(tmp_path / "b.onnx").run(["logits", "logits_source"], {"image": image})
    np.testing.assert_array_equal(after, before)
    assert logits.shape == (2, 4)


def test_layers_that_were_folded_stay_and_with_them_every_bit_of_the_outputs(tmp_path: Path) -> None:
    nodes, constants = convolution()
    nodes += [
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("Gemm", ["v", "w2"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w3", "b3"], ["out"]),
    ]
    constants += [constant("w2", 6, 512), constant("w3", 512, 3), constant("b3", 3)]
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    gapcam_export.export(str(path), tmp_path / "b.onnx")
    image = RANDOM.standard_normal((5, 3, 32, 48)).astype(np.float32)
    (before,) = ort.InferenceSession(path).run(None, {"data": image})
    (after,) = ort.InferenceSession(tmp_path / "b.onnx").run(["out"], {"image": image})
    np.testing.assert_array_equal(after, before)


def test_a_sequence_of_tensors_in_the_network_does_no_harm(tmp_path: Path) -> None:
    nodes, constants = gap_and_gemm()
    nodes[1:2] = [
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("SplitToSequence", ["r", "one"], ["parts"], axis=1),
        helper.make_node("ConcatFromSequence", ["parts"], ["f"], axis=1),
    ]
    constants.append(numpy_helper.from_array(np.array(1), "one"))
    report = gapcam_export.export(str(write_model(tmp_path / "a.onnx", nodes, constants)), tmp_path / "b.onnx")
    assert report.contract.head.tapped == "r"  # before the sequence, which changes nothing


def test_a_fixed_batch_of_several_is_refused_with_the_way_out(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    nodes, constants = gap_and_gemm()
    path = write_model(tmp_path / "a.onnx", nodes, constants, image=(4, 3, 32, 48))
    with pytest.raises(gapcam_export.SourceError, match=r"takes 4 images at a time.*--static-batch"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")
    gapcam_export.export(str(path), tmp_path / "b.onnx", static_batch=True)
    with gapcam.load(tmp_path / "b.onnx") as session:
        assert len(session(cat).top) == 4


def test_a_symbol_that_says_nothing_is_not_taken_for_the_batch(tmp_path: Path) -> None:
    nodes, constants = gap_and_gemm()
    path = write_model(tmp_path / "a.onnx", nodes, constants, image=("?", 3, "?", "?"))
    report = gapcam_export.export(str(path), tmp_path / "b.onnx", size=(32, 48))
    assert str(report.inputs[0]) == "image [batch,3,32,48] float"
    images = RANDOM.standard_normal((2, 3, 32, 48)).astype(np.float32)
    assert ort.InferenceSession(tmp_path / "b.onnx").run(["logits"], {"image": images})[0].shape == (2, 4)


def test_nothing_of_the_machine_that_exported_stays_in_the_file(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            gap_network(), (torch.zeros(1, 3, 64, 64),), tmp_path / "theirs.onnx", dynamo=True, verbose=False
        )
    folder = str(Path(__file__).parent).encode()
    assert folder in (tmp_path / "theirs.onnx").read_bytes()
    gapcam_export.export(str(tmp_path / "theirs.onnx"), tmp_path / "from_onnx.onnx")
    gapcam_export.export("networks:gap_network", tmp_path / "from_torch.onnx", size=(64, 64))
    for name in ("from_onnx.onnx", "from_torch.onnx"):
        content = (tmp_path / name).read_bytes()
        assert folder not in content
        assert b"site-packages" not in content
        assert str(tmp_path).encode() not in content


@pytest.mark.parametrize("name", ["w", "w2", "b2"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, name: str) -> None:
    nodes, constants = gap_and_gemm()
    constants = [
        numpy_helper.from_array(np.full(c.dims, np.nan, np.float32), c.name) if c.name == name else c for c in constants
    ]
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    with pytest.raises(ModelError, match=rf"NaN or infinity for noise\. The constants {name} hold some"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


@pytest.mark.parametrize("place", ["head", "body"])
def test_a_quantised_model_is_refused_as_one(tmp_path: Path, place: str) -> None:
    nodes, constants = gap_and_gemm()
    before, index, after = ("v", -1, "d") if place == "head" else ("data", 0, "d")
    nodes[index].input[0] = after
    pair = [
        helper.make_node("QuantizeLinear", [before, "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    ]
    at = len(nodes) + index if index else 0
    constants += [
        numpy_helper.from_array(np.float32(0.01), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
    ]
    path = write_model(tmp_path / "a.onnx", [*nodes[:at], *pair, *nodes[at:]], constants)
    with pytest.raises(
        gapcam_export.SourceError, match=r"a\.onnx is quantised \(it has DequantizeLinear nodes\); .*gapcam quantize"
    ):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


@pytest.mark.filterwarnings("ignore")  # of ONNX Runtime's quantiser
def test_a_model_that_onnx_runtime_quantised_dynamically_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.onnx", *gap_and_gemm())
    quantize_dynamic(path, tmp_path / "dynamic.onnx")
    with pytest.raises(gapcam_export.SourceError, match=r"is quantised \(it has ConvInteger nodes\)"):
        gapcam_export.export(str(tmp_path / "dynamic.onnx"), tmp_path / "b.onnx")


@pytest.mark.parametrize("dtype", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4])
@pytest.mark.parametrize("is_constant_node", [False, True])
def test_weights_that_are_stored_as_integers_and_cast_are_refused(
    tmp_path: Path, dtype: int, is_constant_node: bool
) -> None:
    nodes, constants = gap_and_gemm()
    values = RANDOM.integers(0, 7, (4, 4, 3, 6))
    few = helper.make_tensor("few", dtype, values.shape, values.ravel().tolist())
    nodes[:0] = [
        helper.make_node("Transpose", ["few"], ["transposed"], perm=[3, 2, 0, 1]),
        helper.make_node("Cast", ["transposed"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "step"], ["w"]),
    ]
    constants = [each for each in constants if each.name != "w"] + [constant("step", 6, 1, 1, 1)]
    if is_constant_node:
        nodes.insert(0, helper.make_node("Constant", [], ["few"], value=few))
    else:
        constants.append(few)
    path = write_model(tmp_path / "a.onnx", nodes, constants, opset=21, ir_version=10)
    name = TensorProto.DataType.Name(dtype).lower()
    with pytest.raises(gapcam_export.SourceError, match=rf"is quantised \(it has {name} weights 'few'\)"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


def test_a_network_in_pytorch_with_integers_for_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "integers.py").write_text(
        """import torch
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 32, 4, 4), torch.nn.Linear(32, 5)
        self.register_buffer("integers", torch.randint(-127, 127, (32, 32, 3, 3)).to(torch.int8))
    def forward(self, image):
        maps = torch.nn.functional.conv2d(self.first(image), self.integers.float() * 0.01)
        return self.last(torch.relu(maps).mean((2, 3)))
"""
    )
    with pytest.raises(gapcam_export.SourceError, match=r"integers\.py:Network is quantised \(it has int8 weights"):
        gapcam_export.export(f"{tmp_path / 'integers.py'}:Network", tmp_path / "b.onnx", size=(64, 64))


@pytest.mark.parametrize("operator", ["MatMulNBits", "DynamicQuantizeMatMul"])
def test_onnx_runtimes_own_quantised_operators_are_refused(tmp_path: Path, operator: str) -> None:
    nodes, constants = gap_and_gemm()
    nodes[-1] = helper.make_node(operator, ["v", "w2"], ["out"], domain="com.microsoft")
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    with pytest.raises(gapcam_export.SourceError, match=f"it has {operator} nodes"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")


def test_integers_that_are_no_weights_are_no_quantisation(tmp_path: Path) -> None:
    """A mean pixel, an order of channels, and one factor for all weights."""
    nodes, constants = gap_and_gemm()
    nodes[0].input[0], nodes[0].input[1] = "channels", "factored"
    nodes[:0] = [
        helper.make_node("Cast", ["mean"], ["float_mean"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["data", "float_mean"], ["centred"]),
        helper.make_node("Cast", ["order"], ["indices"], to=TensorProto.INT64),
        helper.make_node("Gather", ["centred", "indices"], ["channels"], axis=1),
        helper.make_node("Gather", ["w", "indices"], ["reordered"], axis=1),
        helper.make_node("Cast", ["two"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["reordered", "factor"], ["factored"]),
    ]
    constants += [
        numpy_helper.from_array(np.array([124, 116, 104], np.uint8).reshape(1, 3, 1, 1), "mean"),
        numpy_helper.from_array(np.array([2, 1, 0], np.uint8), "order"),
        numpy_helper.from_array(np.int8(2), "two"),
    ]
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    report = gapcam_export.export(str(path), tmp_path / "b.onnx")
    assert report.contract.precision == "fp32"


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_what_gapcam_lowered_is_refused_with_what_to_give(tmp_path: Path, precision: Precision) -> None:
    path = write_model(tmp_path / "a.onnx", *gap_and_gemm())
    photographs = write_photographs(tmp_path / "photographs", 16, 64)
    options = PrecisionOptions(precision=precision, calibrate=photographs if precision == "int8" else None)
    gapcam_export.export(str(path), tmp_path / "lowered.onnx", precision=options)
    expected = rf"lowered\.onnx is in {precision} already; give the float32 model that it was made from"
    with pytest.raises(gapcam_export.SourceError, match=expected):
        gapcam_export.export(str(tmp_path / "lowered.onnx"), tmp_path / "b.onnx")


def test_topk_in_an_old_opset_is_refused_with_the_opset_it_needs(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.onnx", *gap_and_gemm(), opset=9)
    with pytest.raises(UsageError, match="topk needs operators of opset 10; the model has opset 9"):
        gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("topk",))
    gapcam_export.export(str(path), tmp_path / "b.onnx", emit=("maps",))


def test_weights_in_another_file_are_read_from_beside_the_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "whole.onnx", *gap_and_gemm())
    (tmp_path / "beside").mkdir()
    onnx.save(
        onnx.load(path), tmp_path / "beside" / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0
    )
    gapcam_export.export(str(tmp_path / "beside" / "a.onnx"), tmp_path / "b.onnx")
    assert not [tensor for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer if tensor.external_data]
    (tmp_path / "beside" / "a.bin").unlink()
    with pytest.raises(
        gapcam_export.SourceError, match=r"keeps the weights 'w' in 'a\.bin', and there is no such file"
    ):
        gapcam_export.export(str(tmp_path / "beside" / "a.onnx"), tmp_path / "b.onnx")


def test_a_model_needs_no_suffix(tmp_path: Path) -> None:
    path = write_model(tmp_path / "A MODEL", *gap_and_gemm())
    assert gapcam_export.export(str(path), tmp_path / "b.onnx").contract.source.spec == "A MODEL"


def test_a_network_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path) -> None:
    nodes, constants = gap_and_gemm()
    nodes[-1].output[0] = "all"
    nodes.append(helper.make_node("ReduceSum", ["all", "axis"], ["out"], keepdims=0))
    constants.append(numpy_helper.from_array(np.array([0]), "axis"))
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    with pytest.raises(ModelError, match=r"the output is \[4\] for 3 images; expected \[N,K\]"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")

    nodes, constants = gap_and_gemm()
    nodes[2] = helper.make_node("ReduceMean", ["f"], ["p"], axes=[0, 2, 3], keepdims=1)
    path = write_model(tmp_path / "a.onnx", nodes, constants)
    with pytest.raises(ModelError, match=r"the output is \[1, 4\] for 3 images; expected \[N,K\]"):
        gapcam_export.export(str(path), tmp_path / "b.onnx")
