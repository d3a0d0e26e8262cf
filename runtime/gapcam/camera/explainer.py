"""From a network's result on a camera frame to what the sinks get: what one source remembers from frame to frame."""

from __future__ import annotations

import logging
import time

import numpy as np

from gapcam.cam import FloatArray
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.event import Event
from gapcam.camera.event_watch import EventWatch, Moment
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.smoothing import ExponentialAverage
from gapcam.camera.steady_limits import SteadyLimits, seen_cells
from gapcam.camera.usual_step import UsualStep
from gapcam.classes import ClassNames, ClassRef
from gapcam.errors import MapNotComputedError
from gapcam.frame_boxes import boxes_on_frame
from gapcam.result import Prediction, Result
from gapcam.session import Session

_log = logging.getLogger("gapcam.camera")

GAP_STEPS = 3
"""So many usual steps are no gap: a camera may give a frame every ten seconds."""


class _Memory:
    """What is kept from frame to frame, until all begins anew."""

    def __init__(self, settings: ExplainSettings) -> None:
        self.geometry: object = None
        self.scores = ExponentialAverage(settings.smoothing_s)
        self.averages: dict[int, ExponentialAverage] = {}
        self.maps: dict[int, FloatArray] = {}
        self.limits = SteadyLimits()
        self.shown: int | None = None  # None where the frame before was quiet
        self.computed: frozenset[int] = frozenset()  # the last time, also those that the graph lacks
        self.frames_since_maps = settings.every  # the first frame has its turn


