"""From results to explained frames: what is computed when, what is averaged, what is noticed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import exp
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_heads import fake_squared
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam import ClassNotFoundError, MapNotComputedError, Result, Session, UsageError
from gapcam.cam import normalize
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.event_rules import EventRule
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.explainer import Explainer
from gapcam.camera.zones import Zone, rectangle

RED, BLUE = 0, 1
RAW = {"smoothing_s": 0.0}
AT_ONCE = {"enter_s": 0.0, "leave_s": 0.0}


def scene(red: float = 0.0, blue: float = 0.0, columns: slice = slice(None)) -> np.ndarray:
    """80 x 120 x 3 BGR, black but for these columns: the more red or blue they are, the surer is the class."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[:, columns] = round(255 * blue), 0, round(255 * red)
    return image


LOUD, QUIET = scene(red=1), scene(red=0.25, blue=0.25)
"""Both are red, with scores of 0.94 and 0.62."""


class Camera:
    """One source whose frames are explained."""

    def __init__(self, session: Session, settings: ExplainSettings, demand: ClassDemand | None = None) -> None:
        self.session, self.demand = session, demand or ClassDemand()
        self.explainer = Explainer(session, "door", settings, self.demand)
        self.number = -1
        self.result: Result

    def see(
        self, image: np.ndarray, at: float | None = None, position_s: float | None = None, still: bool = False
    ) -> ExplainedFrame:
        self.number += 1
        at = self.number / 10 if at is None else at
        self.result = self.session(image)
        captured = CapturedFrame("door", self.number, image, 5000 + at, 1e9 + at, position_s, still)
        return self.explainer.explain(captured, self.result, 1.5)


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(fake_red_and_blue(a_contract(size=(8, 8)))) as opened:
        yield opened


def is_computed(frame: ExplainedFrame) -> bool:
    """Whether any map was computed of it."""
    return "map" in frame.timings_ms


def test_without_smoothing_a_frame_says_what_its_result_says(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, topk=2))
    rng = np.random.default_rng(0)
    for _ in range(5):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        frame = camera.see(image)
        np.testing.assert_array_equal(frame.scores, camera.result.scores)
        assert frame.top == camera.result.best(2)
        assert frame.shown == camera.result.best(1)[0].index
        np.testing.assert_array_equal(frame.map(), camera.result.map())
        assert frame.boxes() == camera.result.boxes()
        assert frame.placement == camera.result.placement
        assert frame.exact
        assert frame.events == ()
        assert frame.captured.image is image


def test_the_times_of_all_steps_are_there(session: Session) -> None:
    frame = Camera(session, ExplainSettings()).see(LOUD)
    assert list(frame.timings_ms) == ["wait", "preprocess", "inference", "map", "explain"]
    assert frame.timings_ms["wait"] == 1.5
    assert frame.timings_ms["explain"] >= frame.timings_ms["map"] > 0


@pytest.mark.parametrize("in_file", [False, True])
def test_scores_and_maps_are_averaged_over_the_time_between_frames(session: Session, in_file: bool) -> None:
    tau = 0.5
    camera = Camera(session, ExplainSettings(smoothing_s=tau, classes=("red",)))
    rng = np.random.default_rng(1)
    scores, raw, before = None, None, 0.0
    for at in np.cumsum([0.1, 0.03, 0.5, 0.01, 1.0, 0.2]):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        # of a file only the place in it counts, however fast it is read
        frame = camera.see(image, 0.0, position_s=at) if in_file else camera.see(image, at)
        weight = 1 - exp(-(at - before) / tau)
        new_scores, new_map = camera.result.scores.astype(float), camera.result.map("red").astype(float)
        scores = new_scores if scores is None else scores + weight * (new_scores - scores)
        raw = new_map if raw is None else raw + weight * (new_map - raw)
        np.testing.assert_allclose(frame.scores, scores, rtol=1e-5)
        np.testing.assert_allclose(frame.map("red"), raw, rtol=1e-4, atol=1e-5)
        assert [prediction.score for prediction in frame.top] == sorted(frame.scores.tolist(), reverse=True)
        assert [prediction.index for prediction in frame.top] == np.argsort(-frame.scores).tolist()
        before = at


