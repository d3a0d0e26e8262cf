"""What one who watches wants to see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any

from gapcam.boxes import THRESHOLD, check_threshold
from gapcam.classes import ClassNames
from gapcam.errors import UsageError
from gapcam.look import Look

MIN_WIDTH, MAX_WIDTH = 64, 16384
_LONGEST_LABEL = 200  # to look for one that is nearly it takes its time

_LONGEST_SHOWN = 80
_GREATEST_INDEX = 10**9


@dataclass(frozen=True, slots=True)
class View:
    """A way to look at a source.

    Attributes:
        source: its name.
        target: the index of the class whose map is shown; None for the class that the pipeline shows, the best one.
        map: whether the map is drawn.
        boxes: whether boxes are.
        threshold: of the boxes, in [0, 1).
        look: of the map.
        max_width: of the picture in pixels; None for the frame's own.
    """

    source: str
    target: int | None = None
    map: bool = True
    boxes: bool = True
    threshold: float = THRESHOLD
    look: Look = field(default_factory=Look)
    max_width: int | None = None

    def changed(self, wishes: Mapping[str, Any], sources: Sequence[str], classes: ClassNames) -> View:
        """This view with other values for the fields that are named; their names are those of the API.

        Args:
            wishes: any of source, class, map, boxes, threshold, alpha, colormap, max_width, as JSON has them.
            sources: the names there are.
            classes: the model's.

        Raises:
            UsageError, ClassNotFoundError: a name that is no field, or a value that is out of its range.
        """
        new = self
        for name, value in wishes.items():
            if name not in _FIELDS:
                raise UsageError(f"a view has no field {_clipped(name)}; it has {', '.join(_FIELDS)}")
            new = _FIELDS[name](new, value, sources, classes)
        return new


def _source(view: View, value: Any, sources: Sequence[str], _: ClassNames) -> View:
    if not isinstance(value, str) or value not in sources:
        close = get_close_matches(str(value)[:_LONGEST_LABEL], sources, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"there is no source {_clipped(value)}.{hint} There are: {', '.join(sources)}")
    return replace(view, source=value)


def _target(view: View, value: Any, _: Sequence[str], classes: ClassNames) -> View:
    if isinstance(value, str) and len(value) > _LONGEST_LABEL:
        raise UsageError(f"got a class of {len(value)} characters; give its index or its label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows no difference
    if isinstance(value, int) and abs(value) > _GREATEST_INDEX:
        raise UsageError(f"there is no class {_clipped(value)}; give an index from 0 to {len(classes.labels) - 1}")
    if not isinstance(value, str | int | None):
        raise UsageError(f"got {_clipped(value)} as a class; give its index, an integer, or its label")
    return replace(view, target=None if value is None else classes.resolve(value))


def _map(view: View, value: Any, *_: object) -> View:
    return replace(view, map=_switch("map", value))


def _boxes(view: View, value: Any, *_: object) -> View:
    return replace(view, boxes=_switch("boxes", value))


def _threshold(view: View, value: Any, *_: object) -> View:
    threshold = _number("threshold", value)
    check_threshold(threshold, None)
    return replace(view, threshold=threshold)


def _alpha(view: View, value: Any, *_: object) -> View:
    return replace(view, look=replace(view.look, alpha=_number("alpha", value)))


def _colormap(view: View, value: Any, *_: object) -> View:
    if not isinstance(value, str):
        raise UsageError(f"colormap is {_clipped(value)}; give its name")
    return replace(view, look=replace(view.look, colormap=value[:_LONGEST_SHOWN]))


def _max_width(view: View, value: Any, *_: object) -> View:
    if value is None:
        return replace(view, max_width=None)
    width = _number("max_width", value)
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise UsageError(f"max_width is {width:g}; give pixels from {MIN_WIDTH} to {MAX_WIDTH}")
    return replace(view, max_width=int(width))


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {_clipped(value)}; give true or false")
    return value


def _number(name: str, value: object) -> float:
    wrong = UsageError(f"{name} is {_clipped(value)}; give a number")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise wrong
    try:
        number = float(value)
    except OverflowError:
        raise wrong from None
    if not math.isfinite(number):
        raise wrong
    return number


def _clipped(value: object) -> str:
    """What was sent, so far as there is room for it in a line."""
    try:
        text = str(value)
    except ValueError:  # a number of thousands of digits
        text = "a number"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "...")


_FIELDS: dict[str, Callable[[View, Any, Sequence[str], ClassNames], View]] = {
    "source": _source,
    "class": _target,
    "map": _map,
    "boxes": _boxes,
    "threshold": _threshold,
    "alpha": _alpha,
    "colormap": _colormap,
    "max_width": _max_width,
}
