"""Events of one source, from its scores and boxes over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gapcam.box import Box
from gapcam.cam import FloatArray
from gapcam.camera.event import Event, EventKind
from gapcam.camera.event_rules import ANY_CLASS, EventRule
from gapcam.camera.hysteresis import Hysteresis
from gapcam.camera.zones import Zone
from gapcam.classes import ClassNames
from gapcam.errors import UsageError


@dataclass(frozen=True, slots=True)
class Moment:
    """Of a frame.

    Attributes:
        at: seconds of the clock that durations are measured with.
        number: of the frame.
        time: Unix seconds.
        position_s: in a film, where it is one.
    """

    at: float
    number: int
    time: float
    position_s: float | None = None


@dataclass(slots=True)
class _Watched:
    """A class that is there, or may be so soon."""

    rule: EventRule
    presence: Hysteresis
    stays: int = 0
    """How many of the rule's stays were announced."""
    zones: dict[str, Hysteresis] = field(default_factory=dict)


class EventWatch:
    """What the rules make of one source.

    Each frame: first `update_scores`, then `update_boxes` for those of `in_zones` whose map was computed.

    Args:
        source: its name.
        rules: at most one a class.
        zones: for the boxes of the rules' classes.
        classes: the model's.

    Raises:
        ClassNotFoundError: a rule is about a class that the model does not have.
        UsageError: two rules are about the same class.
    """

    def __init__(self, source: str, rules: Sequence[EventRule], zones: Sequence[Zone], classes: ClassNames) -> None:
        self._source, self._zones, self._classes = source, zones, classes
        self._for_any: EventRule | None = None
        self._watched: dict[int, _Watched] = {}
        self._rules: dict[int, EventRule] = {}
        for rule in rules or ([EventRule(ANY_CLASS)] if zones else []):
            if rule.target == ANY_CLASS:
                if self._for_any is not None:
                    raise UsageError(f"two events are about any class, {ANY_CLASS!r}; give one")
                self._for_any = rule
                continue
            index = classes.resolve_text(rule.target) if isinstance(rule.target, str) else classes.resolve(rule.target)
            if index in self._rules:
                raise UsageError(f"two events are about {classes.labels[index]!r}; give one")
            self._rules[index] = rule
        self._last: Moment | None = None
        self._scores: FloatArray | None = None

    def update_scores(self, scores: FloatArray, best: int, moment: Moment) -> list[Event]:
        """Take a frame's [K] scores, of which that of the class `best` is the greatest."""
        if not self._rules and self._for_any is None:
            return []
        self._last, self._scores = moment, scores
        events: list[Event] = []
        for index, rule in self._rules.items():
            self._watched.setdefault(index, _Watched(rule, Hysteresis(rule.limits)))
        if self._for_any is not None and best not in self._watched and scores[best] >= self._for_any.enter:
            self._watched[best] = _Watched(self._for_any, Hysteresis(self._for_any.limits))
        for index, watched in list(self._watched.items()):
            value = float(scores[index])
            presence = watched.presence
            if watched.rule is self._for_any and index != best and not presence.inside:
                del self._watched[index]  # it is no longer the best one, and never was for long enough
                continue
            if presence.update(value, moment.at):
                events += self._entered(index) if presence.inside else self._left(index)
            while watched.stays < len(watched.rule.stay_s) and presence.has_stayed(
                watched.rule.stay_s[watched.stays], moment.at
            ):
                watched.stays += 1
                events.append(self._event("stays", index, seconds=presence.seconds))
            if watched.rule is self._for_any and not presence.inside and not presence.pending:
                del self._watched[index]
        return events

    def in_zones(self) -> list[int]:
        """The classes whose boxes are watched now: those that are there, if there are zones.

        One that may be gone is not: its boxes are nobody's. It leaves its zones when it leaves.
        """
        if not self._zones or self._last is None:
            return []
        return [index for index, watched in self._watched.items() if watched.presence.has_stayed(0, self._last.at)]

    def update_boxes(self, index: int, boxes: Sequence[Box], width: int, height: int) -> list[Event]:
        """Take the boxes of a class that is there, in pixels of a frame of this size, at the moment of the scores."""
        watched, at = self._watched[index], self._moment().at
        events = []
        for zone in self._zones:
            inside = watched.zones.setdefault(zone.name, Hysteresis(zone.limits))
            part = max((zone.part_inside(box, width, height) for box in boxes), default=0.0)
            if inside.update(part, at):
                kind: EventKind = "enters zone" if inside.inside else "leaves zone"
                seconds = None if inside.inside else inside.seconds
                events.append(self._event(kind, index, zone=zone.name, seconds=seconds))
        return events

    def end(self) -> list[Event]:
        """No more frames: what was there on the last one leaves, as of that frame. Then all begins anew."""
        events = [
            event for index, watched in self._watched.items() if watched.presence.inside for event in self._left(index)
        ]
        self._watched.clear()
        return events

    def _entered(self, index: int) -> list[Event]:
        self._watched[index].stays = 0
        return [self._event("enters", index)]

    def _left(self, index: int) -> list[Event]:
        watched = self._watched[index]
        events = [
            self._event("leaves zone", index, zone=name, seconds=inside.seconds)
            for name, inside in watched.zones.items()
            if inside.inside
        ]
        watched.zones.clear()
        return [*events, self._event("leaves", index, seconds=watched.presence.seconds)]

    def _moment(self) -> Moment:
        assert self._last is not None  # noqa: S101 - scores come first
        return self._last

    def _event(self, kind: EventKind, index: int, *, zone: str | None = None, seconds: float | None = None) -> Event:
        """As of the last frame."""
        assert self._scores is not None  # noqa: S101 - likewise
        moment = self._moment()
        return Event(
            kind=kind,
            source=self._source,
            number=moment.number,
            time=moment.time,
            index=index,
            label=self._classes.labels[index],
            score=float(self._scores[index]),
            zone=zone,
            seconds=seconds,
            position_s=moment.position_s,
        )
