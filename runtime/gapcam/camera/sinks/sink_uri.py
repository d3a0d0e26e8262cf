"""A sink from what people write on a command line."""

from __future__ import annotations

import re
from pathlib import Path

from gapcam.camera.names import check_name, shown_name
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_kinds import CONCERNING, kind_of
from gapcam.camera.sinks.sink_options import SinkOptions, fields_in, text_of
from gapcam.camera.uri import check_credentials, end_of_credentials, without_credentials
from gapcam.errors import MissingExtraError, UsageError

_KINDS = (
    "window, a video file (.mp4, .mkv), a folder of images (with a slash at its end), lines of JSON (.jsonl, or - for "
    "stdout), mqtt://HOST/TOPIC, mqtts://, http:// or https:// of a webhook"
)
_OPTIONS = re.compile(r"#(?=[A-Za-z]+(-[A-Za-z]+)*(=|,|$))")
"""What sets a sink's own options apart."""
_NAME = "name="


def sink_from_uri(uri: str, *, name: str = "", options: SinkOptions | None = None) -> Sink:
    """The sink that a text names; nothing is opened yet, but what can be seen to be wrong is refused.

    Args:
        uri: `window`; `FILE.mp4` or `FILE.mkv`; `FOLDER/`; `FILE.jsonl`, or `-` for stdout;
            `mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC`, `mqtts://` with TLS; `http://` or `https://` of a webhook.
            After a '#' it may have options of its own, and a name: `out.mp4#segment=60,keep=10,name=door`.
        name: of the sink, for people; made from the URI by default.
        options: how to write, for this sink and others.

    Raises:
        UsageError: it names no sink, or one that cannot work: its folder is missing, this OpenCV has no windows.
        DataError: it cannot be written to, or a file of a secret cannot be read.
        MissingExtraError: the extra `camera` is not installed.
    """
    wanted = options or SinkOptions()
    uri, own = split_options(uri)
    if own:
        name = next((part[len(_NAME) :].strip() for part in own if part.startswith(_NAME)), "") or name
        text = ",".join(part for part in own if not part.startswith(_NAME))
        wanted = wanted.with_text(text)
        kind = kind_of(uri)
        idle = fields_in(text) - CONCERNING[kind] if kind else None
        if kind and idle:
            raise UsageError(
                f"the sink {without_credentials(uri)} has no option {text_of(min(idle))!r}; it has "
                f"{', '.join(sorted(map(text_of, CONCERNING[kind])))}"
            )
    try:
        sink = _made(uri, wanted)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("av", "paho", "httpx"):
            raise
        raise MissingExtraError(package, "camera") from None
    check_name(name, "sink")
    sink.name = name or shown_name(sink.name)
    return sink


def split_options(text: str) -> tuple[str, list[str]]:
    """A sink without its own options, and these, if there is no file of just that name."""
    mark = _OPTIONS.search(text, end_of_credentials(text))
    if mark is None or Path(text).exists():
        return text, []
    return text[: mark.start()], text[mark.end() :].split(",")


def _made(uri: str, options: SinkOptions) -> Sink:
    if "://" in uri:
        check_credentials(uri, "sink")
    # The modules are imported where they are used: they bring packages of the extra.
    match kind_of(uri):
        case "window":
            from gapcam.camera.sinks.window import WindowSink

            return WindowSink(options)
        case "mqtt":
            from gapcam.camera.sinks.mqtt import MqttSink

            return MqttSink(uri, options)
        case "webhook":
            from gapcam.camera.sinks.webhook import WebhookSink

            return WebhookSink(uri, options)
        case "lines":
            from gapcam.camera.sinks.json_lines import JsonLinesSink

            return JsonLinesSink(None if uri == "-" else Path(uri), options)
        case "images":
            from gapcam.camera.sinks.images import ImagesSink

            return ImagesSink(Path(uri), options)
        case "video":
            from gapcam.camera.sinks.video_file import VideoFileSink

            return VideoFileSink(Path(uri), options)
    raise UsageError(f"there is no sink {without_credentials(uri)!r}; expected {_KINDS}")
