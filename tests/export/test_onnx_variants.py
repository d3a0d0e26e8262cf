"""Classifiers as ONNX files of many kinds: each one's maps are those that NumPy computes from its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_files import CLASSES, NAMES, SIZE, Variant, newest_opset, oracle, write

import gapcam
import gapcam_export
from gapcam.contract import Preprocessing
from gapcam.errors import ModelError

NEWEST = newest_opset()


def exported(tmp_path: Path, variant: Variant, **options: Any) -> gapcam_export.Report:
    write(tmp_path / "a.onnx", variant)
    if variant.shape in ("sizes", "asked"):
        options.setdefault("size", SIZE)
    return gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx", **options)


def assert_maps_are_right(tmp_path: Path, frame: NDArray[np.uint8], variant: Variant, **options: Any) -> Any:
    """Export a variant, load it, and compare every class's map with the oracle's."""
    report = exported(tmp_path, variant, **options)
    with gapcam.load(tmp_path / "b.onnx") as session:
        got = session(frame).maps(range(CLASSES))
    wanted = oracle(frame, report.contract.preprocessing, variant)
    np.testing.assert_allclose(got, wanted, atol=2e-6 * np.abs(wanted).max())
    return report


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset_that_the_runtime_knows_goes_through(tmp_path: Path, cat: NDArray[np.uint8], opset: int) -> None:
    variant = Variant(layout="nhwc", opset=opset, end="Softmax")
    emit = ("features", "topk") if opset >= 10 else ("features",)
    assert assert_maps_are_right(tmp_path, cat, variant, emit=emit).opset == opset


def test_an_opset_that_the_runtime_does_not_know_is_refused_with_the_newest_that_it_does(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"ONNX Runtime .* cannot load the model.*{NEWEST}"):
        exported(tmp_path, Variant(opset=NEWEST + 1))


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "nhwc-scaled"])
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
@pytest.mark.parametrize("shape", ["static", "batch", "sizes", "asked"])
def test_every_layout_of_the_input_becomes_that_of_the_contract(
    tmp_path: Path, cat: NDArray[np.uint8], layout: str, pixels: bool, shape: str
) -> None:
    report = assert_maps_are_right(tmp_path, cat, Variant(layout=layout, pixels=pixels, shape=shape))
    batch = 1 if shape == "static" else "n"
    wanted = (batch, *SIZE, 3) if pixels else (batch, 3, *SIZE)
    assert [(tensor.name, tensor.shape) for tensor in report.inputs] == [("image", wanted)]
    if layout == "nhwc" and not pixels:  # the graph began with the Transpose that the contract makes needless
        assert "Transpose" not in [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node]
    if pixels:
        assert any("takes uint8 pixels, so its preprocessing was taken to be in it" in note for note in report.notes)
        assert report.contract.preprocessing.embedded


def test_a_network_that_scales_pixels_itself_gets_pixels(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = Variant(layout="nhwc-scaled")
    report = assert_maps_are_right(tmp_path, cat, variant)
    assert any("scales its input itself (Mul by 0.007812): pixel values 0..255" in note for note in report.notes)
    pixels = gapcam.preprocess(cat, report.contract.preprocessing)
    assert pixels.max() > 200
    np.testing.assert_array_equal(pixels, np.rint(pixels))
    # What the other note says by hand comes to the same, and what is given is not overruled.
    said = exported(tmp_path, variant, mean=(0, 0, 0), std=(0.00392157,) * 3).contract.preprocessing
    np.testing.assert_allclose(gapcam.preprocess(cat, said), pixels, rtol=1e-6)
    assert exported(tmp_path, variant, std=(0.5, 0.5, 0.5)).contract.preprocessing.std == (0.5, 0.5, 0.5)


def test_a_network_of_pixels_takes_another_color_and_resize_and_no_mean(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = Variant(layout="nhwc", pixels=True)
    report = assert_maps_are_right(tmp_path, cat, variant, color="bgr", resize="letterbox")
    assert (report.contract.preprocessing.color, report.contract.preprocessing.resize) == ("bgr", "letterbox")
    with pytest.raises(gapcam.UsageError, match="mean cannot be changed there"):
        exported(tmp_path, variant, mean=(0.5, 0.5, 0.5))


def test_what_the_page_says_of_keras_gives_its_numbers(cat: NDArray[np.uint8]) -> None:
    """The modes "tf" and "caffe" of keras.applications' preprocess_input, whose constants these are."""
    frame = np.ascontiguousarray(cat[:40, :60])  # BGR
    pixel = (0.00392157, 0.00392157, 0.00392157)
    half = (0.5, 0.5, 0.5)
    for preprocessing, wanted in (
        (Preprocessing(size=(40, 60), mean=half, std=half), frame[:, :, ::-1] / 127.5 - 1),
        (
            Preprocessing(size=(40, 60), color="bgr", mean=(0.407604, 0.457957, 0.48502), std=pixel),
            frame - np.array([103.939, 116.779, 123.68]),
        ),
    ):
        np.testing.assert_allclose(gapcam.preprocess(frame, preprocessing), wanted.transpose(2, 0, 1), atol=5e-4)