def test_maps_are_computed_on_each_nth_frame_and_held_until_the_next(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=3))
    frames = [camera.see(scene(red=0.9 + number / 100)) for number in range(7)]
    assert [is_computed(frame) for frame in frames] == [True, False, False, True, False, False, True]
    assert frames[0].map() is frames[1].map() is frames[2].map()
    assert not np.array_equal(frames[2].map(), frames[3].map())
    np.testing.assert_array_equal(frames[6].map(), camera.result.map())


def test_a_held_map_stays_the_one_that_is_shown_when_another_class_becomes_the_best(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=3))
    red, blue = scene(red=1), scene(blue=1)
    frames = [camera.see(image) for image in (red, blue, red, blue)]
    assert [frame.top[0].index for frame in frames] == [RED, BLUE, RED, BLUE]
    assert [frame.shown for frame in frames] == [RED, RED, RED, BLUE]
    assert frames[1].map() is frames[0].map()


def test_a_quiet_scene_costs_the_classifier_only(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, above=0.8))
    frames = [camera.see(image) for image in (QUIET, LOUD, QUIET, QUIET, LOUD)]
    assert [frame.shown for frame in frames] == [None, RED, None, None, RED]
    assert [is_computed(frame) for frame in frames] == [False, True, False, False, True]
    for frame in (frames[0], frames[2]):
        assert dict(frame.maps) == {}
        assert frame.boxes() == ()
        assert frame.to_dict()["classes"] == []
        with pytest.raises(MapNotComputedError):
            frame.map()
    assert frames[0].top[0].score == pytest.approx(0.622, abs=0.002)


def test_the_smoothed_score_decides_whether_a_scene_is_quiet(session: Session) -> None:
    camera = Camera(session, ExplainSettings(smoothing_s=1.0, above=0.8))
    assert camera.see(QUIET, 0.0).shown is None
    assert camera.see(LOUD, 0.1).shown is None
    assert camera.see(LOUD, 2.0).shown == RED


def test_a_scene_that_is_no_longer_quiet_does_not_wait_for_its_turn(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=3, above=0.8))
    frames = [camera.see(image) for image in (LOUD, QUIET, LOUD, QUIET, QUIET, LOUD, LOUD)]
    assert [is_computed(frame) for frame in frames] == [True, False, False, False, False, True, False]
    assert [frame.shown for frame in frames] == [RED, None, RED, None, None, RED, RED]


def test_after_a_quiet_scene_another_class_is_shown_with_its_own_map(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=10, above=0.8))
    frames = [camera.see(image) for image in (LOUD, QUIET, scene(blue=1), scene(blue=1), QUIET, scene(blue=1))]
    assert [is_computed(frame) for frame in frames] == [True, False, True, False, False, False]
    assert [frame.shown for frame in frames] == [RED, None, BLUE, BLUE, None, BLUE]
    assert set(frames[2].maps) == {BLUE}


def test_a_class_whose_score_fell_below_the_limit_is_not_held(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=10, above=0.8, classes=("red", "blue")))
    frames = [camera.see(image) for image in (LOUD, scene(blue=1), scene(blue=1))]
    assert [is_computed(frame) for frame in frames] == [True, True, False]
    assert [frame.shown for frame in frames] == [RED, BLUE, BLUE]


def test_the_best_class_may_change_while_a_map_is_held(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, every=3))
    frames = [camera.see(image) for image in (LOUD, scene(blue=1), LOUD, scene(blue=1))]
    assert [is_computed(frame) for frame in frames] == [True, False, False, True]
    assert [frame.shown for frame in frames] == [RED, RED, RED, BLUE]


