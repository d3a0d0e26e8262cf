"""Maps of a nonlinear head: weighted by the gradient of the logit at each image, for the best classes. On paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small_heads import LABELS, fake_squared, squared, squared_contract
from small_models import ENGINES, open_on

import gapcam
from gapcam.backends import TensorInfo
from gapcam.backends.fake import FakeBackend
from gapcam.cli.main import main

# Logits are B z^2 + d with z = (4 red, 4 red - 4 blue + 1) of the pooled red and blue, B = [[1, 1], [2, -1], [0, 1]]
# and d = [0, 1, -1]. So with s = 2 z the row of class c is B[c,0] s_0 (4, 0) + B[c,1] s_1 (4, -4).

# Red on the left, blue at the bottom right; BGR. p = (1/2, 1/4), z = (2, 2), s = (4, 4).
LEFT = np.array([[[0, 0, 255], [0, 0, 0]], [[0, 0, 255], [255, 0, 0]]], np.uint8)
LEFT_LOGITS = [8, 5, 3]  # 4 + 4, 2 * 4 - 4 + 1, 4 - 1
LEFT_RED = [[32, 0], [32, -16]]  # (16, 0) + (16, -16) = (32, -16)
LEFT_BLUE = [[16, 0], [16, 16]]  # 2 (16, 0) - (16, -16) = (16, 16)
LEFT_GREEN = [[16, 0], [16, -16]]  # (16, -16)

# Red at the top left, blue at the bottom. p = (1/4, 1/2), z = (1, 0), s = (2, 0).
BELOW = np.array([[[0, 0, 255], [0, 0, 0]], [[255, 0, 0], [255, 0, 0]]], np.uint8)
BELOW_LOGITS = [1, 3, -1]  # 1 + 0, 2 - 0 + 1, 0 - 1
BELOW_RED = [[8, 0], [0, 0]]  # (8, 0)
BELOW_BLUE = [[16, 0], [0, 0]]  # 2 (8, 0)


@pytest.fixture(params=ENGINES)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gapcam.Session]:
    with open_on(request.param, fake_squared, squared, tmp_path) as opened:
        yield opened


def test_logits_and_maps_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(LEFT)
    np.testing.assert_allclose(result.logits, LEFT_LOGITS, rtol=1e-6)
    np.testing.assert_allclose(result.map(), LEFT_RED, rtol=1e-6)
    np.testing.assert_allclose(result.maps(["blue", 0]), [LEFT_BLUE, LEFT_RED], rtol=1e-6)


def test_each_image_of_a_batch_brings_its_own_rows_and_best_classes(session: gapcam.Session) -> None:
    left, below = session.batch([LEFT, BELOW])
    np.testing.assert_allclose(left.maps(["red", "blue"]), [LEFT_RED, LEFT_BLUE], atol=1e-5)
    np.testing.assert_allclose(below.logits, BELOW_LOGITS, atol=1e-5)
    np.testing.assert_allclose(below.maps(["red", "blue"]), [BELOW_RED, BELOW_BLUE], atol=1e-5)
    np.testing.assert_allclose(below.map(), BELOW_BLUE, atol=1e-5)


def test_a_row_is_the_gradient_of_its_logit(session: gapcam.Session) -> None:
    """By central differences of the logits, which are exact for squares, in the one pixel that is blue."""
    weak, middle, strong = (
        session(np.where(LEFT[..., :1] > 0, (blue, 0, 0), LEFT).astype(np.uint8)) for blue in (235, 245, 255)
    )
    row = middle.maps([0, 1])[:, 1, 1] / (245 / 255)
    np.testing.assert_allclose(strong.logits[:2] - weak.logits[:2], row * (20 / 255) / 4, rtol=1e-5)


def test_clamping_leaves_the_negative_weight_out(session: gapcam.Session) -> None:
    np.testing.assert_allclose(session(LEFT).map("red", clamp_negative=True), [[32, 0], [32, 0]], rtol=1e-6)


def test_the_session_says_that_maps_are_not_exact(session: gapcam.Session) -> None:
    assert not session.exact
    assert session(LEFT).to_dict()["exact"] is False
    assert session.weights is None
    assert session.bias is None
    assert session.identity_error < 1e-6


def test_rows_are_asked_for_at_each_inference_and_what_only_the_check_needs_once() -> None:
    backend = fake_squared()
    with gapcam.Session(backend) as session:
        session.batch([LEFT, BELOW])
    assert backend.runs == [
        ("logits", "features", "topk_classes", "topk_weights", "topk_bias"),
        ("logits", "features", "topk_classes", "topk_weights"),
    ]


# A class that is not among the best.


def test_a_class_that_is_not_among_the_best_has_no_map_and_the_message_says_what_to_do(
    session: gapcam.Session,
) -> None:
    result = session(LEFT)
    said = r"the map of 'green' is not in this result: .* has rank 3\. Export it again with --topk 3 or more, or with"
    for ask in (result.map, result.heatmap, result.boxes, result.overlay):
        with pytest.raises(gapcam.MapNotComputedError, match=said):
            ask("green")
    with pytest.raises(gapcam.MapNotComputedError, match=said):
        result.maps(["red", "green"])
    assert result.prediction("green").score < 0.01  # scores need no map
    with pytest.raises(gapcam.UsageError):
        result.to_dict(["green"])


def test_maps_that_the_graph_computed_serve_the_classes_without_a_row(tmp_path: Path) -> None:
    with gapcam.load(squared(tmp_path / "m.onnx", maps=True), threads=1) as session:
        left, below = session.batch([LEFT, BELOW])
    np.testing.assert_allclose(left.map("green"), LEFT_GREEN, atol=1e-5)
    np.testing.assert_allclose(left.maps(["green", "red"]), [LEFT_GREEN, LEFT_RED], atol=1e-5)
    np.testing.assert_allclose(below.map("green"), np.zeros((2, 2)), atol=1e-5)  # s_1 = 0
    np.testing.assert_allclose(left.map("red", clamp_negative=True), [[32, 0], [32, 0]], rtol=1e-6)
    said = r"the map without negative weights of 'green' is not .* Export it again with --topk 3 or more$"
    with pytest.raises(gapcam.MapNotComputedError, match=said):
        left.map("green", clamp_negative=True)


# What is wrong with a model.


@pytest.mark.parametrize("factor", [1.01, 0, -1, np.nan, np.inf])
def test_a_model_whose_rows_are_wrong_is_refused_at_load(tmp_path: Path, factor: float) -> None:
    with pytest.raises(gapcam.VerificationError, match="maps would be wrong"):
        gapcam.load(squared(tmp_path / "m.onnx", row_factor=factor))


@pytest.mark.parametrize("factor", [1.01, 0, -1, np.nan])
def test_a_model_whose_maps_are_not_those_of_its_rows_is_refused_at_load(tmp_path: Path, factor: float) -> None:
    with pytest.raises(gapcam.VerificationError, match="maps would be wrong"):
        gapcam.load(squared(tmp_path / "m.onnx", maps=True, map_factor=factor))
    gapcam.load(squared(tmp_path / "m.onnx", map_factor=factor)).close()  # no such output


@pytest.mark.parametrize(
    "change",
    [lambda best: best[:, ::-1], lambda best: best[:, 1:], lambda best: best + 3, lambda best: best - 3],
    ids=["not best first", "without the best", "beyond the last", "from the end"],
)
def test_classes_that_are_not_the_best_or_do_not_exist_are_refused_at_load(
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Each that exists has the tangent that belongs to it."""
    backend = open_backend()
    whole = backend.compute

    def changed(image: np.ndarray) -> dict[str, np.ndarray]:
        arrays = whole(image)
        given = {"topk_classes": change(arrays["topk_classes"])}
        if given["topk_classes"].min() >= 0 and given["topk_classes"].max() < 3:
            given |= {name: change(arrays[name]) for name in ("topk_weights", "topk_bias")}
        return {**arrays, **given}

    backend.compute = changed
    with pytest.raises(gapcam.VerificationError):
        gapcam.Session(backend)


