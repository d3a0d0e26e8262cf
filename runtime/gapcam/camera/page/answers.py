"""What the API answers, as types: /openapi.json describes them, and every answer is checked against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gapcam.camera.status import PipelineStatus


class Problem(BaseModel):
    """Why there is no other answer, in a line."""

    error: str


class Health(BaseModel):
    """Whether the thread that runs the network is well."""

    status: Literal["ok", "not ok"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer(PipelineStatus):
    """How the pipeline and the page are doing. Counts add up, see the fields of sources and sinks.

    Attributes:
        clients: how many watch.
        max_clients: how many may.
        token: whether a token is needed.
        now: Unix seconds by this machine's clock.
    """

    clients: int
    max_clients: int
    token: bool
    now: float


class ClassAnswer(BaseModel):
    """A class of the model."""

    index: int = Field(description="of the class in the logits")
    label: str


class ClassesAnswer(BaseModel):
    """The classes that match a search."""

    count: int = Field(description="how many the model has")
    found: int = Field(description="how many match; no more than `limit` of them are listed")
    classes: list[ClassAnswer]


class SettingsAnswer(BaseModel):
    """How the pipeline explains, and where a view begins."""

    sources: list[str] = Field(description="their names")
    model: str = Field(description="the file's name")
    engine: str
    exact: bool = Field(description="whether a map is all that its logit is made of")
    threshold: float = Field(description="of the boxes, in [0, 1)")
    alpha: float = Field(description="of the map, in [0, 1]")
    colormap: str
    colormaps: list[str] = Field(description="all there are")
    steady: bool = Field(description="whether colours keep their meaning from frame to frame")


class EventAnswer(BaseModel):
    """Something that happened in front of a camera."""

    id: int = Field(description="1, 2, 3 ... since the start")
    event: str = Field(description="enters, leaves, stays, enters zone or leaves zone")
    source: str
    frame: int = Field(description="the number of the frame on which it was noticed")
    time: float = Field(description="Unix seconds at which that frame was captured")
    index: int = Field(description="of the class in the logits")
    label: str
    score: float
    zone: str | None = None
    seconds: float | None = Field(None, description="for how long the class has been there, where it stays or leaves")
    position_s: float | None = Field(None, description="of that frame, in seconds from the beginning of a file")


class EventsAnswer(BaseModel):
    """Events, oldest first."""

    events: list[EventAnswer]
    latest: int = Field(description="the id of the last event there is")
    run: str = Field(description="another one where the ids began anew, as after a restart")


class PredictionAnswer(BaseModel):
    """A class with its score."""

    index: int
    label: str
    score: float = Field(description="in [0, 1], smoothed over time")


class ExplainedClassAnswer(PredictionAnswer):
    """A class that has a map."""

    boxes: list[tuple[float, float, float, float]] = Field(description="x0, y0, x1, y1 in the frame's pixels")


class FrameAnswer(BaseModel):
    """What is known of a frame."""

    model_config = ConfigDict(extra="allow")

    source: str
    frame: int = Field(description="its number among all of its source, from 0")
    time: float = Field(description="Unix seconds at which it was captured")
    width: int
    height: int
    exact: bool
    top: list[PredictionAnswer] = Field(description="the best classes, best first")
    shown: int | None = Field(None, description="the class that pictures show; null where the scene is quiet")
    classes: list[ExplainedClassAnswer]
    events: list[dict[str, Any]]
    age_ms: float = Field(description="from capture until it was explained")
    timings_ms: dict[str, float] = Field(description="of each stage")
    position_s: float | None = Field(None, description="from the beginning of a file")