def test_what_somebody_picked_does_not_wait_for_its_turn(session: Session) -> None:
    demand = ClassDemand()
    camera = Camera(session, ExplainSettings(**RAW, every=10), demand)
    assert is_computed(camera.see(LOUD))
    demand.acquire(BLUE)
    frames = [camera.see(LOUD) for _ in range(3)]
    assert [is_computed(frame) for frame in frames] == [True, False, False]
    assert all(set(frame.maps) == {RED, BLUE} for frame in frames)


def test_maps_only_while_the_best_class_is_one_of_these(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, only_classes=("blue",)))
    assert camera.see(scene(red=1)).shown is None
    assert camera.see(scene(blue=1)).shown == BLUE


def test_chosen_classes_get_maps_and_the_best_of_them_is_shown(session: Session) -> None:
    camera = Camera(session, ExplainSettings(**RAW, classes=("red", 1, "1")))
    for image, best in ((scene(red=1), RED), (scene(blue=1), BLUE)):
        frame = camera.see(image)
        assert set(frame.maps) == {RED, BLUE}
        assert frame.shown == best
    only_red = Camera(session, ExplainSettings(**RAW, classes=("red",)))
    assert only_red.see(scene(blue=1)).shown == RED


def test_what_somebody_picked_gets_its_map_in_a_quiet_scene_too(session: Session) -> None:
    demand = ClassDemand()
    camera = Camera(session, ExplainSettings(**RAW, above=0.8), demand)
    demand.acquire(BLUE)
    demand.acquire(1000)  # of another model
    frame = camera.see(QUIET)
    assert frame.shown is None
    assert set(frame.maps) == {BLUE}
    np.testing.assert_array_equal(frame.map("blue"), camera.result.map("blue"))
    demand.release(BLUE)
    assert dict(camera.see(QUIET).maps) == {}


def test_a_class_that_is_picked_anew_begins_with_its_present_map(session: Session) -> None:
    demand = ClassDemand()
    camera = Camera(session, ExplainSettings(smoothing_s=10, classes=("red",)), demand)
    demand.acquire(BLUE)
    camera.see(scene(blue=1, columns=slice(0, 60)))
    demand.release(BLUE)
    camera.see(scene(blue=1))
    demand.acquire(BLUE)
    frame = camera.see(scene(blue=1, columns=slice(60, 120)))
    np.testing.assert_array_equal(frame.map("blue"), camera.result.map("blue"))
    assert not np.array_equal(frame.map("red"), camera.result.map("red"))


def test_sources_remember_for_themselves_and_share_the_demand(session: Session) -> None:
    demand = ClassDemand()
    first = Camera(session, ExplainSettings(smoothing_s=10), demand)
    second = Camera(session, ExplainSettings(smoothing_s=10), demand)
    first.see(scene(blue=1))
    demand.acquire(BLUE)
    frame = second.see(LOUD)
    np.testing.assert_array_equal(frame.scores, second.result.scores)
    assert set(frame.maps) == {RED, BLUE}
    assert set(first.see(LOUD).maps) == {BLUE}  # its best class still


@pytest.mark.parametrize("in_file", [False, True])
def test_after_a_gap_all_begins_anew_and_what_was_there_has_left(session: Session, in_file: bool) -> None:
    settings = ExplainSettings(smoothing_s=10, gap_s=2, every=100, rules=(EventRule("red", **AT_ONCE),))
    camera = Camera(session, settings)

    def see(image: np.ndarray, at: float) -> ExplainedFrame:
        return camera.see(image, 0.0 if in_file else at, position_s=at if in_file else None)

    for at in (1.0, 1.5, 2.0):
        see(LOUD, at)
    assert [event.kind for event in see(scene(red=1), 4.0).events] == []  # no gap yet
    frame = see(scene(blue=1), 6.1)
    np.testing.assert_array_equal(frame.scores, camera.result.scores)
    assert is_computed(frame)
    (event,) = frame.events
    assert (event.kind, event.number, event.seconds) == ("leaves", 3, pytest.approx(3.0))
    again = see(LOUD, 5.0)  # a file that begins anew
    np.testing.assert_array_equal(again.scores, camera.result.scores)
    assert [event.kind for event in again.events] == ["enters"]