def open_backend() -> FakeBackend:
    """The model as one that declares none of its outputs' sides."""
    backend = fake_squared()
    for name, info in backend.outputs.items():
        backend.outputs[name] = TensorInfo(name, (None,) * len(info.shape), info.dtype)
    return backend


@pytest.mark.parametrize("verify", [True, False])
def test_sides_that_the_model_leaves_open_are_checked_on_a_run(verify: bool) -> None:
    backend = open_backend()
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "topk_weights": whole(image)["topk_weights"][:, :1]}
    with pytest.raises(gapcam.ModelError, match="2 and 1 should be equal"):
        gapcam.Session(backend, verify=verify)


def test_a_frame_whose_rows_are_not_finite_is_an_error() -> None:
    session = gapcam.Session(backend := fake_squared())
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "topk_weights": np.full((1, 2, 2), np.inf, np.float32)}
    with pytest.raises(gapcam.VerificationError, match="values of topk_weights that are not finite"):
        session(LEFT)


@pytest.mark.parametrize("name", ["topk_classes", "topk_weights", "topk_bias"])
def test_a_model_that_lacks_an_output_is_refused(tmp_path: Path, name: str) -> None:
    def drop(model: onnx.ModelProto) -> None:
        model.graph.output.remove(next(output for output in model.graph.output if output.name == name))

    with pytest.raises(gapcam.ModelError, match=f"no output '{name}'"):
        gapcam.load(squared(tmp_path / "m.onnx", change=drop))


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (TensorInfo("topk_classes", (None, 2), "float32"), "expected 2 axes of int64"),
        (TensorInfo("topk_classes", (None, 3), "int64"), "should be equal"),
        (TensorInfo("topk_weights", (None, 2), "float32"), "expected 3 axes of floats"),
        (TensorInfo("topk_weights", (None, 2, 3), "float32"), "should be equal"),
        (TensorInfo("topk_weights", (None, 1, 2), "float32"), "should be equal"),
        (TensorInfo("topk_bias", (None, 1), "float32"), "should be equal"),
        (TensorInfo("maps", (None, 2, 2, 2), "float32"), "should be equal"),
        (TensorInfo("maps", (None, 3, 2, 4), "float32"), "should be equal"),
        (TensorInfo("maps", (None, 3), "float32"), "expected 4 axes of floats"),
    ],
    ids=str,
)
def test_outputs_of_another_shape_or_type_are_refused_before_anything_runs(info: TensorInfo, said: str) -> None:
    backend = fake_squared()
    backend.outputs[info.name] = info
    with pytest.raises(gapcam.ModelError, match=said):
        gapcam.Session(backend)
    assert not backend.runs


