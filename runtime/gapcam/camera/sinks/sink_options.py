"""What can be asked of sinks, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any

from gapcam.errors import UsageError

IMAGE_FORMATS = ("jpg", "png")


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How results are written. Each kind of sink takes what concerns it.

    Attributes:
        sources: the names of the sources whose frames are taken; of all where there are none. A video file of several
            sources is a file each: with their names here those are known from the beginning, else the first source that
            comes gets the plain name.
        overwrite: a file of the name given is replaced. Otherwise a video becomes a new numbered file, and lines of
            JSON are added to what is there.
        segment_s: seconds after which a video goes on in a new numbered file; 0 for never.
        keep: of a video's numbered files, or of the images, only the newest so many stay, of each source; those of
            earlier runs count. 0 keeps all.
        min_free_bytes: recording stops where the disk has less room than this.
        every_s: images: one in so many seconds of each source; 0 for each frame.
        on_events: images: only frames with events.
        format: of images, one of `IMAGE_FORMATS`.
        quality: of JPEG, 1 to 100.
        bare: pictures as the camera took them, without map, boxes and caption.
        qos: MQTT's quality of service of results, 0 or 1; that of events is 1.
        password_file: MQTT: holds the password.
        secret_file: webhook: holds the key of the signature.
        ca_file: MQTT and webhook: certificates, PEM, to trust instead of the system's.
        picture: webhook: with the picture.

    Raises:
        UsageError: a value is out of its range.
    """

    sources: tuple[str, ...] = ()
    overwrite: bool = False
    segment_s: float = 3600
    keep: int = 0
    min_free_bytes: int = 300_000_000
    every_s: float = 0
    on_events: bool = False
    format: str = "jpg"
    quality: int = 90
    bare: bool = False
    qos: int = 0
    password_file: Path | None = None
    secret_file: Path | None = None
    ca_file: Path | None = None
    picture: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("segment_s", isfinite(self.segment_s) and (self.segment_s == 0 or self.segment_s >= 1), "0, or 1 or more"),
            ("keep", self.keep >= 0, "0 or more"),
            ("min_free_bytes", self.min_free_bytes >= 0, "0 or more megabytes"),
            ("every_s", isfinite(self.every_s) and self.every_s >= 0, "0 or more"),
            ("format", self.format in IMAGE_FORMATS, " or ".join(IMAGE_FORMATS)),
            ("quality", 1 <= self.quality <= 100, "1 to 100"),
            ("qos", self.qos in (0, 1), "0 or 1"),
        )
        for name, fits, expected in checks:
            if not fits:
                value = self.min_free_bytes / 1e6 if name == "min_free_bytes" else getattr(self, name)
                shown = f"{value:g}" if isinstance(value, float) else repr(value)
                raise UsageError(f"the sink option {text_of(name)} is {shown}; give {expected}")

    def takes(self, source: str) -> bool:
        """Whether the frames of a source are wanted."""
        return not self.sources or source in self.sources

    def with_text(self, text: str) -> SinkOptions:
        """These, but for what a text such as "segment=60,keep=5,overwrite" says.

        Raises:
            UsageError: there is no such option, its value is not one, or it names a source that these do not have.
        """
        changes: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = part.partition("=")
            if key not in _TEXTS:
                raise UsageError(f"there is no sink option {key!r}; expected some of {', '.join(_TEXTS)}")
            name, read = _TEXTS[key]
            try:
                changes[name] = read(value if equals or read is not _flag else "yes")
            except (ValueError, OverflowError):  # the latter of infinity, as a whole number
                raise UsageError(f"the sink option {key} is {value!r}; give {_EXPECTED[read]}") from None
        unknown = [name for name in changes.get("sources", ()) if not self.takes(name)]
        if unknown:
            raise UsageError(
                f"there is no source {unknown[0]!r} for the sink; expected some of {', '.join(self.sources)}"
            )
        return replace(self, **changes)


def fields_in(text: str) -> set[str]:
    """The names of the fields that such a text sets, as far as there are such."""
    keys = (part.partition("=")[0].strip() for part in text.split(","))
    return {_TEXTS[key][0] for key in keys if key in _TEXTS}


def text_of(field: str) -> str:
    """How a field is written in such a text."""
    return _SHORT.get(field, field.replace("_", "-"))


def _flag(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("yes", "true", "1")


def _megabytes(text: str) -> int:
    return round(float(text) * 1e6)


def _sources(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split("+") if name)


_EXPECTED: dict[Callable[[str], Any], str] = {
    int: "a whole number",
    float: "a number",
    _megabytes: "a number of megabytes",
    _flag: "yes or no",
}
_READERS: dict[str, Callable[[str], Any]] = {
    "sources": _sources,
    "overwrite": _flag,
    "segment_s": float,
    "keep": int,
    "min_free_bytes": _megabytes,
    "every_s": float,
    "on_events": _flag,
    "format": str,
    "quality": int,
    "bare": _flag,
    "qos": int,
    "password_file": Path,
    "secret_file": Path,
    "ca_file": Path,
    "picture": _flag,
}
_SHORT = {"segment_s": "segment", "min_free_bytes": "min-free", "every_s": "every"}
_TEXTS = {text_of(field.name): (field.name, _READERS[field.name]) for field in fields(SinkOptions)}
