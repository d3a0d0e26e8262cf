"""`gapcam camera`: live explanations from any source to any sink, and a page to watch them."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gapcam.camera.command_options import camera_options
from gapcam.cli.interrupt import is_interrupt
from gapcam.cli.option_groups import GroupedCommand
from gapcam.errors import ExitCode, GapcamError

if TYPE_CHECKING:
    from gapcam.camera.asked import Asked
    from gapcam.camera.logs import Redaction
    from gapcam.camera.newest_best import NewestBest
    from gapcam.camera.shown_status import ShownStatus
    from gapcam.session import Session

LOG = logging.getLogger("gapcam.camera")

_SESSION_OPTIONS = {"session.intra_op.allow_spinning": "0"}
"""Threads of ONNX Runtime that wait do not take the cores from cameras and sinks. --session-option goes before it."""


class _CameraCommand(GroupedCommand):
    """What click does not understand of a command line is shown without credentials, and as JSON where asked."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        given = " ".join(args).replace("=", " ")  # click takes its options out of `args`
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            from gapcam.camera.logs import Redaction

            redact = Redaction()
            if "--log-format json" in given:
                ctx.exit(_end_in_json(error.format_message(), ExitCode.USAGE, redact))
            raise click.UsageError(redact(error.format_message()), error.ctx) from None


@click.command(name="camera", cls=_CameraCommand, short_help="Explain cameras live, and serve a page to watch.")
@click.argument("model", type=click.Path(path_type=Path))
@camera_options
def camera_command(model: Path, **options: Any) -> int:
    """Explain live what MODEL, an ONNX file or an engine, sees in cameras, streams, videos or images, and where.

    The newest frame of each source wins, and what is dropped is counted. A camera that is lost is opened again, for as
    long as asked. Ctrl-C and SIGTERM finish all files; a second one ends at once.

    \b
    Examples:
      gapcam camera model.onnx --source test:// --serve 127.0.0.1:8080
      gapcam camera model.onnx --source film.mp4 --policy all --sink explained.mp4 --sink lines.jsonl
      gapcam camera model.onnx --source /dev/video0 --source rtsp://10.0.0.5/live --serve 127.0.0.1:8080
      gapcam camera model.onnx --source 0 --event "tabby:stays=10" --sink https://example.org/hook

    docs/camera.md has all of it.
    """  # noqa: D301 - the backspace is click's mark for a paragraph that it must not wrap
    # What is wrong with a frame is reported once, by us. OpenCV and FFmpeg read these when they are loaded.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

    # Here, so that --help needs no OpenCV and no inference engine.
    from gapcam.camera.heap import keep_heap_small
    from gapcam.camera.logs import Redaction
    from gapcam.camera.uri_files import files_in, uris_from_texts

    keep_heap_small()
    in_json = options["log_format"] == "json"
    redact = Redaction()
    try:
        weights = Path(f"{model}.data")  # where exporters put those that do not fit into the model, if there are any
        read = [model, weights, *files_in([*options["sources"], *options["sinks"]])]
        for name in ("sources", "sinks"):
            options[name] = uris_from_texts(options[name])
        redact = Redaction([*options["sources"], *options["sinks"]])
        return _camera(model, options, redact, read)
    except BaseException as error:  # whatever it is, it is shown without credentials
        if is_interrupt(error):
            if in_json:
                return _end_in_json("interrupted", ExitCode.INTERRUPTED, redact)
            raise KeyboardInterrupt from None
        redact.clean(error)
        if in_json and isinstance(error, GapcamError):
            return _end_in_json(str(error), error.exit_code, redact)
        raise


def _camera(model: Path, options: dict[str, Any], redact: Redaction, read: list[Path]) -> int:
    from gapcam.camera.asked import asked_for, secrets_of
    from gapcam.camera.logs import goes_to_journal, logging_to

    asked = asked_for(options, read)
    redact.add_secrets(secrets_of(options, asked.server))
    level = getattr(logging, options["log_level"].upper())
    with (
        logging_to(_writer(), form=options["log_format"], level=level, redact=redact, journal=goes_to_journal()),
        _loaded(model, options) as session,
    ):
        return _watched(session, asked, options)


