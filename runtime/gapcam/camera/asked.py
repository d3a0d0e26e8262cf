"""What a command line of `gapcam camera` asks for: checked and made before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gapcam.camera.backoff import Reopen
from gapcam.camera.event_rules import ANY_CLASS, rule_from_text
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.file_clashes import check_files_of, check_spares_files
from gapcam.camera.names import check_different
from gapcam.camera.page.server import check_address
from gapcam.camera.page.server_options import ServerOptions
from gapcam.camera.page.token_source import read_token
from gapcam.camera.sinks.images import ImagesSink
from gapcam.camera.sinks.protocol import Sink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.sink_uri import sink_from_uri, split_options
from gapcam.camera.sources.local_check import check_local
from gapcam.camera.sources.protocol import Source
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.source_options import split_options as own_options
from gapcam.camera.sources.source_uri import source_from_uri
from gapcam.camera.without_effect import check_effects
from gapcam.camera.zones import zone_from_text
from gapcam.classes import ClassNames
from gapcam.cli.class_options import class_indices
from gapcam.errors import UsageError
from gapcam.look import Look

Named = TypeVar("Named", Source, Sink)


@dataclass(frozen=True, slots=True)
class Asked:
    """All but the model.

    Attributes:
        sources: with different names.
        sinks: likewise; without the page.
        settings: whose classes are texts, since only the model knows them: see `resolved`.
        server: of the page; None for none.
        reopen: of what is lost.
    """

    sources: tuple[Source, ...]
    sinks: tuple[Sink, ...]
    settings: ExplainSettings
    server: ServerOptions | None
    reopen: Reopen


def asked_for(options: Mapping[str, Any], read: Sequence[Path] = ()) -> Asked:
    """From the command's options, by the names of `gapcam.camera.command_options`.

    Args:
        options: with URIs in the place of files of them.
        read: files that no sink may write over, beside those that the options name: the model, files of URIs.

    Raises:
        UsageError: one of them is not understood, or two contradict each other.
        DataError: something cannot be read or written.
        MissingExtraError: the extra `camera` is not installed.
    """
    if not options["sources"]:
        raise UsageError("there is no source; give one with --source: /dev/video0, rtsp://..., film.mp4, test://")
    if options["as_json"] and any(sink.partition("#")[0] == "-" for sink in options["sinks"]):
        raise UsageError("--json and --sink - both write to stdout; give the lines a file: --sink lines.jsonl")
    given = [own["name"] for uri in options["sources"] if "name" in (own := own_options(uri)[1])]
    check_different(given, "source")
    settings = _settings(options)
    server = _server(options)
    sources = _with_names_of_their_own(
        [source_from_uri(uri, options=_of_sources(options)) for uri in options["sources"]]
    )
    for source in sources:
        check_local(source)
    if options["policy"] == "all":
        for source in sources:
            if source.live:
                raise UsageError(f"--policy all is for files and images, and {source.name!r} is live; leave it out")
    of_sinks = _of_sinks(options, tuple(source.name for source in sources))
    sinks: Sequence[Sink] = [sink_from_uri(uri, options=of_sinks) for uri in options["sinks"]]
    read = [*read, *_files_of(options)]
    for index, sink in enumerate(sinks):
        check_files_of(sink, sources, sinks[:index])
        if not isinstance(sink, ImagesSink):  # whose names are like no other file's
            check_spares_files(sink, read)
    sinks = _with_names_of_their_own(sinks)
    check_effects(options, sources)
    reopen = Reopen(give_up_s=options["give_up_after"], stall_s=options["stall"])
    if server is not None:
        check_address(server)
    return Asked(tuple(sources), tuple(sinks), settings, server, reopen)


def resolved(settings: ExplainSettings, names: ClassNames) -> ExplainSettings:
    """The settings with the classes' indices in the place of what was typed.

    Raises:
        ClassNotFoundError: the model has no such class, or several share the label.
    """
    classes, only = (
        tuple(index for text in texts for index in class_indices(str(text), names))
        for texts in (settings.classes, settings.only_classes)
    )
    rules = tuple(
        rule if rule.target == ANY_CLASS else replace(rule, target=names.resolve_text(str(rule.target)))
        for rule in settings.rules
    )
    return replace(settings, classes=classes, only_classes=only, rules=rules)


def secrets_of(options: Mapping[str, Any], server: ServerOptions | None) -> list[str]:
    """What must never be seen in a log beside the credentials of URIs."""
    token = [server.token] if server is not None and server.token else []
    files = [options[name] for name in ("mqtt_password_file", "webhook_secret_file") if options[name] is not None]
    return token + [text for file in files if (text := _text_of(file))]


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # said by the sink that needs it
        return ""


def _files_of(options: Mapping[str, Any]) -> list[Path]:
    """Of secrets and certificates."""
    names = ("mqtt_password_file", "webhook_secret_file", "ca_file", "token_file", "tls_cert", "tls_key")
    own = (part.partition("=") for uri in options["sinks"] for part in split_options(uri)[1])
    return [
        *(options[name] for name in names if options[name] is not None),
        *(Path(value) for key, _, value in own if key.strip() in ("password-file", "secret-file", "ca-file")),
    ]


def _of_sources(options: Mapping[str, Any]) -> SourceOptions:
    return SourceOptions(
        size=options["size"],
        fps=options["rate"],
        rotate=int(options["rotate"]),  # type: ignore[arg-type]  # one of click's choices
        loop=options["loop"],
        seek_s=options["seek"],
        transport=options["transport"],
        timeout_s=options["timeout"],
        pace=False if options["policy"] == "all" else None,
    )


def _of_sinks(options: Mapping[str, Any], sources: tuple[str, ...]) -> SinkOptions:
    return SinkOptions(
        sources=sources,
        overwrite=options["overwrite"],
        segment_s=options["segment"],
        keep=options["keep"],
        min_free_bytes=options["min_free"] * 1_000_000,
        password_file=options["mqtt_password_file"],
        secret_file=options["webhook_secret_file"],
        ca_file=options["ca_file"],
    )


def _settings(options: Mapping[str, Any]) -> ExplainSettings:
    return ExplainSettings(
        topk=options["topk"],
        classes=options["classes"],
        every=options["every"],
        above=options["above"],
        only_classes=options["only_classes"],
        smoothing_s=options["smooth"],
        threshold=options["threshold"],
        percentile=options["percentile"],
        clamp_negative=options["clamp_negative"],
        normalization=options["normalization"],
        limits=options["limits"],
        look=Look(options["colormap"], options["alpha"], options["alpha_by_heat"]),
        rules=tuple(map(rule_from_text, options["events"])),
        zones=tuple(map(zone_from_text, options["zones"])),
    )


def _server(options: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> ServerOptions | None:
    if options["serve"] is None:
        return None
    return ServerOptions(
        address=options["serve"],
        token=read_token(options["token_file"] or _credential(environment), environment),
        insecure=options["insecure"],
        tls_cert=options["tls_cert"],
        tls_key=options["tls_key"],
        origins=options["origins"],
        **({} if options["max_clients"] is None else {"max_clients": options["max_clients"]}),
    )


def _credential(environment: Mapping[str, str]) -> Path | None:
    """Where systemd puts what `LoadCredential=token:...` names."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    path = Path(folder or ".", "token")
    return path if folder and path.is_file() else None


def _with_names_of_their_own(named: Sequence[Named]) -> Sequence[Named]:
    """Two "test" become "test" and "test-2"."""
    taken: set[str] = set()
    for one in named:
        name, number = one.name, 1
        while one.name in taken:
            number += 1
            one.name = f"{name}-{number}"
        taken.add(one.name)
    return named