def test_more_best_classes_than_classes_are_refused() -> None:
    backend = fake_squared()
    for name, info in backend.outputs.items():
        if name.startswith("topk"):
            backend.outputs[name] = TensorInfo(name, (None, 4, *info.shape[2:]), info.dtype)
    with pytest.raises(gapcam.ModelError, match="more best classes than classes"):
        gapcam.Session(backend)


# The command line.


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """The two frames."""
    paths = [tmp_path / "left.png", tmp_path / "below.png"]
    for path, frame in zip(paths, (LEFT, BELOW), strict=True):
        assert cv2.imwrite(str(path), frame)
    return [str(path) for path in paths]


def test_run_says_once_that_maps_are_not_exact_and_in_each_line_of_json(tmp_path: Path, pictures: list[str]) -> None:
    model = str(squared(tmp_path / "m.onnx"))
    done = CliRunner().invoke(main, ["run", model, *pictures, "--json"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("not exact: the head is nonlinear") == 1
    assert [json.loads(line)["exact"] for line in done.stdout.splitlines()] == [False, False]
    assert "not exact" in CliRunner().invoke(main, ["run", model, *pictures]).stderr


def test_run_skips_an_image_whose_class_has_no_map_and_does_the_rest(tmp_path: Path) -> None:
    """Where all is blue, z = (0, -3): the logits are 9, -8 and 8, so that green is second."""
    frames = {"left": LEFT, "blue": np.full((2, 2, 3), (255, 0, 0), np.uint8)}
    for name, frame in frames.items():
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), frame)
    model, output = squared(tmp_path / "m.onnx"), tmp_path / "out"
    arguments = ["run", model, tmp_path / "left.png", tmp_path / "blue.png", "--classes", "green", "-o", output]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 1
    skipped, explained = map(json.loads, (output / "results.jsonl").read_text(encoding="utf-8").splitlines())
    assert "has rank 3. Export it again with --topk 3" in skipped["error"]
    assert explained["classes"][0]["label"] == "green"
    assert sorted(path.name for path in output.iterdir()) == ["blue.overlay.png", "results.jsonl"]
    assert "skipped" in done.stderr


def test_inspect_says_that_maps_are_not_exact_and_how_well_the_export_found_the_gradient(tmp_path: Path) -> None:
    plain = squared_contract(scores="sigmoid")
    measured = msgspec.structs.replace(plain.verification, gradient_error=2.5e-4, gradient_tolerance=1e-2)
    contract = msgspec.structs.replace(plain, verification=measured)
    model = str(squared(tmp_path / "m.onnx", contract=contract))
    done = CliRunner().invoke(main, ["inspect", model])
    assert done.exit_code == 0
    assert "not exact: the head is nonlinear" in done.stdout
    assert "topk_weights [N, 2, 2] float32" in done.stdout
    assert "gradient to 2.5e-04 (allowed 1e-02)" in done.stdout
    assert "sigmoid" in done.stdout
    head = json.loads(CliRunner().invoke(main, ["inspect", model, "--json"]).stdout)["contract"]["head"]
    assert (head["kind"], head["exact"]) == ("nonlinear", False)


def test_a_model_without_labels_names_the_class_by_its_number(tmp_path: Path) -> None:
    assert LABELS[2] == "green"
    path = squared(tmp_path / "m.onnx", contract=squared_contract(labels=()))
    with gapcam.load(path) as session, pytest.raises(gapcam.MapNotComputedError, match="the map of 'class 2' is not"):
        session(LEFT).map(2)
