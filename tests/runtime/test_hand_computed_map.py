"""A 2x2 class activation map worked out on paper, through ONNX Runtime and without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_models import ENGINES, fake_red_and_blue, open_on, red_and_blue

import gapcam

# Red is 1 on the left, blue is 1 at the bottom right; BGR.
FRAME = np.array([[[0, 0, 255], [0, 0, 0]], [[0, 0, 255], [255, 0, 0]]], np.uint8)

# W = [[3, -1], [1, 2]], b = [0.5, -0.25].
RED_MAP = [[3, 0], [3, -1]]  # 3 red - blue
BLUE_MAP = [[1, 0], [1, 2]]  # red + 2 blue
RED_LOGIT = 1.75  # (3 + 0 + 3 - 1) / 4 + 0.5
BLUE_LOGIT = 0.75  # (1 + 0 + 1 + 2) / 4 - 0.25
RED_SCORE = 0.7310585786  # 1 / (1 + exp(0.75 - 1.75))


@pytest.fixture(params=ENGINES)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gapcam.Session]:
    with open_on(request.param, fake_red_and_blue, red_and_blue, tmp_path) as opened:
        yield opened


def test_logits_scores_and_order_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(FRAME)
    np.testing.assert_allclose(result.logits, [RED_LOGIT, BLUE_LOGIT], rtol=1e-6)
    assert [(entry.index, entry.label) for entry in result.top] == [(0, "red"), (1, "blue")]
    assert result.top[0].score == pytest.approx(RED_SCORE, rel=1e-6)
    assert result.scores.sum() == pytest.approx(1, rel=1e-6)


def test_maps_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(FRAME)
    np.testing.assert_allclose(result.map("red"), RED_MAP, atol=1e-6)
    np.testing.assert_allclose(result.map(1), BLUE_MAP, atol=1e-6)
    np.testing.assert_allclose(result.maps(["blue", 0]), [BLUE_MAP, RED_MAP], atol=1e-6)
    np.testing.assert_allclose(result.map(), RED_MAP, atol=1e-6)  # the best class


def test_clamping_leaves_the_negative_weight_out(session: gapcam.Session) -> None:
    result = session(FRAME)
    np.testing.assert_allclose(result.map("red", clamp_negative=True), [[3, 0], [3, 0]], atol=1e-6)
    np.testing.assert_allclose(result.map("red"), RED_MAP, atol=1e-6)  # the two are kept apart


def test_heatmaps_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(FRAME)
    np.testing.assert_allclose(result.heatmap("red"), [[1, 0.25], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(result.heatmap("red", normalization="max"), [[1, 0], [1, 0]], atol=1e-6)
    fixed = result.heatmap("red", normalization="fixed", limits=(-1, 7))
    np.testing.assert_allclose(fixed, [[0.5, 0.125], [0.5, 0]], atol=1e-6)


def test_boxes_are_those_on_paper(session: gapcam.Session) -> None:
    result = session(FRAME)
    assert result.boxes("red") == ((0, 0, 1, 2),)  # 3 and 3 are above 0.6
    assert result.boxes("blue") == ((0, 0, 2, 2),)  # 1, 1 and 2 are above 0.4
    assert result.boxes("blue", threshold=0.5) == ((1, 1, 2, 2),)  # strictly above 1


def test_a_batch_gives_each_frame_what_it_gets_alone(session: gapcam.Session) -> None:
    frames = [FRAME, FRAME[::-1], np.zeros((5, 3, 3), np.uint8)]
    for frame, result in zip(frames, session.batch(frames), strict=True):
        np.testing.assert_allclose(result.logits, session(frame).logits, rtol=1e-6)
        np.testing.assert_allclose(result.map("red"), session(frame).map("red"), atol=1e-6)


def test_class_maps_of_a_static_batch_are_the_features_themselves(tmp_path: Path) -> None:
    from small_models import a_contract

    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract(kind=gapcam.HeadKind.CLASS_MAPS), batch=1)
    with gapcam.load(path) as session:
        assert session.weights is None
        results = session.batch([FRAME, FRAME])
    np.testing.assert_allclose(results[1].map("red"), [[1, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(results[1].maps(["blue"]), [[[0, 0], [0, 1]]], atol=1e-6)
    np.testing.assert_allclose(results[1].logits, [0.5, 0.25], rtol=1e-6)


def test_embedded_preprocessing_gives_the_same_map(tmp_path: Path) -> None:
    from small_models import a_contract

    path = red_and_blue(tmp_path / "m.onnx", contract=a_contract(embedded=True, color="bgr"))
    with gapcam.load(path) as session:
        np.testing.assert_allclose(session(FRAME).map("red"), RED_MAP, atol=1e-6)
