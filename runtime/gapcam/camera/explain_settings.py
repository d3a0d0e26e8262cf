"""What is computed of each camera frame, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from gapcam.boxes import THRESHOLD, check_threshold
from gapcam.cam import check_normalization
from gapcam.camera.event_rules import EventRule
from gapcam.camera.finite_number import check_seconds, is_finite
from gapcam.camera.zones import Zone
from gapcam.classes import ClassRef
from gapcam.errors import UsageError
from gapcam.look import Look
from gapcam.whole_number import whole_number

VideoNormalization: TypeAlias = Literal["steady", "minmax", "max", "fixed"]


@dataclass(frozen=True, slots=True)
class ExplainSettings:
    """Of a pipeline; each of its sources is explained by them.

    Attributes:
        topk: how many of the best classes are listed.
        classes: those that get maps, by index or label; empty for the best one of each frame. Pictures show the one
            among them with the highest score.
        every: maps are computed on each n-th frame, and held until the next one.
        above: maps only of classes whose smoothed score is at least this. Where none is, the scene is quiet: no map, no
            box, only the classifier is paid for. What somebody picked on the page gets its map all the same, and so
            does what zones are watched for.
        only_classes: maps only while the best class is one of these; empty for any. The same exceptions.
        smoothing_s: time constant of the exponential average of scores and maps, in seconds; 0 for none.
        gap_s: two frames that are further apart than this, and than three times the usual step of their source, have
            nothing to do with each other: averages start anew, and what was there has left.
        threshold: of boxes, see `gapcam.boxes.boxes_from_map`.
        percentile: likewise.
        clamp_negative: maps without the negative weights, see `gapcam.cam.class_maps`.
        normalization: "steady", ends of the colours that follow the maps slowly, see `gapcam.camera.steady_limits`; or
            each frame's own, see `gapcam.cam.normalize`.
        limits: (low, high) in the logits' unit, with "fixed".
        look: of pictures; its own normalization and limits are left at their defaults.
        rules: what is an event.
        zones: of the frame, that the boxes of the rules' classes come into and go out of. Without a rule, those of any
            class that becomes the best one.

    Raises:
        UsageError: a value is out of its range, or two contradict each other.
    """

    topk: int = 5
    classes: tuple[ClassRef, ...] = ()
    every: int = 1
    above: float = 0.0
    only_classes: tuple[ClassRef, ...] = ()
    smoothing_s: float = 0.3
    gap_s: float = 5.0
    threshold: float = THRESHOLD
    percentile: float | None = None
    clamp_negative: bool = False
    normalization: VideoNormalization = "steady"
    limits: tuple[float, float] | None = None
    look: Look = field(default_factory=Look)
    rules: tuple[EventRule, ...] = ()
    zones: tuple[Zone, ...] = ()

    def __post_init__(self) -> None:
        for name in ("topk", "every"):
            number = whole_number(getattr(self, name), name)
            if number < 1:
                raise UsageError(f"{name} is {number}; give a number from 1")
            object.__setattr__(self, name, number)
        for name in ("classes", "only_classes", "rules", "zones"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name), name))
        if not is_finite(self.above) or not 0 <= self.above <= 1:
            raise UsageError(f"above is {self.above!r}; give a score from 0 to 1")
        check_seconds(self.smoothing_s, "smoothing_s")
        check_seconds(self.gap_s, "gap_s", above_zero=True)
        check_threshold(self.threshold, self.percentile)
        self._check_look()
        names = [zone.name for zone in self.zones]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{names.count(name)} zones are called {name!r}; give each a name of its own")

    @property
    def steady(self) -> bool:
        """Whether the ends of the colours follow the maps slowly."""
        return self.normalization == "steady"

    @property
    def drawn(self) -> Look:
        """The look with the normalisation of each frame's own, which `steady` puts others in the place of."""
        if self.normalization == "steady":
            return self.look
        return replace(self.look, normalization=self.normalization, limits=self.limits)

    def _check_look(self) -> None:
        if self.normalization not in get_args(VideoNormalization):
            raise UsageError(
                f"normalization is {self.normalization!r}; give one of {', '.join(get_args(VideoNormalization))}"
            )
        if self.look.normalization != "minmax":
            raise UsageError("the look has a normalization of its own; give it to the settings, not to the look")
        if self.normalization == "steady":
            if self.limits is not None:
                raise UsageError(f"got limits {self.limits} with normalization 'steady'; limits go with 'fixed'")
        else:
            check_normalization(self.normalization, self.limits)


def _as_tuple(values: Any, name: str) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {values!r}; give a list")
    return tuple(values)
