"""Maps of a head with a layer normalisation after the pooling: exact with one scale an image. Worked out on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_heads import CENTRED, fake_normed, normed
from small_models import BIAS, ENGINES, open_on

import gapcam
from gapcam.backends import TensorInfo

# Red is 1 everywhere, blue at the bottom right; BGR. p = (1, 1/4): its mean is 5/8, its variance (3/8)^2, so that
# sigma = sqrt(9/64 + 1/4) = 5/8 and the scale 8/5.
RED_FRAME = np.array([[[0, 0, 255], [0, 0, 255]], [[0, 0, 255], [255, 0, 255]]], np.uint8)
# Red at the top left, blue at the bottom right: p = (1/4, 1/4), without variance; sigma = sqrt(1/4), the scale 2.
EVEN_FRAME = np.array([[[0, 0, 255], [0, 0, 0]], [[0, 0, 0], [255, 0, 0]]], np.uint8)

# W = [[2, -2], [-1/2, 1/2]] (rows less their means), b = [0.5, -0.25]
RED_FRAMES_MAPS = [[[3.2, 3.2], [3.2, 0]], [[-0.8, -0.8], [-0.8, 0]]]  # 1.6 (2 red - 2 blue), 1.6 (blue - red) / 2
RED_FRAMES_LOGITS = [2.9, -0.85]  # 9.6 / 4 + 0.5, -2.4 / 4 - 0.25
EVEN_FRAMES_MAPS = [[[4, 0], [0, -4]], [[-1, 0], [0, 1]]]  # 2 (2 red - 2 blue), 2 (blue - red) / 2
EVEN_FRAMES_LOGITS = [0.5, -0.25]  # what is normalised is zero


@pytest.fixture(params=ENGINES)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gapcam.Session]:
    with open_on(request.param, fake_normed, normed, tmp_path) as opened:
        yield opened


def test_logits_and_maps_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(RED_FRAME)
    np.testing.assert_allclose(result.logits, RED_FRAMES_LOGITS, rtol=1e-6)
    np.testing.assert_allclose(result.map("red"), RED_FRAMES_MAPS[0], atol=1e-6)
    np.testing.assert_allclose(result.maps([0, "blue"]), RED_FRAMES_MAPS, atol=1e-6)


def test_each_image_of_a_batch_brings_its_own_scale(session: gapcam.Session) -> None:
    red, even = session.batch([RED_FRAME, EVEN_FRAME])
    np.testing.assert_allclose(red.maps([0, 1]), RED_FRAMES_MAPS, atol=1e-6)
    np.testing.assert_allclose(even.maps([0, 1]), EVEN_FRAMES_MAPS, atol=1e-6)
    np.testing.assert_allclose(even.logits, EVEN_FRAMES_LOGITS, atol=1e-6)
    for result in (red, even):
        np.testing.assert_allclose(result.maps([0, 1]).mean(axis=(1, 2)) + session.bias, result.logits, atol=1e-6)


def test_clamping_leaves_the_negative_weight_out(session: gapcam.Session) -> None:
    clamped = session(EVEN_FRAME).map("red", clamp_negative=True)
    np.testing.assert_allclose(clamped, [[4, 0], [0, 0]], atol=1e-6)


def test_the_session_says_that_maps_are_exact_and_keeps_the_weights_that_images_share(session: gapcam.Session) -> None:
    assert session.exact
    assert session(RED_FRAME).to_dict()["exact"] is True
    np.testing.assert_array_equal(session.weights, CENTRED)
    np.testing.assert_array_equal(session.bias, BIAS)
    assert session.identity_error < 1e-6


def test_the_scale_is_asked_for_at_each_inference_and_the_constants_once() -> None:
    backend = fake_normed()
    with gapcam.Session(backend) as session:
        session.batch([RED_FRAME, EVEN_FRAME])
    assert backend.runs == [
        ("logits", "features", "cam_scale", "cam_weights", "cam_bias"),
        ("logits", "features", "cam_scale"),
    ]


@pytest.mark.parametrize("factor", [1.01, 0.5, -1, 0, np.nan, np.inf])
def test_a_model_whose_scale_is_wrong_is_refused_at_load(tmp_path: Path, factor: float) -> None:
    with pytest.raises(gapcam.VerificationError, match="maps would be wrong"):
        gapcam.load(normed(tmp_path / "m.onnx", factor=factor))


def test_a_scale_is_not_positive_even_where_the_identity_would_hold() -> None:
    """Scale and weights both with the other sign: clamping would then keep the wrong weights."""
    backend = fake_normed()
    whole = backend.compute

    def turned(image: np.ndarray) -> dict[str, np.ndarray]:
        arrays = whole(image)
        return {**arrays, "cam_scale": -arrays["cam_scale"], "cam_weights": -arrays["cam_weights"]}

    backend.compute = turned
    with pytest.raises(gapcam.VerificationError):
        gapcam.Session(backend)


@pytest.mark.parametrize("wrong", [0, -1, np.nan, np.inf])
def test_a_frame_whose_scale_is_not_finite_and_positive_is_an_error(wrong: float) -> None:
    session = gapcam.Session(backend := fake_normed())
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "cam_scale": np.array([1, wrong], np.float32)}
    with pytest.raises(gapcam.VerificationError, match="values of cam_scale that are not finite and positive"):
        session.batch([RED_FRAME, EVEN_FRAME])


def test_scales_for_fewer_frames_than_asked_are_refused() -> None:
    session = gapcam.Session(backend := fake_normed())
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "cam_scale": np.ones(1, np.float32)}
    with pytest.raises(gapcam.ModelError, match="2 features, 1 cam_scale for 2 frames"):
        session.batch([RED_FRAME, EVEN_FRAME])


@pytest.mark.parametrize("name", ["cam_weights", "cam_bias", "cam_scale"])
def test_a_model_that_lacks_an_output_is_refused(tmp_path: Path, name: str) -> None:
    def drop(model: onnx.ModelProto) -> None:
        model.graph.output.remove(next(output for output in model.graph.output if output.name == name))

    with pytest.raises(gapcam.ModelError, match=f"no output '{name}'"):
        gapcam.load(normed(tmp_path / "m.onnx", change=drop))


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (TensorInfo("cam_scale", (None, 1), "float32"), "expected 1 axis of floats"),
        (TensorInfo("cam_scale", (None,), "int64"), "expected 1 axis of floats"),
        (TensorInfo("cam_weights", (3, 2), "float32"), "should be equal"),
    ],
)
def test_outputs_of_another_shape_or_type_are_refused_before_anything_runs(info: TensorInfo, said: str) -> None:
    backend = fake_normed()
    backend.outputs[info.name] = info
    with pytest.raises(gapcam.ModelError, match=said):
        gapcam.Session(backend)
    assert not backend.runs


@pytest.mark.parametrize("verify", [True, False])
def test_a_scale_for_each_class_is_none_for_each_image(verify: bool) -> None:
    backend = fake_normed()
    whole = backend.compute
    backend.compute = lambda image: {**whole(image), "cam_scale": np.ones(2, np.float32)}
    with pytest.raises(gapcam.ModelError, match="1 and 2 should be equal"):
        gapcam.Session(backend, verify=verify)
