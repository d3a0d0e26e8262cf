"""Events of a source from its scores and boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapcam import Box, ClassNotFoundError, UsageError
from gapcam.camera.event import Event
from gapcam.camera.event_rules import EventRule
from gapcam.camera.event_watch import EventWatch, Moment
from gapcam.camera.zones import Zone, rectangle
from gapcam.classes import ClassNames

CLASSES = ClassNames(("cat", "dog", "17"), 3)
FPS = 10.0
AT_ONCE = {"enter_s": 0.0, "leave_s": 0.0}
LEFT = Zone("left", rectangle(0, 0, 0.5, 1), enter=0.6, leave=0.4, **AT_ONCE)


class Watched:
    """A watch that is given a frame each tenth of a second."""

    def __init__(self, *rules: EventRule, zones: tuple[Zone, ...] = (), in_film: bool = False) -> None:
        self.watch, self.number, self.in_film = EventWatch("door", rules, zones, CLASSES), 0, in_film

    def see(self, *scores: float, boxes: dict[int, Box] | None = None) -> list[Event]:
        at = self.number / FPS
        moment = Moment(50 + at, self.number, 1e9 + at, 7 + at if self.in_film else None)
        self.number += 1
        events = self.watch.update_scores(np.array(scores, np.float32), int(np.argmax(scores)), moment)
        for index in self.watch.in_zones():
            if boxes is not None:
                events += self.watch.update_boxes(index, [boxes[index]] if index in boxes else [], 200, 100)
        return events


def told(events: list[Event]) -> list[str]:
    return [f"{event.label} {event.kind}{'' if event.zone is None else ' ' + event.zone}" for event in events]


def test_a_class_enters_stays_and_leaves_at_these_frames() -> None:
    watched = Watched(EventRule("cat", enter=0.5, leave=0.3, enter_s=0.2, leave_s=0.3, stay_s=(0.5, 0.9)))
    scores = [0.1, 0.6, 0.2, 0.6, 0.7, 0.8, 0.4, 0.35, 0.4, 0.2, 0.9, 0.31, 0.3, 0.2, 0.2, 0.1, 0.1, 0.9]
    #         0    1    2    3    4    5    6    7     8    9    10   11    12   13   14   15   16   17
    found = {number: event for number, score in enumerate(scores) for event in watched.see(score, 0.0, 0.0)}
    assert sorted(found) == [5, 8, 12, 16]
    assert found[5] == Event("enters", "door", 5, pytest.approx(1e9 + 0.5), 0, "cat", pytest.approx(0.8))
    assert (found[8].kind, found[8].seconds) == ("stays", pytest.approx(0.5))
    assert (found[12].kind, found[12].seconds) == ("stays", pytest.approx(0.9))
    assert (found[16].kind, found[16].seconds) == ("leaves", pytest.approx(0.9))  # from frame 3 to frame 12


def test_an_event_says_where_in_a_film_it_was() -> None:
    rows = {}
    for in_film in (True, False):
        zone = Zone("left", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)), enter_s=0)
        watched = Watched(EventRule("cat", **AT_ONCE), zones=(zone,), in_film=in_film)
        found = [watched.see(score, 0, 0, boxes={0: Box(0, 0, 10, 10)}) for score in (0.1, 0.9, 0.9)] + [
            watched.watch.end()
        ]
        rows[in_film] = [event.to_dict() for events in found for event in events]
    kinds = ["enters", "enters zone", "leaves zone", "leaves"]
    assert [(row["event"], row["position_s"]) for row in rows[True]] == list(
        zip(kinds, (7.1, 7.1, 7.2, 7.2), strict=True)
    )
    assert [row["event"] for row in rows[False]] == kinds
    assert not any("position_s" in row for row in rows[False])


def test_a_stay_is_told_once_each_time_the_class_is_there() -> None:
    watched = Watched(EventRule("cat", stay_s=(0.2,), **AT_ONCE))
    found = [told(watched.see(score, 0, 0)) for score in [0.9, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9]]
    assert found == [["cat enters"], [], ["cat stays"], [], ["cat leaves"], ["cat enters"], [], ["cat stays"]]


def test_a_class_does_not_stay_while_it_may_be_gone() -> None:
    watched = Watched(EventRule("cat", enter_s=0, leave_s=0.3, stay_s=(0.2,)))
    assert [told(watched.see(score, 0, 0)) for score in [0.9, 0.9, 0.1, 0.1, 0.9]] == [
        ["cat enters"],
        [],
        [],
        [],
        ["cat stays"],
    ]


def test_rules_name_classes_by_label_or_index_and_the_label_comes_first() -> None:
    assert told(Watched(EventRule("1", **AT_ONCE)).see(0, 0.9, 0)) == ["dog enters"]
    assert told(Watched(EventRule(1, **AT_ONCE)).see(0, 0.9, 0)) == ["dog enters"]
    assert told(Watched(EventRule("17", **AT_ONCE)).see(0, 0, 0.9)) == ["17 enters"]


def test_a_rule_for_any_class_is_about_those_that_become_the_best() -> None:
    watched = Watched(EventRule("*", enter=0.4, leave=0.2, enter_s=0.1, leave_s=0))
    found = [
        told(watched.see(*scores))
        for scores in [
            (0.6, 0.45, 0),  # the dog is not the best one
            (0.6, 0.45, 0),
            (0.45, 0.6, 0),
            (0.6, 0.45, 0),  # the dog was the best one of one frame
            (0.3, 0.7, 0),
            (0.3, 0.7, 0),
            (0.1, 0.7, 0),  # the cat was there all the time, though not the best one
            (0.6, 0.1, 0),
            (0.6, 0.1, 0),
        ]
    ]
    assert found == [[], ["cat enters"], [], [], [], ["dog enters"], ["cat leaves"], ["dog leaves"], ["cat enters"]]


def test_a_class_with_a_rule_of_its_own_is_not_any_class() -> None:
    watched = Watched(EventRule("cat", enter=0.9, **AT_ONCE), EventRule("*", enter=0.5, **AT_ONCE))
    assert told(watched.see(0.8, 0, 0)) == []
    assert told(watched.see(0.95, 0, 0)) == ["cat enters"]
    assert told(watched.see(0, 0.6, 0)) == ["cat leaves", "dog enters"]


def test_what_is_there_leaves_at_the_end_as_of_the_last_frame() -> None:
    watched = Watched(EventRule("cat", **AT_ONCE), EventRule("dog", **AT_ONCE), zones=(LEFT,))
    for _ in range(4):
        watched.see(0.8, 0.1, 0, boxes={0: Box(0, 0, 50, 50)})
    end = watched.watch.end()
    assert told(end) == ["cat leaves zone left", "cat leaves"]
    assert [(event.number, event.time, event.seconds) for event in end] == [(3, 1e9 + 0.3, pytest.approx(0.3))] * 2
    assert watched.watch.end() == []
    assert told(watched.see(0.8, 0, 0)) == ["cat enters"]


def test_nothing_leaves_at_the_end_that_had_not_entered() -> None:
    watched = Watched(EventRule("cat", enter_s=1))
    watched.see(0.9, 0, 0)
    assert watched.watch.end() == []
    assert EventWatch("door", (EventRule("cat"),), (), CLASSES).end() == []


def test_a_box_enters_and_leaves_a_zone_by_the_part_that_is_inside() -> None:
    watched = Watched(EventRule("cat", **AT_ONCE), zones=(LEFT,))
    shares = [0.0, 0.5, 0.59, 0.61, 0.5, 0.41, 0.59, 0.39, 0.5]
    found = [watched.see(0.9, 0, 0, boxes={0: Box(100 - 100 * share, 0, 200 - 100 * share, 100)}) for share in shares]
    assert [told(events) for events in found] == [
        ["cat enters"],
        [],
        [],
        ["cat enters zone left"],
        [],
        [],
        [],
        ["cat leaves zone left"],
        [],
    ]
    assert found[3][0] == Event("enters zone", "door", 3, 1e9 + 0.3, 0, "cat", pytest.approx(0.9), zone="left")
    assert found[7][0].seconds == pytest.approx(0.3)  # the last frame with enough of it inside was 6


def test_a_box_that_is_lost_leaves_and_so_does_that_of_a_class_that_leaves() -> None:
    watched = Watched(EventRule("cat", **AT_ONCE), zones=(LEFT,))
    inside = {0: Box(0, 0, 50, 50)}
    assert told(watched.see(0.9, 0, 0, boxes=inside)) == ["cat enters", "cat enters zone left"]
    assert told(watched.see(0.9, 0, 0, boxes={})) == ["cat leaves zone left"]
    assert told(watched.see(0.9, 0, 0, boxes=inside)) == ["cat enters zone left"]
    assert told(watched.see(0.1, 0, 0, boxes=inside)) == ["cat leaves zone left", "cat leaves"]


def test_a_frame_whose_boxes_are_not_known_changes_no_zone() -> None:
    watched = Watched(EventRule("cat", **AT_ONCE), zones=(LEFT,))
    watched.see(0.9, 0, 0, boxes={0: Box(0, 0, 50, 50)})
    assert watched.see(0.9, 0, 0, boxes=None) == []


def test_where_a_class_may_be_gone_its_boxes_are_nobodys() -> None:
    watched = Watched(EventRule("cat", enter_s=0, leave_s=0.3), zones=(LEFT,))
    inside = {0: Box(0, 0, 50, 50)}
    found = [event for score in (0.9, 0.9, 0.1, 0.1, 0.1, 0.1) for event in watched.see(score, 0, 0, boxes=inside)]
    assert told(found) == ["cat enters", "cat enters zone left", "cat leaves zone left", "cat leaves"]
    assert [event.seconds for event in found[2:]] == pytest.approx([0.1, 0.1])  # in the zone no longer than there
    watched.see(0.9, 0, 0)
    watched.see(0.1, 0, 0)
    assert watched.watch.in_zones() == []


def test_boxes_are_wanted_of_classes_that_are_there_and_only_for_zones() -> None:
    watched, without = Watched(EventRule("cat", **AT_ONCE), zones=(LEFT,)), Watched(EventRule("cat", **AT_ONCE))
    for score, wanted in [(0.1, []), (0.9, [0]), (0.1, [])]:
        watched.see(score, 0, 0)
        without.see(score, 0, 0)
        assert watched.watch.in_zones() == wanted
        assert without.watch.in_zones() == []


def test_zones_without_rules_are_about_any_class() -> None:
    watched = Watched(zones=(LEFT,))
    inside = {1: Box(0, 0, 50, 50)}
    found = [told(watched.see(0, 0.9, 0, boxes=inside)) for _ in range(6)]
    assert [kind for events in found for kind in events] == ["dog enters", "dog enters zone left"]


def test_without_rules_and_zones_there_are_no_events() -> None:
    watched = Watched()
    assert watched.see(1, 0, 0) == []
    assert watched.watch.end() == []


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), max_size=80), st.booleans())
def test_each_class_enters_and_leaves_in_turn(rows: list[tuple[float, ...]], any_class: bool) -> None:
    rules = [EventRule("*" if any_class else 0, enter_s=0.1, leave_s=0.2, stay_s=(0.3,))]
    if not any_class:
        rules.append(EventRule(1, **AT_ONCE))
    watched = Watched(*rules, zones=(LEFT,))
    rng = np.random.default_rng(0)
    events: list[Event] = []
    for row in rows:
        lefts = rng.uniform(0, 150, 3)
        found = watched.see(*row, boxes={index: Box(left, 0, left + 50, 100) for index, left in enumerate(lefts)})
        assert all(event.number == watched.number - 1 for event in found)
        events += found
    events += watched.watch.end()
    for index in range(3):
        own = [event for event in events if event.index == index]
        presence = [event.kind for event in own if event.kind in ("enters", "leaves")]
        assert presence == ["enters", "leaves"] * (len(presence) // 2)
        zone = [event.kind for event in own if event.zone]
        assert zone == ["enters zone", "leaves zone"] * (len(zone) // 2)
        inside = False
        for event in own:
            inside = event.kind == "enters" or (inside and event.kind != "leaves")
            assert inside or event.kind == "leaves"  # no stays, and no zones, of what is not there
        began = 0.0
        for event in own:
            began = event.time if event.kind == "enters" else began
            if event.kind == "leaves":
                assert event.seconds is not None
                assert event.seconds <= event.time - began + 0.1 + 1e-3  # it had been there before it entered


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ((EventRule("bird"),), ClassNotFoundError),
        ((EventRule(3),), ClassNotFoundError),
        ((EventRule("cat"), EventRule(0, enter=0.9)), UsageError),
        ((EventRule("*"), EventRule("*")), UsageError),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules: tuple[EventRule, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        EventWatch("door", rules, (), CLASSES)