def _watched(session: Session, asked: Asked, options: dict[str, Any]) -> int:
    """From the start of the pipeline to its summary."""
    from gapcam.camera.asked import resolved
    from gapcam.camera.closing_summary import exit_code, log_summary, summary
    from gapcam.camera.newest_best import NewestBest
    from gapcam.camera.page.server import PageServer
    from gapcam.camera.pipeline import Pipeline
    from gapcam.camera.stop_signals import StopSignals
    from gapcam.camera.systemd import Notifier
    from gapcam.camera.watching import in_a_line, watch
    from gapcam.cli.console import write_line
    from gapcam.cli.output import json_line

    pipeline = Pipeline(
        session,
        asked.sources,
        asked.sinks,
        settings=resolved(asked.settings, session.classes),
        policy=options["policy"],
        batch=options["batch"],
        reopen=asked.reopen,
    )
    notifier, best, wake = Notifier.from_environment(), NewestBest(), threading.Event()
    with ExitStack() as stack:
        if asked.server is not None:
            page = PageServer(pipeline, asked.server)
            stack.callback(page.close)
            page.start()
            pipeline.add_sink(page)
            LOG.info("the page is at %s", page.url)
        elif not asked.sinks:
            LOG.info(
                "no --sink and no --serve: only the status is shown. Try --serve 127.0.0.1:8080, or --sink out.mp4"
            )
        signals = stack.enter_context(StopSignals(wake))
        try:
            pipeline.start()
            notifier.send(READY=1, STATUS=in_a_line(pipeline.status()))
            with _shown_status(options, best) as shown:
                ended_by = watch(
                    pipeline, shown, signals, wake, note=best.note, notifier=notifier, duration_s=options["duration"]
                )
        finally:
            notifier.send(STOPPING=1, STATUS="finishing what is being written")
            pipeline.stop()
        status = pipeline.status()
        facts = summary(status, ended_by)
        log_summary(facts)
        if options["as_json"]:
            write_line(json_line(facts, ascii_only=True))
        pipeline.wait(0)  # raises what it ended by
        return signals.exit_code if signals.asked.is_set() else exit_code(status)


@contextmanager
def _loaded(model: Path, options: dict[str, Any]) -> Iterator[Session]:
    """The model, and what there is to say of it."""
    from gapcam.camera.stop_signals import ending_by_signals
    from gapcam.cli.console import NOT_EXACT
    from gapcam.cli.device_options import device_line, loading
    from gapcam.cuda.presence import presence
    from gapcam.engine_file import is_engine
    from gapcam.session import load

    given = options["session_options"]
    LOG.info("loading %s", model.name)
    with ending_by_signals(), loading():
        session = load(
            model,
            device=options["device"],
            threads=options["threads"],
            provider_options=options["provider_options"],
            session_options=given if is_engine(model) else {**_SESSION_OPTIONS, **given},
            allow_cpu_fallback=options["allow_cpu_fallback"],
        )
    with session:
        found = presence().devices
        LOG.info(
            "%s runs %s",
            model.name,
            device_line(session.engine, session.passed_over) if found else f"on {session.engine}",
        )
        for warning in session.warnings:
            LOG.warning("%s warns: %s", session.engine.partition(",")[0], warning)
        if not session.exact:
            LOG.info(NOT_EXACT)
        yield session


def _end_in_json(message: str, code: ExitCode, redact: Callable[[str], str]) -> ExitCode:
    """Say why the command ends to those who read nothing but JSON."""
    from gapcam.camera.logs import LineFormatter

    level = logging.CRITICAL
    facts = {"name": LOG.name, "levelno": level, "levelname": logging.getLevelName(level), "msg": "%s"}
    record = logging.makeLogRecord({**facts, "args": (message,), "exit_code": int(code)})
    _writer()(LineFormatter("json", redact).format(record))
    return code


def _writer() -> Callable[[str], None]:
    """Where log lines go: above the status on a terminal, else to stderr as they are."""
    from gapcam.cli.console import stderr

    if stderr.is_terminal:
        return lambda line: stderr.print(line, markup=False, soft_wrap=True)

    def write(line: str) -> None:
        if sys.stderr is not None:  # None: it was closed before the start
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    return write


def _shown_status(options: dict[str, Any], best: NewestBest) -> ShownStatus:
    from gapcam.camera.shown_status import LiveStatus, LoggedStatus
    from gapcam.cli.console import stderr

    lines_on_it = "-" in options["sinks"] and sys.stdout is not None and sys.stdout.isatty()
    for_people = stderr.is_terminal and options["log_format"] == "text" and not lines_on_it
    if for_people and options["status_every"]:
        return LiveStatus(best)
    return LoggedStatus(best, options["status_every"])