def test_any_size_without_size_is_assumed_and_said(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    report = assert_maps_are_right(tmp_path, cat, Variant(layout="nhwc", shape="asked"), size=None)
    assert report.contract.preprocessing.size == (224, 224)
    assert any("takes images of any size; 224x224 was assumed" in note for note in report.notes)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_that_are_only_stored_in_less_stay_so(tmp_path: Path, cat: NDArray[np.uint8], stored: str) -> None:
    report = assert_maps_are_right(tmp_path, cat, Variant(layout="nhwc", stored=stored))
    assert report.contract.verification.source_tolerance == 1e-6
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert getattr(TensorProto, stored.upper()) in types


@pytest.mark.parametrize("fed", ["float32", "float16"])
@pytest.mark.parametrize("end", ["logits", "Softmax", "Softmax-Cast", "all"])
def test_a_network_in_float16_is_computed_in_float32(
    tmp_path: Path, cat: NDArray[np.uint8], fed: str, end: str
) -> None:
    variant = Variant(layout="nhwc-scaled", stored="float16", computed="float16", fed=fed, end=end)
    report = assert_maps_are_right(tmp_path, cat, variant)
    assert any("computes in float16; the exported model computes in float32" in note for note in report.notes)
    assert str(report.inputs[0]) == "image [n,3,32,48] float"
    assert TensorProto.FLOAT16 not in {t.data_type for t in onnx.load(tmp_path / "b.onnx").graph.initializer}
    assert "float16" not in {tensor.dtype for tensor in report.outputs}
    measured = report.contract.verification
    assert measured.source_error < measured.source_tolerance == 1e-2
    if end != "Softmax-Cast":  # where the end is in float32, ONNX Runtime leaves out the rounding before it
        assert measured.source_error > 0


def test_a_wrong_weight_is_no_rounding_of_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a float16 source against its float32 form fails where that form is wrong."""
    from gapcam_export import classifier

    def to_wrong_float32(model: onnx.ModelProto) -> None:
        right(model)
        filters = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        changed = numpy_helper.to_array(filters).copy()
        changed[0] += 0.25
        filters.CopyFrom(numpy_helper.from_array(changed, filters.name))

    right = classifier.to_float32
    monkeypatch.setattr(classifier, "to_float32", to_wrong_float32)
    with pytest.raises(gapcam.VerificationError, match=r"at most 1e-02 was expected\. Nothing was written"):
        exported(tmp_path, Variant(stored="float16", computed="float16"))


def test_constants_in_nodes_and_in_subgraphs_leave_float16_too(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = Variant(stored="float16", computed="float16")
    model = onnx.load(write(tmp_path / "a.onnx", variant))
    two = numpy_helper.from_array(np.float16(2), "two")
    pooled = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    branches = [
        helper.make_graph(
            [
                helper.make_node("Constant", [], [f"k{factor}"], value=numpy_helper.from_array(np.float16(factor))),
                helper.make_node("Mul", [pooled.output[0], f"k{factor}"], [f"m{factor}"]),
            ],
            f"times{factor}",
            [],
            [helper.make_tensor_value_info(f"m{factor}", TensorProto.FLOAT16, None)],
        )
        for factor in (1, 3)
    ]
    added = [
        helper.make_node("Constant", [], ["two"], value=two),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Mul", ["chosen", "two"], ["doubled"]),
    ]
    index = list(model.graph.node).index(pooled) + 1
    for node in model.graph.node[index:]:
        node.input[:] = ["doubled" if name == pooled.output[0] else name for name in node.input]
    for position, node in enumerate(added, start=index):
        model.graph.node.insert(position, node)
    onnx.save(model, tmp_path / "a.onnx")
    report = gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    with gapcam.load(tmp_path / "b.onnx") as session:
        got = session(cat).maps(range(CLASSES))
    np.testing.assert_allclose(got, 2 * oracle(cat, report.contract.preprocessing, variant), atol=1e-4)


def test_a_network_in_bfloat16_is_refused_since_nothing_here_computes_in_it(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"computes in bfloat16, and this ONNX Runtime does not on a CPU.*Export it in"
    ):
        exported(tmp_path, Variant(stored="bfloat16", computed="bfloat16"))


@pytest.mark.parametrize(
    ("end", "outputs"),
    [
        ("logits", ["scores"]),
        ("Softmax", ["out"]),
        ("LogSoftmax", ["out"]),
        ("Sigmoid", ["out"]),
        ("ArgMax", ["best"]),
        ("TopK", ["best_scores", "best"]),
        ("Softmax+ArgMax", ["best", "probabilities"]),
        ("all", ["scores", "best", "probabilities"]),
        ("names", ["label", "probabilities"]),
        ("names-encoder", ["label", "probabilities"]),
        ("ZipMap", ["label", "probabilities"]),
        ("sklearn", ["output_label", "probabilities"]),
        ("sklearn-raw", ["output_label", "probabilities"]),
    ],
)
def test_however_a_network_ends_its_outputs_stay_and_the_logits_stand_beside_them(
    tmp_path: Path, cat: NDArray[np.uint8], end: str, outputs: list[str]
) -> None:
    report = assert_maps_are_right(tmp_path, cat, Variant(end=end))
    names = [tensor.name for tensor in report.outputs]
    assert names[: len(outputs)] == outputs
    assert "logits" in names
    assert report.contract.labels == (NAMES if end.startswith(("names", "ZipMap", "sklearn")) else ())

    image = np.random.default_rng(3).standard_normal((1, 3, *SIZE)).astype(np.float32)
    before = ort.InferenceSession(tmp_path / "a.onnx").run(outputs, {"data": image})
    after = ort.InferenceSession(tmp_path / "b.onnx").run(outputs, {"image": image})
    for one, other in zip(before, after, strict=True):
        if isinstance(one, list):  # ZipMap's maps
            assert one[0].keys() == other[0].keys()
            np.testing.assert_allclose(list(one[0].values()), list(other[0].values()), rtol=1e-5)
        elif one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)


def test_a_users_labels_go_before_those_in_the_graph(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join("wxyz"))
    report = exported(tmp_path, Variant(end="names"), labels=tmp_path / "names.txt")
    assert report.contract.labels == ("w", "x", "y", "z")


def with_ending(path: Path, *nodes: onnx.NodeProto, outputs: dict[str, int], **constants: NDArray[Any]) -> Path:
    """The network with something after its logits, `scores`; the outputs are given with their types."""
    model = onnx.load(write(path, Variant()))
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, dtype, None) for name, dtype in outputs.items())
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(model, path)
    return path


BEST = helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0)
LOOKUP = helper.make_node("Gather", ["ids", "best"], ["label"])
PROBABILITIES = helper.make_node("Softmax", ["scores"], ["p"], axis=1)


def encoder(keys: list[int], **values: list[Any]) -> onnx.NodeProto:
    return helper.make_node("LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=keys, **values)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [([30, 10, 7, 2], ("30", "10", "7", "2")), ([1, 2, 3, 4], ("1", "2", "3", "4")), ([0, 1, 2, 3], ())],
)
def test_numbers_of_classes_are_names_where_they_are_not_0_to_k_minus_1(
    tmp_path: Path, ids: list[int], labels: tuple[str, ...]
) -> None:
    path, outputs = tmp_path / "a.onnx", {"label": TensorProto.INT64, "p": TensorProto.FLOAT}
    map_of_ids = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    in_map = helper.make_node("ZipMap", ["p"], ["map"], domain="ai.onnx.ml", classlabels_int64s=ids)

    def labels_of(path: Path) -> tuple[str, ...]:
        return gapcam_export.export(str(path), tmp_path / "b.onnx").contract.labels

    assert labels_of(with_ending(path, BEST, LOOKUP, PROBABILITIES, outputs=outputs, ids=np.int64(ids))) == labels
    by_key = encoder([1, 0, 2, 3], values_int64s=[ids[i] for i in (1, 0, 2, 3)])
    assert labels_of(with_ending(path, BEST, by_key, PROBABILITIES, outputs=outputs)) == labels
    model = onnx.load(with_ending(path, PROBABILITIES, in_map, outputs={"p": TensorProto.FLOAT}))
    model.graph.output.append(helper.make_value_info("map", helper.make_sequence_type_proto(map_of_ids)))
    onnx.save(model, path)
    assert labels_of(path) == labels
    model = onnx.load(write(path, Variant(end="sklearn")))
    (linear,) = [node for node in model.graph.node if node.op_type == "LinearClassifier"]
    linear.attribute.remove(next(a for a in linear.attribute if a.name == "classlabels_strings"))
    linear.attribute.append(helper.make_attribute("classlabels_ints", ids))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    assert labels_of(path) == labels


@pytest.mark.parametrize("keys", [[1, 2, 3, 4], [3, 2, 1, 7]])
def test_names_of_other_keys_than_the_classes_are_left_out_and_said(tmp_path: Path, keys: list[int]) -> None:
    names = encoder(keys, values_strings=list(NAMES), default_string="other")
    outputs = {"label": TensorProto.STRING, "p": TensorProto.FLOAT}
    path = with_ending(tmp_path / "a.onnx", BEST, names, PROBABILITIES, outputs=outputs)
    report = gapcam_export.export(str(path), tmp_path / "b.onnx")
    assert report.contract.labels == ()
    assert any("the LabelEncoder that makes 'label' are not those of the classes 0 to K-1" in n for n in report.notes)


def test_too_many_or_too_few_names_are_left_out_and_said(tmp_path: Path) -> None:
    outputs = {"label": TensorProto.STRING, "p": TensorProto.FLOAT}
    five = np.array([*NAMES, "eel"], object)
    too_many = with_ending(tmp_path / "a.onnx", BEST, LOOKUP, PROBABILITIES, outputs=outputs, ids=five)
    too_few = with_ending(
        tmp_path / "b.onnx",
        BEST,
        encoder([0, 1, 2], values_strings=list(NAMES[:3]), default_string="other"),
        PROBABILITIES,
        outputs=outputs,
    )
    for path, count in ((too_many, 5), (too_few, 3)):
        report = gapcam_export.export(str(path), tmp_path / "c.onnx")
        assert report.contract.labels == ()
        assert any(f"SOURCE has {count} class names for 4 classes; they were left out" in n for n in report.notes)
        (tmp_path / "names.txt").write_text("\n".join(NAMES))
        said = gapcam_export.export(str(path), tmp_path / "c.onnx", labels=tmp_path / "names.txt").notes
        assert not any("they were left out" in note for note in said)


@pytest.mark.parametrize("function", ["SOFTMAX", "LOGISTIC"])
def test_sigmoids_that_are_divided_by_their_sum_are_said_not_to_be_the_runtimes(
    tmp_path: Path, cat: NDArray[np.uint8], function: str
) -> None:
    """scikit-learn's one-vs-rest; after a Softmax the Normalizer changes nothing."""
    model = onnx.load(write(tmp_path / "a.onnx", Variant(end="sklearn")))
    (linear,) = [node for node in model.graph.node if node.op_type == "LinearClassifier"]
    next(a for a in linear.attribute if a.name == "post_transform").s = function.encode()
    onnx.save(model, tmp_path / "a.onnx")
    report = gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    said = any("'probabilities' holds the classes' sigmoids divided by their sum" in note for note in report.notes)
    with gapcam.load(tmp_path / "b.onnx") as session:
        scores = session(cat).scores
    assert said == (not np.isclose(scores.sum(), 1)) == (function == "LOGISTIC")


@pytest.mark.parametrize("operator", ["TopK", "ArgMin"])
def test_the_least_of_the_scores_is_no_ones_logits(tmp_path: Path, operator: str) -> None:
    if operator == "TopK":
        node = helper.make_node("TopK", ["scores", "two"], ["values", "least"], largest=0, axis=1)
        outputs = {"values": TensorProto.FLOAT, "least": TensorProto.INT64}
    else:
        node, outputs = helper.make_node("ArgMin", ["scores"], ["least"], axis=1), {"least": TensorProto.INT64}
    for kept in (outputs, {"least": TensorProto.INT64}):
        path = with_ending(tmp_path / "a.onnx", node, outputs=kept, two=np.int64([2]))
        with pytest.raises(gapcam_export.SourceError, match=r"a\.onnx gives the least of the classes' scores"):
            gapcam_export.export(str(path), tmp_path / "b.onnx")


def test_outputs_that_follow_from_different_tensors_are_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "a.onnx", Variant(end="Softmax+ArgMax")))
    pooled = next(node for node in model.graph.node if node.op_type == "Flatten")
    model.graph.output.append(helper.make_tensor_value_info(pooled.output[0], TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "a.onnx")
    said = rf"3 outputs \(best, probabilities, {pooled.output[0]}\); expected one, .*extract_model\('a\.onnx'"
    with pytest.raises(gapcam_export.SourceError, match=said):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def test_several_inputs_are_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "a.onnx", Variant()))
    model.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    onnx.save(model, tmp_path / "a.onnx")
    said = r"2 inputs \(data \[n,3,32,48\] float, training \[\] bool\); expected one, the image\. Make constants"
    with pytest.raises(gapcam_export.SourceError, match=said):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("dims", "dtype", "said"),
    [
        (
            ("n", 1, 28, 28),
            TensorProto.FLOAT,
            r"data \[n,1,28,28\] float; .*this is grey-scale\. Put a 1x1 convolution",
        ),
        (("n", 28, 28, 1), TensorProto.FLOAT, r"data \[n,28,28,1\] float; .*this is grey-scale"),
        (("n", 4, 32, 32), TensorProto.FLOAT, r"data \[n,4,32,32\] float; expected one image of three channels"),
        (("n", 3, 32, 48), TensorProto.INT32, r"data \[n,3,32,48\] int32; .*Cast it in the graph"),
        (("n", 3, 32, 48), TensorProto.DOUBLE, r"data \[n,3,32,48\] double; .*Cast it in the graph"),
        (("n", 128), TensorProto.FLOAT, r"data \[n,128\] float; .*Is it an image classifier"),
    ],
)
def test_what_is_no_image_of_three_channels_is_refused(
    tmp_path: Path, dims: tuple[int | str, ...], dtype: int, said: str
) -> None:
    model = onnx.load(write(tmp_path / "a.onnx", Variant()))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("data", dtype, dims))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(gapcam_export.SourceError, match=said):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def test_channels_without_a_number_are_taken_for_the_second_axis(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = Variant()
    model = onnx.load(write(tmp_path / "a.onnx", variant))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", "c", "h", "w"]))
    onnx.save(model, tmp_path / "a.onnx")
    report = gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx", size=SIZE)
    assert any("the second was taken for it" in note for note in report.notes)
    with gapcam.load(tmp_path / "b.onnx") as session:
        got = session(cat).maps(range(CLASSES))
    np.testing.assert_allclose(got, oracle(cat, report.contract.preprocessing, variant), atol=1e-5)


def test_nodes_in_any_order_are_sorted_first(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    """ONNX Runtime's own converter to float16 adds its Casts at the end; it runs such files, against the standard."""
    variant = Variant(layout="nhwc", end="Softmax", shape="asked")
    model = onnx.load(write(tmp_path / "a.onnx", variant))
    nodes = onnx.GraphProto(node=list(model.graph.node)[::-1])
    del model.graph.node[:]
    model.graph.node.extend(nodes.node)
    onnx.save(model, tmp_path / "a.onnx")
    report = gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx", size=SIZE)
    graph = onnx.load(tmp_path / "b.onnx").graph
    made = {name: position for position, node in enumerate(graph.node) for name in node.output}
    assert all(made.get(name, -1) < position for position, node in enumerate(graph.node) for name in node.input)
    with gapcam.load(tmp_path / "b.onnx") as session:
        got = session(cat).maps(range(CLASSES))
    np.testing.assert_allclose(got, oracle(cat, report.contract.preprocessing, variant), atol=1e-5)


def test_an_output_that_does_not_look_at_the_image_is_refused(tmp_path: Path) -> None:
    model = onnx.load(write(tmp_path / "a.onnx", Variant()))
    first = model.graph.node[0]
    first.input[0] = "zeros"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, *SIZE), np.float32), "zeros"))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(gapcam_export.SourceError, match=r"no path leads from the input 'data' of a\.onnx"):
        gapcam_export.export(str(tmp_path / "a.onnx"), tmp_path / "b.onnx")


def test_a_given_back_export_of_pixels_in_float16_is_the_same_again(tmp_path: Path, cat: NDArray[np.uint8]) -> None:
    variant = replace(Variant(), layout="nhwc", pixels=True, stored="float16", computed="float16", end="names")
    first = assert_maps_are_right(tmp_path, cat, variant)
    again = gapcam_export.export(str(tmp_path / "b.onnx"), tmp_path / "c.onnx")
    assert again.contract.preprocessing == first.contract.preprocessing
    assert again.contract.labels == NAMES
    with gapcam.load(tmp_path / "b.onnx") as one, gapcam.load(tmp_path / "c.onnx") as other:
        np.testing.assert_array_equal(one(cat).maps([0, 1]), other(cat).maps([0, 1]))
