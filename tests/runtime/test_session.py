"""Loading a model, and what the API answers and refuses."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_models import BIAS, WEIGHTS, a_contract, fake_red_and_blue, red_and_blue

import gapcam
from gapcam.backends import Backend, TensorInfo
from gapcam.backends.fake import FakeBackend
from gapcam.backends.onnxruntime import OnnxRuntimeBackend
from gapcam.classes import ClassNames
from gapcam.contract import METADATA_KEY, contract_to_json

FRAME = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def test_a_session_says_what_its_model_is(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "model.onnx", contract=a_contract((6, 8)))
    with gapcam.load(path, device="cpu", threads=1) as session:
        assert session.labels == ("red", "blue")
        assert session.map_size == (6, 8)
        assert session.contract == a_contract((6, 8))
        np.testing.assert_array_equal(session.weights, WEIGHTS)
        np.testing.assert_array_equal(session.bias, BIAS)
        assert session.identity_error < 1e-6 < session.identity_tolerance
        assert "onnxruntime" in session.engine


def test_the_constant_outputs_are_asked_for_once_at_load_and_never_again() -> None:
    backend = fake_red_and_blue()
    with gapcam.Session(backend) as session:
        session(FRAME)
        session.batch([FRAME, FRAME])
    assert backend.runs == [
        ("logits", "features", "cam_weights", "cam_bias"),
        ("logits", "features"),
        ("logits", "features"),  # one inference for the batch
    ]
    assert backend.closed


def test_nothing_is_computed_before_it_is_asked_for_and_each_step_is_timed() -> None:
    result = gapcam.Session(fake_red_and_blue())(FRAME)
    assert set(result.timings_ms) == {"preprocess", "inference"}
    result.boxes()
    result.overlay()
    result.heatmap()
    assert set(result.timings_ms) == {"preprocess", "inference", "map", "boxes", "overlay", "heatmap"}
    assert all(value > 0 for value in result.timings_ms.values())


def test_a_closed_session_says_so_and_its_results_stay_usable() -> None:
    with gapcam.Session(fake_red_and_blue()) as session:
        result = session(FRAME)
    session.close()  # closing twice does nothing
    with pytest.raises(gapcam.UsageError, match="closed"):
        session(FRAME)
    assert result.overlay().shape == FRAME.shape


def test_frames_of_a_batch_may_differ_in_size_and_each_keeps_its_own_geometry() -> None:
    session = gapcam.Session(fake_red_and_blue(a_contract((16, 16), resize="crop")))
    frames = [FRAME, FRAME[:, :20], FRAME[:5]]
    for frame, result in zip(frames, session.batch(frames), strict=True):
        assert result.frame is frame
        np.testing.assert_array_equal(result.heatmap("red"), session(frame).heatmap("red"))
        assert result.boxes("red", threshold=0.6) == session(frame).boxes("red", threshold=0.6)


def test_an_empty_batch_gives_no_results() -> None:
    assert gapcam.Session(fake_red_and_blue()).batch([]) == []


def test_a_bad_frame_in_a_batch_is_named() -> None:
    with pytest.raises(gapcam.FrameError, match="frame 1 of the batch: got an array"):
        gapcam.Session(fake_red_and_blue()).batch([FRAME, FRAME[:, :, 0]])


def test_a_batch_handed_to_the_call_is_refused_with_what_to_do() -> None:
    with pytest.raises(gapcam.FrameError, match=r"session\.batch"):
        gapcam.Session(fake_red_and_blue())(np.stack([FRAME, FRAME]))


def test_a_frame_of_nan_logits_is_an_error_and_not_a_score() -> None:
    backend = fake_red_and_blue()
    session = gapcam.Session(backend)
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "logits": np.full((1, 2), np.nan, np.float32)}
    with pytest.raises(gapcam.VerificationError, match="not finite"):
        session(FRAME)


def test_two_threads_may_share_a_session(tmp_path: Path) -> None:
    frames = [np.full((8, 8, 3), value, np.uint8) for value in range(0, 250, 10)]
    with gapcam.load(red_and_blue(tmp_path / "m.onnx"), threads=1) as session, ThreadPoolExecutor(2) as pool:
        together = [result.logits for result in pool.map(session, frames)]
        alone = [session(frame).logits for frame in frames]
    np.testing.assert_array_equal(together, alone)


def test_calls_while_another_thread_closes_the_session_work_or_say_that_it_is_closed(tmp_path: Path) -> None:
    """The frame is large, so that the session is closed while its input is made."""
    session = gapcam.load(red_and_blue(tmp_path / "m.onnx"), threads=1)
    frame, started = np.zeros((3001, 4001, 3), np.uint8), threading.Barrier(5)

    def call(_: int) -> str:
        started.wait(timeout=60)
        for _ in range(1000):
            try:
                session(frame)
            except gapcam.UsageError as error:  # noqa: PERF203 - the first one ends the loop
                return str(error)
        return "never closed"

    with ThreadPoolExecutor(4) as pool:
        ends = pool.map(call, range(4))
        started.wait(timeout=60)
        time.sleep(0.05)
        session.close()
        assert all("the session is closed" in end for end in ends)


@pytest.mark.parametrize("make", [lambda path: OnnxRuntimeBackend(red_and_blue(path)), lambda _: fake_red_and_blue()])
def test_a_closed_backend_says_so(tmp_path: Path, make: Callable[[Path], Backend]) -> None:
    backend = make(tmp_path / "m.onnx")
    backend.close()
    with pytest.raises(gapcam.UsageError, match="the session is closed"):
        backend.run(["logits"], np.zeros((1, 3, 2, 2), np.float32))


def test_times_are_in_milliseconds_and_an_inference_is_shared_by_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    session = gapcam.Session(fake_red_and_blue())
    for module in ("host_path", "step_times"):  # a clock that goes on by a quarter of a second whenever it is read
        monkeypatch.setattr(f"gapcam.{module}.perf_counter", itertools.count(0, 0.25).__next__)
    results = session.batch([FRAME] * 5)
    assert all(result.timings_ms == {"preprocess": 250, "inference": 50} for result in results)
    results[0].map()
    assert results[0].timings_ms["map"] == 250


# Scores.


def test_sigmoid_scores_are_the_logistic_function_of_each_logit_on_its_own() -> None:
    backend = fake_red_and_blue(a_contract(scores="sigmoid"))
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "logits": np.array([[0.0, np.log(3)]], np.float32)}
    result = gapcam.Session(backend, verify=False)(FRAME)
    np.testing.assert_allclose(result.scores, [0.5, 0.75], rtol=1e-6)  # 1 / (1 + 1), 1 / (1 + 1 / 3)
    assert [(entry.label, entry.score) for entry in result.top] == [("blue", pytest.approx(0.75)), ("red", 0.5)]
    assert result.scores.dtype == np.float32


def test_sigmoid_scores_of_extreme_logits_neither_overflow_nor_lose_what_is_small() -> None:
    backend = fake_red_and_blue(a_contract(scores="sigmoid"))
    whole = backend.compute
    session = gapcam.Session(backend, verify=False)
    for logits, scores in (([-60, 60], [8.7565108e-27, 1]), ([-3e38, 3e38], [0, 1])):  # exp(-60)
        given = np.array([logits], np.float32)
        backend.compute = lambda image, given=given: {**whole(image), "logits": given}
        np.testing.assert_allclose(session(FRAME).scores, scores, rtol=1e-6)


def test_a_single_class_has_a_score_that_says_something(tmp_path: Path) -> None:
    """Softmax of one logit is 1 whatever the image shows; the logistic function is not."""
    contract = a_contract(labels=("red",), scores="sigmoid")
    path = red_and_blue(tmp_path / "m.onnx", contract=contract, weights=WEIGHTS[:1], bias=BIAS[:1])
    with gapcam.load(path, threads=1) as session:
        result = session(np.full((2, 2, 3), (0, 0, 255), np.uint8))  # red is 1, blue 0: 3 - 0 + 0.5
    np.testing.assert_allclose(result.logits, [3.5], rtol=1e-6)
    assert result.top == (gapcam.Prediction(0, "red", pytest.approx(0.9706877692)),)  # 1 / (1 + exp(-3.5))
    np.testing.assert_allclose(result.map("red"), np.full((2, 2), 3), rtol=1e-6)


def test_a_contract_of_an_older_export_means_exact_maps_and_softmax(tmp_path: Path) -> None:
    """It says nothing of either, nor of a gradient."""
    older = msgspec.json.decode(contract_to_json(a_contract()))
    for name in ("exact", "scores"):
        del older["head"][name]
    for name in ("gradient_error", "gradient_tolerance"):
        del older["verification"][name]
    metadata = {METADATA_KEY: msgspec.json.encode(older).decode()}
    with gapcam.load(red_and_blue(tmp_path / "m.onnx", metadata=metadata)) as session:
        assert session.contract == a_contract()
        assert session.exact
        assert session(FRAME).scores.sum() == pytest.approx(1)


# Classes by index and label.

IMAGENET_LIKE = ClassNames(("tabby cat", "Egyptian cat", "crane", "tiger", "crane"), 5)


def test_a_class_is_found_by_index_label_and_label_in_another_case() -> None:
    assert IMAGENET_LIKE.resolve(1) == 1
    assert IMAGENET_LIKE.resolve(np.int64(3)) == 3
    assert IMAGENET_LIKE.resolve("Egyptian cat") == 1
    assert IMAGENET_LIKE.resolve("TIGER") == 3


@pytest.mark.parametrize("ref", [1.0, np.True_, True, None, np.array([1, 2])])
def test_what_is_neither_an_index_nor_a_label_is_refused(ref: object) -> None:
    with pytest.raises(gapcam.UsageError, match="as a class; give its index"):
        IMAGENET_LIKE.resolve(ref)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [5, -1, 1000])
def test_an_index_that_does_not_exist_is_refused_with_the_range(index: int) -> None:
    with pytest.raises(gapcam.ClassNotFoundError, match="this model has 5, 0 to 4"):
        IMAGENET_LIKE.resolve(index)


def test_a_label_that_two_classes_share_names_their_indices() -> None:
    with pytest.raises(gapcam.ClassNotFoundError, match="2 or 4"):
        IMAGENET_LIKE.resolve("crane")


@pytest.mark.parametrize(
    ("typed", "meant"), [("Egiptian cat", "Egyptian cat"), ("tabby", "tabby cat"), ("tigre", "tiger")]
)
def test_a_label_that_does_not_exist_gets_close_ones(typed: str, meant: str) -> None:
    with pytest.raises(gapcam.ClassNotFoundError, match=f"Did you mean .*'{meant}'"):
        IMAGENET_LIKE.resolve(typed)


def test_a_label_like_no_other_is_told_what_labels_look_like() -> None:
    with pytest.raises(gapcam.ClassNotFoundError, match="Labels look like 'tabby cat'"):
        IMAGENET_LIKE.resolve("xyzzy")


def test_a_model_without_labels_calls_its_classes_by_number() -> None:
    result = gapcam.Session(fake_red_and_blue(a_contract(labels=())))(FRAME)
    assert {entry.label for entry in result.top} == {"class 0", "class 1"}
    np.testing.assert_array_equal(result.map("class 1"), result.map(1))


def test_results_refuse_classes_that_the_model_does_not_have() -> None:
    result = gapcam.Session(fake_red_and_blue())(FRAME)
    for ask in (result.map, result.heatmap, result.boxes, result.overlay, result.prediction):
        with pytest.raises(gapcam.ClassNotFoundError):
            ask("green")
    with pytest.raises(gapcam.UsageError, match="from 1"):
        result.best(0)
    with pytest.raises(gapcam.UsageError, match=r"count is 1\.5; give a whole number"):
        result.best(1.5)  # type: ignore[arg-type]


def test_to_dict_is_what_the_result_says() -> None:
    result = gapcam.Session(fake_red_and_blue(a_contract((16, 16))))(FRAME)
    found = result.to_dict(["blue"], count=1, all_components=True, threshold=0.9)
    assert (found["width"], found["height"]) == (40, 30)
    assert [entry["label"] for entry in found["top"]] == [result.top[0].label]
    (blue,) = found["classes"]
    assert blue["index"] == 1
    assert blue["logit"] == float(result.logits[1])
    boxes = result.boxes("blue", all_components=True, threshold=0.9)
    assert len(boxes) > 1
    assert blue["boxes"] == [[round(side, 2) for side in box] for box in boxes]
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


# Devices and options.


@pytest.mark.parametrize("device", ["npu", "", "cpu:1", "cuda:x", "cuda:-1", "CUDA"])
def test_a_device_that_nobody_knows_is_refused_and_never_replaced(tmp_path: Path, device: str) -> None:
    with pytest.raises(gapcam.UsageError, match="auto, cpu, cuda, tensorrt, tensorrt-rtx"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx"), device=device)


def test_options_reach_onnx_runtime(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "m.onnx")
    optimized = tmp_path / "optimized.onnx"
    options = {
        "session.intra_op.allow_spinning": "0",
        "graph_optimization_level": "ORT_DISABLE_ALL",
        "optimized_model_filepath": str(optimized),
    }
    with gapcam.load(path, threads=1, session_options=options, provider_options={"use_arena": "1"}):
        assert optimized.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intra_op_num_thread": 1}, "did you mean intra_op_num_threads"),
        ({"xyzzy": 1}, "known are"),
        ({"graph_optimization_level": "FAST"}, "ORT_ENABLE_ALL"),
        ({"intra_op_num_threads": "many"}, "expected int"),
        ({"intra_op_num_threads": 10**12}, "expected int"),
        ({"enable_profiling": "maybe"}, "expected bool"),
        ({"session." + "x" * 1100: "1"}, "is refused"),
        ({"session.intra_op_thread_affinities": "x"}, "refuses the session options"),
    ],
)
def test_a_session_option_that_is_not_understood_is_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(gapcam.BackendError, match=message):
        gapcam.load(red_and_blue(tmp_path / "m.onnx"), session_options=options)


@pytest.mark.parametrize("threads", [0, 1025, 10**12])
def test_no_thread_or_absurdly_many_are_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(gapcam.UsageError, match="from 1 to 1024"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx"), threads=threads)


def test_threads_and_provider_options_reach_onnx_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    real = onnxruntime.InferenceSession

    def recorded(path: str, options: onnxruntime.SessionOptions, **named: object) -> onnxruntime.InferenceSession:
        given.append((options.intra_op_num_threads, named["providers"]))
        return real(path, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    gapcam.load(red_and_blue(tmp_path / "m.onnx"), threads=2, provider_options={"a": "b"}).close()
    assert given == [(2, [("CPUExecutionProvider", {"a": "b"})])]


# Models that are not right.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is a text file and no model at all\n" * 20, "is not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "is not an ONNX model"),
        (b"PK\x03\x04" + bytes(500), "is not an ONNX model"),
        (b"\x08\x0a", "is cut off or holds no graph"),
    ],
    ids=["empty", "text", "png", "zip", "no graph"],
)
def test_a_file_that_is_no_onnx_model_is_called_so(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(gapcam.ModelError, match=message):
        gapcam.load(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_model_cut_off_anywhere_is_called_so(tmp_path: Path, part: float) -> None:
    path = red_and_blue(tmp_path / "m.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(gapcam.ModelError, match="is cut off"):
        gapcam.load(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(gapcam.ModelError, match="there is no file"):
        gapcam.load(tmp_path / "none.onnx")
    with pytest.raises(gapcam.ModelError, match="is a folder"):
        gapcam.load(tmp_path)


def test_weights_in_another_file_that_is_missing_or_cut_off_are_reported(tmp_path: Path) -> None:
    path = red_and_blue(tmp_path / "whole.onnx")
    model = onnx.load(path)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    gapcam.load(tmp_path / "m.onnx").close()
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:10])
    with pytest.raises(gapcam.ModelError, match="weights lie in a file beside it"):
        gapcam.load(tmp_path / "m.onnx")
    weights.unlink()
    with pytest.raises(gapcam.ModelError, match="weights lie in a file beside it"):
        gapcam.load(tmp_path / "m.onnx")


def test_a_model_with_an_operator_that_the_engine_does_not_know_is_reported(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].op_type = "Gemmm"

    with pytest.raises(gapcam.ModelError, match=r"cannot be loaded by ONNX Runtime .*Gemmm"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", change=change))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "without gapcam's contract"),
        ({METADATA_KEY: "{"}, "damaged contract"),
        ({METADATA_KEY: '{"contract": 1}'}, "damaged contract"),
        ({METADATA_KEY: contract_to_json(a_contract()).replace('"contract":1', '"contract":2')}, "version 2"),
        ({METADATA_KEY: contract_to_json(a_contract()).replace('"contract":1', '"contract":0')}, ">= 1"),
        ({METADATA_KEY: contract_to_json(a_contract()).replace('"contract":1', '"contract":-5')}, ">= 1"),
        ({METADATA_KEY: contract_to_json(a_contract(std=(1.0, 0.0, 1.0)))}, "> 0"),
    ],
    ids=["none", "no JSON", "incomplete", "newer", "version 0", "version -5", "std 0"],
)
def test_a_contract_that_is_absent_damaged_or_newer_is_refused(
    tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(gapcam.ContractError, match=message):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", metadata=metadata))


def test_a_head_that_has_no_maps_is_refused(tmp_path: Path) -> None:
    metadata = {METADATA_KEY: contract_to_json(a_contract()).replace('"kind":"affine"', '"kind":"none"')}
    with pytest.raises(gapcam.ModelError, match="head of kind 'none'; gapcam computes maps for heads of kind affine,"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", metadata=metadata))


def drop_output(name: str) -> object:
    def change(model: onnx.ModelProto) -> None:
        kept = [output for output in model.graph.output if output.name != name]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


@pytest.mark.parametrize("name", ["logits", "features", "cam_weights", "cam_bias"])
def test_a_model_that_lacks_an_output_of_the_contract_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(gapcam.ModelError, match=f"no output '{name}'"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", change=drop_output(name)))  # type: ignore[arg-type]


def test_an_input_of_another_size_type_or_number_is_refused(tmp_path: Path) -> None:
    def larger(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 5

    def one_more(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))

    with pytest.raises(gapcam.ModelError, match=r"image \[\?,3,5,2\] float32; its contract says image \[\?,3,2,2\]"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", change=larger))
    with pytest.raises(gapcam.ModelError, match="expected one"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", change=one_more))
    metadata = {METADATA_KEY: contract_to_json(a_contract(embedded=True))}
    with pytest.raises(gapcam.ModelError, match="its contract says"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", metadata=metadata))
    with pytest.raises(gapcam.ModelError, match="symbolic or 1"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", batch=4))


def test_labels_weights_and_bias_of_different_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(gapcam.ModelError, match="3 labels"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", contract=a_contract(labels=("a", "b", "c"))))
    wider = np.ones((2, 3), np.float32)
    with pytest.raises(gapcam.ModelError, match="should be equal"):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", weights=wider, logits_weights=WEIGHTS))


def open_backend(changed: dict[str, np.ndarray], contract: gapcam.Contract | None = None) -> FakeBackend:
    """A model that declares none of its outputs' sides, with some of its outputs replaced."""
    backend = fake_red_and_blue(contract)
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), **changed}
    for name, info in backend.outputs.items():
        backend.outputs[name] = TensorInfo(name, (None,) * len(info.shape), info.dtype)
    return backend


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("changed", "labels"),
    [
        ({}, ("a", "b", "c")),
        ({}, ("a",)),
        ({"cam_weights": np.ones((3, 2), np.float32)}, ()),
        ({"cam_weights": np.ones((1, 2), np.float32)}, ()),
        ({"cam_weights": np.ones((2, 3), np.float32)}, ()),
        ({"cam_bias": np.ones(3, np.float32)}, ()),
        ({"cam_bias": np.ones(1, np.float32)}, ()),
        ({"logits": np.ones((1, 3), np.float32)}, ()),
        ({"logits": np.ones((1, 0), np.float32)}, ()),
        ({"features": np.ones((1, 3, 2, 2), np.float32)}, ()),
    ],
    ids=str,
)
def test_sides_that_the_model_leaves_open_are_checked_on_a_run(
    changed: dict[str, np.ndarray], labels: tuple[str, ...], verify: bool
) -> None:
    with pytest.raises(gapcam.ModelError, match=r"should be equal|expected 2 axes"):
        gapcam.Session(open_backend(changed, a_contract(labels=labels)), verify=verify)


