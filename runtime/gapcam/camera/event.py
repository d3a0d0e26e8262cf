"""Something that happened in front of a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

EventKind: TypeAlias = Literal["enters", "leaves", "stays", "enters zone", "leaves zone"]


@dataclass(frozen=True, slots=True)
class Event:
    """A class came, went or stayed, or its box came into a zone or left it.

    Attributes:
        kind: what happened.
        source: the name of the source.
        number: of the frame on which it was noticed. Where no frames came any more, of the last one.
        time: Unix seconds at which that frame was captured.
        index: of the class in the logits.
        label: of the class.
        score: of the class at that time, smoothed as the frame's scores are, in [0, 1].
        zone: the zone's name, of a zone's event.
        seconds: for how long the class has been there, where it stays or leaves, or its box was in the zone that it
            leaves: from the first moment to the last at which it was seen there.
        position_s: of that frame, in seconds from the beginning of a film; None of what has no beginning.
    """

    kind: EventKind
    source: str
    number: int
    time: float
    index: int
    label: str
    score: float
    zone: str | None = None
    seconds: float | None = None
    position_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON. docs/camera.md lists the fields."""
        row: dict[str, Any] = {
            "event": self.kind,
            "source": self.source,
            "frame": self.number,
            "time": round(self.time, 6),
            "index": self.index,
            "label": self.label,
            "score": self.score,
        }
        if self.zone is not None:
            row["zone"] = self.zone
        if self.seconds is not None:
            row["seconds"] = round(self.seconds, 3)
        if self.position_s is not None:
            row["position_s"] = round(self.position_s, 3)
        return row
