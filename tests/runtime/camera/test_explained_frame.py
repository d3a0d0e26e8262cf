"""What sinks get of a frame: maps, boxes, pictures, JSON."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from small_models import a_contract, fake_red_and_blue

from gapcam import MapNotComputedError, Result, Session, UsageError
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import GREATEST_BOXES, GREATEST_PICTURES, ExplainedFrame
from gapcam.camera.explainer import Explainer
from gapcam.look import Look

# Noise, more red than blue, under a blue stripe, which speaks against red. Of a height that captions fit on.
IMAGE = np.random.default_rng(3).integers(0, 256, (180, 250, 3), np.uint8)
IMAGE[..., 0] //= 2
IMAGE[:20] = 255, 0, 0


def explained(
    settings: ExplainSettings, image: np.ndarray = IMAGE, resize: str = "squash", position_s: float | None = None
) -> tuple[ExplainedFrame, Result]:
    with Session(fake_red_and_blue(a_contract(size=(12, 16), resize=resize))) as session:
        result = session(image)
        captured = CapturedFrame("door", 7, image, 5000.0, 1.7e9, position_s)
        return Explainer(session, "door", settings, ClassDemand()).explain(captured, result, 1.5), result


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize(
    ("look", "normalization", "limits"),
    [
        (Look(), "minmax", None),
        (Look("turbo", 0.8, True), "max", None),
        (Look("viridis", 0.3), "fixed", (-1.0, 2.0)),
    ],
)
def test_a_picture_is_the_overlay_of_the_result(
    resize: str, look: Look, normalization: str, limits: tuple[float, float] | None
) -> None:
    settings = ExplainSettings(
        smoothing_s=0,
        classes=(0, 1),
        look=look,
        normalization=normalization,
        limits=limits,
        threshold=0.6,  # type: ignore[arg-type]
    )
    frame, result = explained(settings, resize=resize)
    for index in (0, 1):
        best = result.prediction(index)
        expected = result.overlay(
            index,
            colormap=look.colormap,
            alpha=look.alpha,
            alpha_by_heat=look.alpha_by_heat,
            normalization=normalization,  # type: ignore[arg-type]
            limits=limits,
            boxes=result.boxes(index, threshold=0.6),
            caption=f"{best.label} {best.score:.2f}",
        )
        np.testing.assert_array_equal(frame.picture(index), expected)
        assert frame.boxes(index) == result.boxes(index, threshold=0.6) != ()


def test_a_picture_with_another_look_for_one_viewer() -> None:
    frame, result = explained(ExplainSettings(smoothing_s=0))
    plain = frame.picture("blue", look=Look("hot", 0.9), steady=False, boxes=False, caption=False)
    assert "blue" not in {frame.classes.labels[index] for index in frame.maps}
    np.testing.assert_array_equal(plain, IMAGE)  # it has no map
    shown = frame.picture(look=Look("hot", 0.9), steady=False, boxes=False, caption=False)
    np.testing.assert_array_equal(shown, result.overlay(colormap="hot", alpha=0.9))


def test_steady_colours_end_at_the_limits() -> None:
    frame, result = explained(ExplainSettings(smoothing_s=0))
    low, high = frame.limits[0]
    assert (low, high) == (0, result.map().max())
    expected = result.overlay(normalization="fixed", limits=(low, high))
    np.testing.assert_array_equal(frame.picture(boxes=False, caption=False), expected)
    assert not np.array_equal(expected, result.overlay())


@pytest.mark.parametrize("settings", [{"threshold": 0.6, "percentile": 90.0}, {"clamp_negative": True}])
def test_boxes_are_those_of_the_result(settings: dict[str, float]) -> None:
    frame, result = explained(ExplainSettings(smoothing_s=0, **settings))  # type: ignore[arg-type]
    assert frame.boxes() == result.boxes(**settings) != ()
    own = settings | {"threshold": 0.9}
    assert frame.boxes(threshold=0.9) == result.boxes(**own)
    assert frame.boxes(threshold=0.9) != frame.boxes(threshold=0.1)


def test_a_threshold_that_is_none_is_refused() -> None:
    frame, _ = explained(ExplainSettings())
    for threshold in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError):
            frame.boxes(threshold=threshold)
        with pytest.raises(UsageError):
            frame.picture(threshold=threshold)


def test_a_quiet_scene_is_the_frame_with_its_best_class() -> None:
    frame, _ = explained(ExplainSettings(above=1.0))
    bare = frame.picture(caption=False)
    np.testing.assert_array_equal(bare, IMAGE)
    captioned = frame.picture()
    changed = (captioned != IMAGE).any(axis=2)
    assert changed[:40].any()
    assert not changed[60:].any()
    assert frame.captured.image.flags.writeable  # the source's own array is left as it is
    with pytest.raises(MapNotComputedError, match="any class"):
        frame.map()
    with pytest.raises(MapNotComputedError, match="'blue'"):
        frame.map("blue")


def test_who_asks_for_the_same_picture_gets_the_same_array_and_cannot_write_to_it() -> None:
    frame, _ = explained(ExplainSettings(threshold=0.3))
    picture = frame.picture()
    assert frame.picture("red", look=Look(), threshold=0.3) is picture
    assert frame.picture(caption=False) is not picture
    assert frame.picture(boxes=False, threshold=0.5) is frame.picture(boxes=False, threshold=0.7)
    for drawn in (picture, frame.picture(caption=False), replace(frame, shown=None).picture(caption=False)):
        assert not drawn.flags.writeable


def test_pictures_with_boxes_by_another_threshold_are_other_pictures() -> None:
    frame, result = explained(ExplainSettings(smoothing_s=0, normalization="minmax"))
    pictures = {threshold: frame.picture(caption=False, threshold=threshold) for threshold in (0.2, 0.9)}
    for threshold, picture in pictures.items():
        np.testing.assert_array_equal(picture, result.overlay(boxes=result.boxes(threshold=threshold)))
    assert not np.array_equal(*pictures.values())


def test_a_frame_that_comes_once_more_says_so_as_json() -> None:
    frame, _ = explained(ExplainSettings())
    assert "again" not in frame.to_dict()
    assert replace(frame, again=True).to_dict()["again"] is True


def test_only_a_few_pictures_and_boxes_are_kept_the_oldest_go() -> None:
    frame, _ = explained(ExplainSettings())
    first = frame.picture(look=Look(alpha=0.0))
    for number in range(1, GREATEST_PICTURES):
        frame.picture(look=Look(alpha=number / 100))
    assert frame.picture(look=Look(alpha=0.0)) is first
    frame.picture(look=Look(alpha=0.99))
    assert len(frame._pictures) == GREATEST_PICTURES
    again = frame.picture(look=Look(alpha=0.0))
    assert again is not first
    np.testing.assert_array_equal(again, first)
    for number in range(2 * GREATEST_BOXES):
        frame.boxes(threshold=number / 1000)
    assert len(frame._boxes) == GREATEST_BOXES


def test_threads_that_ask_for_the_same_picture_at_once_share_it() -> None:
    for _ in range(20):
        frame, _ = explained(ExplainSettings())
        barrier = Barrier(8)

        def draw(number: int, frame: ExplainedFrame = frame, barrier: Barrier = barrier) -> np.ndarray:
            barrier.wait()
            frame.boxes(threshold=number / 10)
            frame.to_dict()
            return frame.picture()

        with ThreadPoolExecutor(8) as pool:
            pictures = list(pool.map(draw, range(8)))
        assert len({id(picture) for picture in pictures}) == 1


def test_as_json_it_says_what_it_holds() -> None:
    settings = ExplainSettings(smoothing_s=0, classes=(0, 1), rules=(EventRule(0, enter=0.2, enter_s=0),))
    frame, result = explained(settings, position_s=2.0)
    row = json.loads(json.dumps(frame.to_dict()))
    timings, age = row.pop("timings_ms"), row.pop("age_ms")
    assert list(timings) == ["wait", "preprocess", "inference", "map", "explain", "boxes"]
    assert age == pytest.approx((frame.explained_at - 5000.0) * 1e3, abs=1e-3)
    top = [{"index": each.index, "label": each.label, "score": each.score} for each in result.top]
    assert row == {
        "source": "door",
        "frame": 7,
        "time": 1.7e9,
        "position_s": 2.0,
        "width": 250,
        "height": 180,
        "exact": True,
        "top": top,
        "shown": result.top[0].index,
        "classes": [
            {
                "index": index,
                "label": ("red", "blue")[index],
                "score": float(result.scores[index]),
                "boxes": [[round(side, 2) for side in box] for box in result.boxes(index)],
            }
            for index in (0, 1)
        ],
        "events": [
            {
                "event": "enters",
                "source": "door",
                "frame": 7,
                "time": 1.7e9,
                "index": 0,
                "label": "red",
                "score": float(result.scores[0]),
                "position_s": 2.0,
            }
        ],
    }


def test_times_of_boxes_and_pictures_appear_when_somebody_asked_for_them() -> None:
    frame, _ = explained(ExplainSettings())
    assert frame.drawing_ms == {}
    frame.boxes()
    assert list(frame.drawing_ms) == ["boxes"]
    frame.picture()
    assert list(frame.drawing_ms) == ["boxes", "overlay"]
    assert min(frame.drawing_ms.values()) > 0
    assert "boxes" not in frame.timings_ms
