"""Which kinds of sinks there are, how each is written, and which options concern it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

SinkKind: TypeAlias = Literal["window", "mqtt", "webhook", "lines", "images", "video"]

CONCERNING: Mapping[SinkKind, frozenset[str]] = {
    "window": frozenset({"sources", "bare"}),
    "mqtt": frozenset({"sources", "qos", "password_file", "ca_file"}),
    "webhook": frozenset({"sources", "secret_file", "ca_file", "picture", "quality"}),
    "lines": frozenset({"sources", "overwrite", "min_free_bytes"}),
    "images": frozenset(
        {"sources", "overwrite", "every_s", "on_events", "keep", "min_free_bytes", "format", "quality", "bare"}
    ),
    "video": frozenset({"sources", "overwrite", "segment_s", "keep", "min_free_bytes", "bare"}),
}
"""The fields of `SinkOptions` that a sink of each kind reads."""

_SCHEMES: Mapping[str, SinkKind] = {"mqtt": "mqtt", "mqtts": "mqtt", "http": "webhook", "https": "webhook"}


def kind_of(uri: str) -> SinkKind | None:
    """The kind that a text without options means; None where it means none."""
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    suffix = Path(uri).suffix.lower()
    is_folder = uri.endswith(("/", "\\"))
    if uri == "window":
        return "window"
    if scheme or not uri:
        return _SCHEMES.get(scheme)
    if uri == "-" or suffix in (".jsonl", ".ndjson"):
        return "lines"
    if suffix in (".mp4", ".mkv") and not is_folder:
        return "video"
    return "images" if is_folder or Path(uri).is_dir() else None
