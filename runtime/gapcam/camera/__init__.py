"""gapcam.camera: live explanations from any source to any sink.

    import gapcam
    from gapcam.camera import Pipeline, source_from_uri

    with gapcam.load("model.onnx") as session:
        for frame in Pipeline(session, [source_from_uri("/dev/video0")]).frames():
            frame.top[0].label, frame.top[0].score
            frame.picture()  # H x W x 3 uint8 BGR

The names below are the whole public API. They are loaded when first used, as `gapcam`'s are, and what they need beyond
gapcam itself is installed with: pip install 'gapcam[camera]'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gapcam.camera.backoff import Reopen
    from gapcam.camera.captured_frame import CapturedFrame, SourceFrame
    from gapcam.camera.class_demand import ClassDemand
    from gapcam.camera.errors import BrokenFrameError, SinkEndedError, SourceLostError, StopRequestedError
    from gapcam.camera.event import Event
    from gapcam.camera.event_rules import EventRule
    from gapcam.camera.explain_settings import ExplainSettings
    from gapcam.camera.explained_frame import ExplainedFrame
    from gapcam.camera.page.server import PageServer
    from gapcam.camera.pipeline import Pipeline
    from gapcam.camera.sinks.protocol import Sink
    from gapcam.camera.sinks.sink_options import SinkOptions
    from gapcam.camera.sinks.sink_uri import sink_from_uri
    from gapcam.camera.sources.protocol import Source
    from gapcam.camera.sources.source_options import SourceOptions
    from gapcam.camera.sources.source_uri import source_from_uri
    from gapcam.camera.status import Percentiles, PipelineStatus, SinkStatus, SourceStatus
    from gapcam.camera.zones import Zone

__all__ = [
    "BrokenFrameError",
    "CapturedFrame",
    "ClassDemand",
    "Event",
    "EventRule",
    "ExplainSettings",
    "ExplainedFrame",
    "PageServer",
    "Percentiles",
    "Pipeline",
    "PipelineStatus",
    "Reopen",
    "Sink",
    "SinkEndedError",
    "SinkOptions",
    "SinkStatus",
    "Source",
    "SourceFrame",
    "SourceLostError",
    "SourceOptions",
    "SourceStatus",
    "StopRequestedError",
    "Zone",
    "sink_from_uri",
    "source_from_uri",
]

_HOME = {
    "BrokenFrameError": "errors",
    "CapturedFrame": "captured_frame",
    "ClassDemand": "class_demand",
    "Event": "event",
    "EventRule": "event_rules",
    "ExplainSettings": "explain_settings",
    "ExplainedFrame": "explained_frame",
    "PageServer": "page.server",
    "Percentiles": "status",
    "Pipeline": "pipeline",
    "PipelineStatus": "status",
    "Reopen": "backoff",
    "Sink": "sinks.protocol",
    "SinkEndedError": "errors",
    "SinkOptions": "sinks.sink_options",
    "SinkStatus": "status",
    "Source": "sources.protocol",
    "SourceFrame": "captured_frame",
    "SourceLostError": "errors",
    "SourceOptions": "sources.source_options",
    "SourceStatus": "status",
    "StopRequestedError": "errors",
    "Zone": "zones",
    "sink_from_uri": "sinks.sink_uri",
    "source_from_uri": "sources.source_uri",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'gapcam.camera' has no attribute {name!r}")
    value: object = getattr(import_module(f"gapcam.camera.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
