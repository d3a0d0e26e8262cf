"""Options of a command line that would change nothing: refused, since who gives one expects something of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gapcam.camera.sinks.sink_kinds import CONCERNING, kind_of
from gapcam.camera.sinks.sink_uri import split_options
from gapcam.camera.sources.image_files import ImageFiles
from gapcam.camera.sources.moving_clock import MovingClock
from gapcam.camera.sources.protocol import Source
from gapcam.errors import UsageError

_OF_THE_PAGE = {
    "token_file": "--token-file",
    "insecure": "--insecure",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
    "origins": "--origin",
    "max_clients": "--max-clients",
}
_OF_SINKS = {
    "keep": ("--keep", "keep", "film.mp4 or photos/"),
    "overwrite": ("--overwrite", "overwrite", "film.mp4, photos/ or lines.jsonl"),
    "mqtt_password_file": ("--mqtt-password-file", "password_file", "mqtt://USER@HOST/TOPIC"),
    "webhook_secret_file": ("--webhook-secret-file", "secret_file", "https://HOST/PATH"),
    "ca_file": ("--ca-file", "ca_file", "mqtts://HOST/TOPIC or https://HOST/PATH"),
}


def check_effects(options: Mapping[str, Any], sources: Sequence[Source]) -> None:
    """Refuse options of a page, of sinks or of a pace that there is not.

    Args:
        options: by the names of `gapcam.camera.command_options`.
        sources: made of them.

    Raises:
        UsageError: there is such an option.
    """
    if options["serve"] is None:
        given = [text for name, text in _OF_THE_PAGE.items() if options[name]]
        if given:
            raise UsageError(f"{' and '.join(given)} without a page; add --serve 127.0.0.1:8080")
    kinds = {kind for uri in options["sinks"] if (kind := kind_of(split_options(uri)[0]))}
    for name, (text, field, example) in _OF_SINKS.items():
        if options[name] and not any(field in CONCERNING[kind] for kind in kinds):
            raise UsageError(f"{text} without a sink that it concerns; add, say, --sink {example}")
    if options["policy"] == "all" and options["rate"] is not None:
        for source in sources:
            if not (source.live or isinstance(source, (ImageFiles, MovingClock))):
                raise UsageError(
                    f"--rate and --policy all: {source.name!r} is read as fast as its frames are explained, all of "
                    "them; leave one of the two out"
                )