def test_separate_pictures_share_nothing_and_have_no_events(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    rules = (EventRule("*", enter=0.5, **AT_ONCE),)
    zones = (Zone("all", rectangle(0, 0, 1, 1), **AT_ONCE),)
    camera = Camera(session, ExplainSettings(smoothing_s=10, every=3, rules=rules, zones=zones))
    rng = np.random.default_rng(5)
    with caplog.at_level(logging.WARNING, "gapcam.camera"):
        for second in range(6):
            frame = camera.see(rng.integers(0, 256, (48, 64, 3), np.uint8), 0.0, float(second), still=True)
            np.testing.assert_array_equal(frame.scores, camera.result.scores)
            np.testing.assert_array_equal(frame.map(), camera.result.map())
            assert frame.limits[frame.top[0].index][1] == frame.map().max()
            assert frame.events == ()
    assert camera.explainer.end() == []
    (record,) = caplog.records
    assert "separate pictures have no events" in record.getMessage()


@pytest.mark.parametrize("way", ["size", "placement"])
def test_where_frames_lie_otherwise_in_the_input_all_but_events_begins_anew(way: str) -> None:
    settings = ExplainSettings(smoothing_s=10, every=3, classes=("red",), rules=(EventRule("red", **AT_ONCE),))
    low, high = a_contract(size=(8, 8), resize="letterbox"), a_contract(size=(8, 8), resize="squash")
    with Session(fake_red_and_blue(low)) as first, Session(fake_red_and_blue(high)) as second:
        camera = Camera(first, settings)
        camera.see(scene(red=1, columns=slice(0, 40)))
        held = camera.see(scene(red=1))
        assert not is_computed(held)
        if way == "size":
            image = np.ascontiguousarray(scene(red=0.5).transpose(1, 0, 2))
        else:
            camera.session, image = second, scene(red=0.5)
        frame = camera.see(image)
        np.testing.assert_array_equal(frame.scores, camera.result.scores)
        np.testing.assert_array_equal(frame.map("red"), camera.result.map("red"))
        assert frame.limits[RED][1] < held.limits[RED][1]
        assert frame.boxes("red") == camera.result.boxes("red")
        assert frame.events == ()  # it is there still
        assert not is_computed(camera.see(image))
        (event,) = camera.explainer.end()
        assert (event.kind, event.seconds) == ("leaves", pytest.approx(0.3))


def test_a_camera_slower_than_the_gap_has_events_once_its_step_is_known(session: Session) -> None:
    rules = (EventRule("red", enter_s=0, leave_s=0, stay_s=(60.0,)),)
    camera = Camera(session, ExplainSettings(gap_s=5, rules=rules))
    steps = [10.0 * number for number in range(12)]
    told = {at: [event.kind for event in camera.see(LOUD, at).events] for at in steps}
    assert {at: kinds for at, kinds in told.items() if kinds} == {
        0: ["enters"],
        10: ["leaves", "enters"],  # two frames ten seconds apart may be a pause
        70: ["stays"],
    }
    assert camera.explainer.gap_s == 30
    assert [event.kind for event in camera.see(LOUD, 141.0).events] == ["leaves", "enters"]


def test_one_pause_does_not_make_a_camera_a_slow_one(session: Session) -> None:
    camera = Camera(session, ExplainSettings(gap_s=5))
    for at in (0.0, 0.1, 0.2, 100.0, 100.1):
        camera.see(LOUD, at)
    assert camera.explainer.gap_s == 5


def test_limits_are_of_what_is_seen_of_a_map_not_of_a_letterboxs_bars() -> None:
    image = np.zeros((20, 120, 3), np.uint8)
    image[:, :60, 2], image[:, 60:, 2] = 10, 20  # on grey bars, which are redder
    with Session(fake_red_and_blue(a_contract(size=(12, 12), resize="letterbox"))) as session:
        frame = Camera(session, ExplainSettings(**RAW, classes=("red",))).see(image)
    assert tuple(frame.placement.input_rect) == (0, 5, 12, 2)
    seen = frame.map("red")[5:7]
    assert frame.map("red").max() > 2 * seen.max() > 0
    assert frame.limits[RED] == (pytest.approx(seen.min()), pytest.approx(seen.max()))


def test_the_end_of_a_source_is_the_end_of_what_was_there(session: Session) -> None:
    camera = Camera(session, ExplainSettings(rules=(EventRule("red", **AT_ONCE),)))
    assert camera.explainer.end() == []
    camera.see(LOUD, 0.0)
    camera.see(LOUD, 0.5)
    (event,) = camera.explainer.end()
    assert (event.kind, event.number, event.time, event.seconds) == ("leaves", 1, 1e9 + 0.5, 0.5)
    frame = camera.see(scene(blue=1), 0.6)
    np.testing.assert_array_equal(frame.scores, camera.result.scores)


def test_events_are_told_by_the_smoothed_scores(session: Session) -> None:
    tau = 0.5
    camera = Camera(session, ExplainSettings(smoothing_s=tau, rules=(EventRule("blue", enter=0.5, **AT_ONCE),)))
    high, low = 0.9047, 0.0601
    events, scores = [], []
    for number in range(40):
        events += camera.see(scene(blue=1) if 0 < number < 20 else LOUD).events
        scores.append(high + (low - high) * exp(-number / 10 / tau))
    enters = next(number for number, score in enumerate(scores) if score >= 0.5)
    top = scores[19]
    leaves = next(number for number in range(20) if low + (top - low) * exp(-(number + 1) / 10 / tau) < 0.3) + 20
    assert [(event.kind, event.number) for event in events] == [("enters", enters), ("leaves", leaves)]
    assert events[0].score == pytest.approx(scores[enters], abs=1e-3)


def test_a_box_that_comes_into_a_zone_is_noticed_though_the_scene_is_quiet(session: Session) -> None:
    zone = Zone("left", rectangle(0, 0, 0.5, 1), **AT_ONCE)
    settings = ExplainSettings(**RAW, above=1.0, rules=(EventRule("red", enter=0.7, **AT_ONCE),), zones=(zone,))
    camera = Camera(session, settings)
    right, left = scene(red=1, columns=slice(60, 120)), scene(red=1, columns=slice(0, 60))
    frames = [camera.see(image) for image in (scene(), right, left, right)]
    told = [[(event.kind, event.zone) for event in frame.events] for frame in frames]
    assert told == [[], [("enters", None)], [("enters zone", "left")], [("leaves zone", "left")]]
    assert [frame.shown for frame in frames] == [None] * 4
    assert [is_computed(frame) for frame in frames] == [False, True, True, True]  # not before the class is there
    assert frames[2].boxes("red") == camera.session(left).boxes("red")


def test_zones_are_looked_at_when_maps_are_computed(session: Session) -> None:
    zone = Zone("left", rectangle(0, 0, 0.5, 1), **AT_ONCE)
    camera = Camera(
        session, ExplainSettings(**RAW, every=2, rules=(EventRule("red", enter=0.7, **AT_ONCE),), zones=(zone,))
    )
    right, left = scene(red=1, columns=slice(60, 120)), scene(red=1, columns=slice(0, 60))
    told = [[event.kind for event in camera.see(image).events] for image in (right, left, left, right, right)]
    assert told == [["enters"], [], ["enters zone"], [], ["leaves zone"]]


@pytest.mark.parametrize(
    ("settings", "inside"), [({}, True), ({"threshold": 0.9}, False), ({"threshold": 0.9, "percentile": 50}, True)]
)
def test_zones_see_the_boxes_that_sinks_see(session: Session, settings: dict[str, float], inside: bool) -> None:
    image = scene(red=0.5)
    image[:, 100:] = 0, 0, 255  # warmer at the right edge
    zone = Zone("left", rectangle(0, 0, 0.7, 1), enter=0.6, **AT_ONCE)
    rules = (EventRule("red", **AT_ONCE),)
    frame = Camera(session, ExplainSettings(**RAW, **settings, rules=rules, zones=(zone,))).see(image)  # type: ignore[arg-type]
    (box,) = frame.boxes("red")
    assert (zone.part_inside(box, 120, 80) >= 0.6) == inside
    assert ("enters zone" in [event.kind for event in frame.events]) == inside


@pytest.mark.parametrize("every", [1, 10])
def test_a_map_that_the_graph_does_not_compute_is_noted_once_and_the_rest_goes_on(
    every: int, caplog: pytest.LogCaptureFixture
) -> None:
    demand = ClassDemand()
    with Session(fake_squared()) as session, caplog.at_level(logging.WARNING, "gapcam.camera"):
        camera = Camera(session, ExplainSettings(**RAW, every=every), demand)
        for index in range(3):
            demand.acquire(index)
        for _ in range(2):
            frame = camera.see(np.full((4, 4, 3), 200, np.uint8))
            (lacking,) = frame.lacking
            assert lacking == camera.result.best(3)[2].index
            assert set(frame.maps) == {0, 1, 2} - {lacking}
            assert frame.to_dict()["lacking"] == [lacking]
            assert not frame.exact
            with pytest.raises(MapNotComputedError):
                frame.map(lacking)
            np.testing.assert_array_equal(frame.picture(lacking, caption=False), frame.captured.image)
    (record,) = caplog.records
    assert record.source == "door"  # type: ignore[attr-defined]
    assert "rank 3" in record.getMessage()


@pytest.mark.parametrize("name", ["classes", "only_classes"])
def test_a_class_that_the_model_does_not_have_is_refused_before_any_frame(session: Session, name: str) -> None:
    with pytest.raises(ClassNotFoundError, match="green"):
        Camera(session, ExplainSettings(**{name: ("green",)}))
    with pytest.raises(ClassNotFoundError):
        Camera(session, ExplainSettings(rules=(EventRule("green"),)))


def test_two_rules_about_a_class_are_refused_before_any_frame(session: Session) -> None:
    with pytest.raises(UsageError, match="'red'"):
        Camera(session, ExplainSettings(rules=(EventRule("red"), EventRule(0))))


def test_a_real_video_flickers_less_with_steady_colours_and_far_less_with_averages(
    data: Path, demo_model: Path
) -> None:
    ways = {
        "minmax": ExplainSettings(**RAW, classes=(89,), normalization="minmax"),
        "steady": ExplainSettings(**RAW, classes=(89,)),
        "smooth": ExplainSettings(classes=(89,)),
    }
    levels: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    video = cv2.VideoCapture(str(data / "video" / "cockatoo.mp4"))
    with gapcam.load(demo_model, device="cpu", threads=1) as session:
        cameras = {way: Camera(session, settings) for way, settings in ways.items()}
        for number in range(40):
            _, image = video.read()
            result = session(image)
            for way, camera in cameras.items():
                captured = CapturedFrame("file", number, image, number / 20, 0, number / 20)
                frame = camera.explainer.explain(captured, result, 0)
                ends = frame.limits[89] if frame.steady else None
                levels[way].append(255 * normalize(frame.map(), "fixed" if ends else "minmax", ends))
    video.release()
    flicker = {way: np.abs(np.diff(each, axis=0)).mean() for way, each in levels.items()}
    assert flicker["steady"] < 0.75 * flicker["minmax"]
    assert flicker["smooth"] < 0.4 * flicker["steady"]