def test_a_bias_of_another_size_is_refused_before_anything_runs() -> None:
    backend = fake_red_and_blue()
    backend.outputs["cam_bias"] = TensorInfo("cam_bias", (3,), "float32")
    with pytest.raises(gapcam.ModelError, match=r"cam_bias \[3\] float32: 2 and 3 should be equal"):
        gapcam.Session(backend)
    assert not backend.runs


@pytest.mark.parametrize("name", ["logits", "features"])
def test_a_model_that_does_not_keep_a_batch_apart_is_refused(name: str) -> None:
    session = gapcam.Session(backend := fake_red_and_blue())
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), name: whole(image)[name][:1]}
    session(FRAME)
    with pytest.raises(gapcam.ModelError, match="for 3 frames"):
        session.batch([FRAME] * 3)


def test_a_contract_cannot_switch_the_check_off(tmp_path: Path) -> None:
    contract = a_contract()
    generous = msgspec.structs.replace(
        contract, verification=msgspec.structs.replace(contract.verification, identity_tolerance=1e9)
    )
    path = red_and_blue(tmp_path / "m.onnx", contract=generous, weights=WEIGHTS * 2, logits_weights=WEIGHTS)
    with pytest.raises(gapcam.VerificationError, match=r"at most 0\.1 was expected"):
        gapcam.load(path)


