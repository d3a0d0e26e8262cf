"""/metrics, for Prometheus: the pipeline's own counts, taken when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from gapcam._version import __version__
from gapcam.camera.names import shown_name
from gapcam.camera.page.page_state import PageState
from gapcam.camera.page.seats import KINDS
from gapcam.camera.status import SinkState, SinkStatus, SourceState, SourceStatus

_Figure: TypeAlias = "tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, str]"
"""What it is for Prometheus, its name and meaning there, and the attribute of a status."""

_OF_SOURCES: tuple[_Figure, ...] = (
    (CounterMetricFamily, "gapcam_frames_captured", "Frames that a source gave.", "captured"),
    (
        CounterMetricFamily,
        "gapcam_frames_explained",
        "Frames that were explained and handed to the sinks.",
        "explained",
    ),
    (CounterMetricFamily, "gapcam_frames_dropped", "Frames that a newer one took the place of.", "dropped"),
    (CounterMetricFamily, "gapcam_frames_failed", "Frames that could not be explained.", "failed"),
    (CounterMetricFamily, "gapcam_frames_broken", "Frames that could not be read; they are not captured.", "broken"),
    (CounterMetricFamily, "gapcam_source_reopened", "How often a source was opened again.", "reopened"),
    (GaugeMetricFamily, "gapcam_frames_waiting", "Frames that are on their way.", "waiting"),
    (GaugeMetricFamily, "gapcam_source_frames_per_second", "Frames captured a second, of the last seconds.", "fps"),
)
_OF_SINKS: tuple[_Figure, ...] = (
    (CounterMetricFamily, "gapcam_sink_frames_received", "Frames that were handed to a sink.", "received"),
    (CounterMetricFamily, "gapcam_sink_frames_written", "Frames that it wrote.", "written"),
    (
        CounterMetricFamily,
        "gapcam_sink_frames_dropped",
        "Frames that it was too slow for, or that came while it was closed.",
        "dropped",
    ),
    (CounterMetricFamily, "gapcam_sink_frames_failed", "Frames at which it failed.", "failed"),
    (CounterMetricFamily, "gapcam_sink_restarts", "How often a sink was opened again.", "restarts"),
    (CounterMetricFamily, "gapcam_sink_undelivered", "What a sink took and could not deliver.", "undelivered"),
    (GaugeMetricFamily, "gapcam_sink_frames_waiting", "Frames that are on their way.", "waiting"),
)


def metrics_answer(state: PageState) -> Response:
    """All metrics, in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(state))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Page(Collector):
    def __init__(self, state: PageState) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._state.pipeline.status()
        info = GaugeMetricFamily("gapcam_info", "What runs here.", labels=["version", "model", "engine"])
        info.add_metric([__version__, shown_name(status.model), status.engine], 1)
        yield info
        yield _gauge("gapcam_running", "Whether frames may still come.", float(status.running))
        yield _gauge("gapcam_uptime_seconds", "Since the start.", status.uptime_s)
        yield _gauge("gapcam_inference_idle_seconds", "Since the inference thread last came round.", status.idle_s)
        yield from _figures("source", _OF_SOURCES, SourceState, status.sources)
        yield from _figures("sink", _OF_SINKS, SinkState, status.sinks)
        yield from self._times()
        yield from self._clients()

    def _times(self) -> Iterator[Metric]:
        times = self._state.times
        ages = HistogramMetricFamily(
            "gapcam_frame_age_seconds", "From capture until a frame was explained.", labels=["source"]
        )
        for source, buckets, total in times.ages():
            ages.add_metric([shown_name(source)], buckets, total)
        yield ages
        stages = HistogramMetricFamily(
            "gapcam_stage_seconds", "What a stage of a frame took: wait, preprocess, infer, ...", labels=["stage"]
        )
        for stage, buckets, total in times.stages():
            stages.add_metric([stage], buckets, total)
        yield stages
        events = CounterMetricFamily("gapcam_events", "What happened in front of a source.", labels=["source", "event"])
        for source, kind, count in times.events():
            events.add_metric([shown_name(source), kind], count)
        yield events

    def _clients(self) -> Iterator[Metric]:
        seats = self._state.seats
        clients = GaugeMetricFamily("gapcam_page_clients", "Who watches at present.", labels=["kind"])
        sent = CounterMetricFamily("gapcam_page_frames_sent", "Frames sent to those who watch.", labels=["kind"])
        for kind in KINDS:
            clients.add_metric([kind], seats.count(kind))
            sent.add_metric([kind], seats.frames[kind])
        yield clients
        yield sent
        yield _gauge("gapcam_page_clients_limit", "How many may watch.", seats.limit)
        refused = CounterMetricFamily("gapcam_page_refused", "Answers with a status of 400 or more.", labels=["status"])
        for code, count in sorted(self._state.refusals.items()):
            refused.add_metric([str(code)], count)
        yield refused


def _figures(
    label: str, figures: tuple[_Figure, ...], states: object, all_of: Sequence[SourceStatus | SinkStatus]
) -> Iterator[Metric]:
    """Of all sources, or of all sinks."""
    for kind, name, meaning, attribute in figures:
        family = kind(name, meaning, labels=[label])
        for one in all_of:
            family.add_metric([shown_name(one.name)], getattr(one, attribute))
        yield family
    family = GaugeMetricFamily(f"gapcam_{label}_state", "1 for the state that it is in.", labels=[label, "state"])
    for one in all_of:
        for state in get_args(states):
            family.add_metric([shown_name(one.name), state], float(one.state == state))
    yield family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    gauge = GaugeMetricFamily(name, meaning)
    gauge.add_metric([], value)
    return gauge