class Explainer:
    """Of one source. One thread uses it.

    The order: scores, their average, events of classes, which maps are wanted, these and their averages, events of
    zones. Boxes and pictures are left to whoever wants them of the explained frame.

    Durations are measured with the frames' position in a file, where they have one, so that a file gives the same
    however fast it is read; else with `taken_at`. A clock that goes backwards (a file begins anew) is a gap.

    A picture of its own (`CapturedFrame.still`) has no average and no events: nothing comes or goes there. Where only
    size or placement of the frames change, averages, maps and limits begin anew, but what is there stays.

    Args:
        session: what the results come from.
        source: the source's name.
        settings: what is wanted.
        demand: the classes that somebody picked; they get maps, too.

    Raises:
        ClassNotFoundError: the settings name a class that the model does not have.
        UsageError: two rules are about the same class.
    """

    def __init__(self, session: Session, source: str, settings: ExplainSettings, demand: ClassDemand) -> None:
        self._classes = session.classes
        self._input_size = session.contract.preprocessing.size
        self._source, self._settings, self._demand = source, settings, demand
        self._always = _indices(settings.classes, session.classes)
        self._only = frozenset(_indices(settings.only_classes, session.classes))
        self._watch = EventWatch(source, settings.rules, settings.zones, session.classes)
        self._lacking: set[int] = set()  # classes that were complained of
        self._no_events_said = False
        self._memory = _Memory(settings)
        self._last_at: float | None = None  # since all began anew
        self._step = UsualStep()

    @property
    def gap_s(self) -> float:
        """Frames that are further apart than this, in seconds, have nothing to do with each other."""
        return max(self._settings.gap_s, GAP_STEPS * self._step.seconds)

    def part_with_last(self, captured: CapturedFrame) -> list[Event]:
        """Where a frame has nothing to do with the one before, what was there leaves, as of that one. All begins anew.

        `explain` does the same, and then tells of it with the later frame.
        """
        return [] if self._goes_on(captured) else self.end()

    def explain(self, captured: CapturedFrame, result: Result, wait_ms: float) -> ExplainedFrame:
        """What is known of a frame.

        Args:
            captured: the frame, later than the one before.
            result: of it.
            wait_ms: from its capture until its turn came, in milliseconds.
        """
        started = time.perf_counter()
        settings = self._settings
        at = captured.moment_s
        events = self.part_with_last(captured)
        self._last_at = at
        self._step.add(at)
        geometry = (captured.image.shape, result.placement)
        if geometry != self._memory.geometry:
            self._memory = _Memory(settings)
            self._memory.geometry = geometry

        scores = self._memory.scores.update(result.scores, at)
        top = self._top(scores, result)
        if captured.still:
            self._say_no_events()
        else:
            moment = Moment(at, captured.number, captured.time, captured.position_s)
            events += self._watch.update_scores(scores, top[0].index, moment)

        shown, loud, insisted = self._wanted(scores, top[0].index)
        wanted = list(dict.fromkeys([*loud, *insisted]))
        self._memory.frames_since_maps += 1
        held = self._held(shown, scores)
        at_once = {held, *insisted} - {None} - self._memory.computed
        computed = bool(at_once) or (bool(wanted) and self._memory.frames_since_maps >= settings.every)
        if computed:
            self._compute_maps(result, wanted, at)
        else:
            shown = held
        self._memory.shown = shown
        maps = {
            index: self._memory.maps[index]
            for index in (*wanted, shown)
            if index is not None and index in self._memory.maps
        }
        if computed:
            events += self._zone_events(captured, result)
        timings = {"wait": wait_ms, **result.timings_ms, "explain": (time.perf_counter() - started) * 1e3}
        return ExplainedFrame(
            captured=captured,
            classes=self._classes,
            scores=scores,
            top=top,
            shown=shown,
            maps=maps,
            limits={index: self._memory.limits.of(index) for index in maps},
            lacking=tuple(index for index in wanted if index in self._memory.computed and index not in maps),
            events=tuple(events),
            exact=result.exact,
            placement=result.placement,
            input_size=self._input_size,
            timings_ms=timings,
            explained_at=time.monotonic(),
            threshold=settings.threshold,
            percentile=settings.percentile,
            look=settings.drawn,
            steady=settings.steady,
        )

    def end(self) -> list[Event]:
        """The source has ended, or is lost: what was there leaves, as of the last frame. Then all begins anew."""
        events = self._watch.end()
        self._memory = _Memory(self._settings)
        self._last_at = None
        return events

    def _goes_on(self, captured: CapturedFrame) -> bool:
        if self._last_at is None:
            return True
        return not captured.still and 0 <= captured.moment_s - self._last_at <= self.gap_s

    def _say_no_events(self) -> None:
        """Once, where somebody waits for some."""
        if not self._no_events_said and (self._settings.rules or self._settings.zones):
            self._no_events_said = True
            _log.warning(
                "%s: separate pictures have no events, nothing comes or goes there; with a rate they are a film",
                self._source,
                extra={"source": self._source},
            )

    def _top(self, scores: FloatArray, result: Result) -> tuple[Prediction, ...]:
        if scores is result.scores:
            return result.best(self._settings.topk)
        order = np.argsort(-scores, kind="stable")[: self._settings.topk].tolist()
        return tuple(Prediction(index, self._classes.labels[index], float(scores[index])) for index in order)

    def _wanted(self, scores: FloatArray, best: int) -> tuple[int | None, list[int], list[int]]:
        """The class to show, those that are loud, and those that get maps whatever the settings say."""
        candidates = () if self._only and best not in self._only else self._always or (best,)
        loud = [index for index in candidates if scores[index] >= self._settings.above]
        shown = max(loud, key=scores.__getitem__, default=None)
        picked = [index for index in self._demand.wanted() if index < len(self._classes.labels)]
        return shown, loud, [*self._watch.in_zones(), *picked]

    def _held(self, shown: int | None, scores: FloatArray) -> int | None:
        """The class to show while maps have not their turn: the one before, unless it was quiet or is so now."""
        before = self._memory.shown
        if shown is None or before is None or scores[before] < self._settings.above:
            return shown
        return before

    def _compute_maps(self, result: Result, wanted: list[int], at: float) -> None:
        """The averages of these classes' maps, and no others' any more; not of one that the graph does not compute."""
        averages, maps = {}, {}
        for index in wanted:
            try:
                raw = result.map(index, clamp_negative=self._settings.clamp_negative)
            except MapNotComputedError as error:
                if index not in self._lacking:
                    self._lacking.add(index)
                    _log.warning("%s: %s", self._source, error, extra={"source": self._source})
                continue
            averages[index] = self._memory.averages.get(index) or ExponentialAverage(self._settings.smoothing_s)
            maps[index] = averages[index].update(raw, at)
            seen = seen_cells(maps[index], self._input_size, result.placement)
            self._memory.limits.update(index, seen, at)
        self._memory.averages, self._memory.maps = averages, maps
        self._memory.computed, self._memory.frames_since_maps = frozenset(wanted), 0

    def _zone_events(self, captured: CapturedFrame, result: Result) -> list[Event]:
        events: list[Event] = []
        height, width = captured.image.shape[:2]
        for index in self._watch.in_zones():
            if index in self._memory.maps:
                boxes = boxes_on_frame(
                    self._memory.maps[index],
                    self._input_size,
                    result.placement,
                    threshold=self._settings.threshold,
                    percentile=self._settings.percentile,
                )
                events += self._watch.update_boxes(index, boxes, width, height)
        return events


def _indices(refs: tuple[ClassRef, ...], classes: ClassNames) -> tuple[int, ...]:
    found = (classes.resolve_text(ref) if isinstance(ref, str) else classes.resolve(ref) for ref in refs)
    return tuple(dict.fromkeys(found))
