"""What is measured is what gapcam answers: each kind of output against the session, stage by stage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_heads import normed, normed_contract, squared, squared_contract
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.contract import HeadKind
from gapcam_bench.block import Request
from gapcam_bench.cell import WORK, Cell, Emit
from gapcam_bench.subjects.open_subject import open_model, open_subject
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import STAGES, StageTimes
from gapcam_bench.sweep.graph_outputs import write_with_outputs

FRAME = (48, 64)
SIZE = (8, 8)


def a_cell(file: Path, emit: Emit = "features", **changed: object) -> Cell:
    settings = {"model": str(file), "emit": emit, "frame": FRAME, "threads": 1, **changed}
    return Cell(**settings)  # type: ignore[arg-type]


def emitting(file: Path, emit: Emit) -> Path:
    """The file that a sweep makes of a model for one kind of output."""
    contract = gapcam.load(file, device="cpu").contract
    made = file.with_name(f"{emit}.onnx")
    return made if write_with_outputs(file, made, emit, contract.head.kind) else file


def a_model(kind: HeadKind, path: Path) -> Path:
    match kind:
        case HeadKind.LAYERNORM:
            return normed(path, contract=normed_contract(size=SIZE))
        case HeadKind.NONLINEAR:
            return squared(path, contract=squared_contract(size=SIZE), maps=True)
        case _:
            return red_and_blue(path, contract=a_contract(SIZE, kind=kind))


HEADS = (HeadKind.AFFINE, HeadKind.CLASS_MAPS, HeadKind.LAYERNORM, HeadKind.NONLINEAR)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("emit", ["features", "maps", "topk", "plain"])
def test_each_kind_of_output_gives_the_sessions_answers(tmp_path: Path, kind: HeadKind, emit: Emit) -> None:
    model = a_model(kind, tmp_path / "model.onnx")
    file = emitting(model, emit)
    with gapcam.load(model, device="cpu") as session:
        subject = open_model(file, a_cell(file, emit))
        for picture in pictures(None, FRAME, 4):
            expected = session(picture.frame)
            answer = subject.answer(picture)
            np.testing.assert_allclose(answer.logits, expected.logits, rtol=1e-5)
            if emit == "plain":
                assert answer.map is None
            else:
                assert answer.map is not None
                np.testing.assert_allclose(answer.map, expected.map(), rtol=1e-5, atol=1e-6)
        subject.close()


@pytest.mark.parametrize("emit", ["maps", "topk"])
def test_maps_of_the_graph_are_what_is_used_where_it_gives_some(tmp_path: Path, emit: Emit) -> None:
    """A graph whose maps are wrong gives wrong answers; from features they would be right."""
    model = red_and_blue(tmp_path / "model.onnx", contract=a_contract(SIZE))
    file = emitting(model, emit)
    proto = onnx.load(file)
    name = "maps" if emit == "maps" else "topk_maps"
    last = next(node for node in proto.graph.node if name in node.output)
    last.output[0] = "right"
    proto.graph.node.append(helper.make_node("Neg", ["right"], [name]))
    onnx.save(proto, file)
    picture = pictures(None, FRAME, 1)[0]
    with gapcam.load(model, device="cpu") as session:
        expected = session(picture.frame).map()
    answer = open_model(file, a_cell(file, emit)).answer(picture)
    assert answer.map is not None
    np.testing.assert_allclose(answer.map, -expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("emit", ["features", "maps", "topk", "plain"])
@pytest.mark.parametrize("batch", [1, 3])
def test_stages_are_those_of_the_work_and_of_nothing_else(tiny_model: Path, emit: Emit, batch: int) -> None:
    file, shown = emitting(tiny_model, emit), pictures(None, FRAME, batch)
    drawn = ["cam"] if emit == "plain" else ["cam", "overlay", "boxes"]
    for work in [(), ("decode",), ("overlay",), ("boxes",), WORK]:
        subject = open_model(file, a_cell(file, emit, work=work, batch=batch))
        times = subject.run(shown)
        expected = {"preprocess", "inference", "cam", *work} - (
            {*drawn, "overlay", "boxes"} if emit == "plain" else set()
        )
        assert set(times.wall) == expected
        assert all(nanoseconds > 0 for nanoseconds in times.wall.values())
        assert not times.device
        assert set(times.wall) <= set(STAGES)
        subject.close()


def test_a_batch_is_one_inference_and_its_stages_are_of_all_its_pictures(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gapcam.backends.onnxruntime import OnnxRuntimeBackend

    shapes: list[tuple[int, ...]] = []
    plain_run = OnnxRuntimeBackend.run

    def run(self: OnnxRuntimeBackend, outputs: list[str], image: np.ndarray) -> list[np.ndarray]:
        shapes.append(image.shape)
        return plain_run(self, outputs, image)

    subject = open_model(tiny_model, a_cell(tiny_model, batch=3))
    monkeypatch.setattr(OnnxRuntimeBackend, "run", run)
    subject.run(pictures(None, FRAME, 3))
    assert shapes == [(3, 3, 32, 32)]


@pytest.mark.parametrize("emit", ["features", "plain"])
def test_a_model_of_one_image_takes_no_batch_and_answers_a_query_one_by_one(tmp_path: Path, emit: Emit) -> None:
    file = emitting(red_and_blue(tmp_path / "model.onnx", contract=a_contract(SIZE), batch=1), emit)
    with pytest.raises(gapcam.ModelError, match="batch"):
        open_model(file, a_cell(file, emit, batch=2))
    subject = open_model(file, a_cell(file, emit))
    assert subject.run(pictures(None, FRAME, 3)).wall["inference"] > 0
    assert subject.notes[0].startswith("takes one image at a time")  # type: ignore[attr-defined]


def test_the_overlay_that_is_timed_is_the_sessions(tiny_model: Path) -> None:
    """Into memory that the next query uses again."""
    shown = pictures(None, FRAME, 2)
    subject = open_model(tiny_model, a_cell(tiny_model, batch=2))
    subject.run(shown[::-1])
    subject.run(shown)
    with gapcam.load(tiny_model, device="cpu") as session:
        for picture, drawn in zip(shown, subject._drawn, strict=True):  # type: ignore[attr-defined]
            np.testing.assert_array_equal(drawn, session(picture.frame).overlay())


@pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="ONNX Runtime says from 1.24 on which nodes run where",
)
def test_nodes_are_counted_by_the_provider_that_runs_them(tiny_model: Path) -> None:
    providers = open_model(tiny_model, a_cell(tiny_model)).providers  # type: ignore[attr-defined]
    assert list(providers) == ["CPUExecutionProvider"]
    assert 3 <= providers["CPUExecutionProvider"] <= 5


def test_outputs_that_are_not_there_are_said_and_how_to_get_them(tiny_model: Path) -> None:
    for emit, output in (("maps", "maps"), ("topk", "topk_maps")):
        with pytest.raises(gapcam.ModelError, match=rf"no output '{output}'.*--emit {emit}"):
            open_model(tiny_model, a_cell(tiny_model, emit))  # type: ignore[arg-type]


def test_a_head_without_maps_is_a_plain_classifier(tmp_path: Path) -> None:
    file = red_and_blue(tmp_path / "model.onnx", contract=a_contract(SIZE, kind=HeadKind.NONE))
    subject = open_model(file, a_cell(file))
    assert "without maps" in subject.notes[-1]  # type: ignore[attr-defined]
    assert set(subject.run(pictures(None, FRAME, 1)).wall) == {"decode", "preprocess", "inference"}


def test_stage_times_add_up() -> None:
    times = StageTimes()
    times.add("cam", 5)
    times.add("cam", 7)
    times.add_device("cam", 0.25)
    times.add_device("cam", 0.5)
    with times.timed("overlay"):
        pass
    assert times.wall["cam"] == 12
    assert times.device == {"cam": 750_000}
    assert times.wall["overlay"] >= 0


def test_an_unknown_subject_is_a_line(tiny_model: Path) -> None:
    cell = a_cell(tiny_model, subject="caffe")
    with pytest.raises(gapcam.UsageError, match="caffe"):
        open_subject(Request(cell=cell, file=str(tiny_model)))


def test_an_unknown_device_is_a_line(tiny_model: Path) -> None:
    with pytest.raises(gapcam.GapcamError, match="device"):
        open_subject(Request(cell=a_cell(tiny_model, device="cuda:200"), file=str(tiny_model)))


# Models without a contract.


def a_classifier(
    path: Path,
    shape: list[int | str],
    dtype: int = TensorProto.FLOAT,
    *,
    inputs: int = 1,
    output: str = "scores",
) -> Path:
    """Scores are the means of the input's channels, times 10."""
    last = shape[1] not in (1, 3)
    nodes = [helper.make_node("Cast", ["input0"], ["floats"], to=TensorProto.FLOAT)]
    axes = [1, 2] if last or len(shape) == 3 else [2, 3]
    nodes += [
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "ten"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info(f"input{index}", dtype, shape) for index in range(inputs)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], "K"])],
        [
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            numpy_helper.from_array(np.array(10, np.float32), "ten"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "unit"),
    [
        (["N", 3, 24, 16], TensorProto.FLOAT, 1 / 255),
        (["N", 24, 16, 3], TensorProto.FLOAT, 1 / 255),
        (["N", 3, 24, 16], TensorProto.UINT8, 1),
        (["N", 24, 16, 3], TensorProto.UINT8, 1),
        ([1, 3, "H", "W"], TensorProto.FLOAT16, 1 / 255),
        (["N", "H", "W", 3], TensorProto.DOUBLE, 1 / 255),
        (["N", 1, 24, 16], TensorProto.FLOAT, 1 / 255),
        (["N", 24, 16, 1], TensorProto.UINT8, 1),
    ],
)
def test_any_model_of_images_is_a_plain_classifier(
    tmp_path: Path, shape: list[int | str], dtype: int, unit: float
) -> None:
    file = a_classifier(tmp_path / "any.onnx", shape, dtype)
    subject = open_model(file, a_cell(file))
    picture = pictures(None, FRAME, 1)[0]
    answer = subject.answer(picture)
    expected = picture.frame.reshape(-1, 3).mean(axis=0)[::-1] * unit * 10
    grey = 1 in shape[1:]
    if grey:
        expected = cv2.cvtColor(picture.frame, cv2.COLOR_BGR2GRAY).mean(keepdims=True).reshape(1) * unit * 10
    np.testing.assert_allclose(answer.logits, expected, rtol=0.02)
    assert answer.map is None
    assert set(subject.run([picture]).wall) == {"decode", "preprocess", "inference"}
    (note,) = [note for note in subject.notes if "no contract" in note]  # type: ignore[attr-defined]
    fed = f"in {'grey' if grey else 'RGB'}, {'pixels, 0 to 255' if unit == 1 else 'scaled to 0..1'}"
    assert note.endswith(f"its input is the stretched frame {fed}")
    assert subject.input_size == ((24, 16) if 24 in shape else (224, 224))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("shape", "inputs", "said"),
    [
        (["N", 3, 8, 8], 2, "2 inputs"),
        (["N", 3, 8], 1, r"expected one image: .*1 \(grey\)"),
        (["N", 7, 8, 9], 1, "expected one image"),
        ([4, 3, 8, 8], 1, "batches of 4"),
    ],
)
def test_what_is_no_image_is_said(tmp_path: Path, shape: list[int | str], inputs: int, said: str) -> None:
    file = a_classifier(tmp_path / "any.onnx", shape, inputs=inputs)
    with pytest.raises(gapcam.ModelError, match=said):
        open_model(file, a_cell(file))


def test_a_model_without_scores_is_said(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["picture"])],
        "relu",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, 8, 8])],
    )
    file = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    with pytest.raises(gapcam.ModelError, match="expected scores"):
        open_model(file, a_cell(file))