def test_a_model_whose_identity_does_not_hold_is_refused_unless_told_otherwise(tmp_path: Path) -> None:
    """Weights swapped between classes: logits are fine, maps would be wrong."""
    path = red_and_blue(tmp_path / "m.onnx", weights=WEIGHTS[::-1].copy(), logits_weights=WEIGHTS)
    with pytest.raises(gapcam.VerificationError, match="maps would be wrong"):
        gapcam.load(path)
    with gapcam.load(path, verify=False) as session:
        assert session.identity_error > 0.1


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gapcam.VerificationError):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", bias=np.array([np.nan, 0], np.float32)))


def test_the_tolerance_of_the_models_precision_counts(tmp_path: Path) -> None:
    """A model of low precision brings the tolerance that its export held it to."""
    slightly = WEIGHTS * np.float32(1.01)
    contract = a_contract()
    with pytest.raises(gapcam.VerificationError):
        gapcam.load(red_and_blue(tmp_path / "m.onnx", weights=slightly, logits_weights=WEIGHTS))
    loose = msgspec.structs.replace(
        contract,
        precision="int8",
        verification=msgspec.structs.replace(contract.verification, identity_tolerance=0.05),
    )
    gapcam.load(red_and_blue(tmp_path / "m.onnx", contract=loose, weights=slightly, logits_weights=WEIGHTS)).close()


def test_an_engine_that_fails_on_an_input_is_a_backend_error(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(red_and_blue(tmp_path / "m.onnx"))
    with pytest.raises(gapcam.BackendError, match=r"shape \(1, 3, 9, 9\)"):
        backend.run(["logits"], np.zeros((1, 3, 9, 9), np.float32))
    backend.close()


def test_the_network_alone_runs_on_a_preprocessed_image_and_gives_what_results_are_made_of(tmp_path: Path) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    with gapcam.load(red_and_blue(tmp_path / "m.onnx", contract=a_contract(size=(4, 4)))) as session:
        image = gapcam.preprocess(frame, session.contract.preprocessing)[None]
        outputs, result = session.infer(image), session(frame)
    assert list(outputs) == ["logits", "features"]
    np.testing.assert_array_equal(outputs["logits"][0], result.logits)
    np.testing.assert_array_equal(outputs["features"][0], result.features)
    with pytest.raises(gapcam.UsageError, match="closed"):
        session.infer(image)
