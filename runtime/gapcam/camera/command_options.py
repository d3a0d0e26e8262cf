"""The options of `gapcam camera`, in groups. What they mean together is checked in `gapcam.camera.asked`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from gapcam.cli.device_options import device_options
from gapcam.cli.finite_number import FiniteNumber, FiniteRange
from gapcam.cli.option_groups import GroupedOption
from gapcam.cli.session_options import session_options

Command = TypeVar("Command", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_SHORTEST_ROUND_S = 0.1
"""Of a log of how it is doing: more often, that would be all that the command does."""


_SECONDS = FiniteRange(min=0)


def _round(_ctx: click.Context, _param: click.Parameter, seconds: float) -> float:
    if 0 < seconds < _SHORTEST_ROUND_S:
        raise click.BadParameter(f"{seconds:g} is too often; give 0 for never, or {_SHORTEST_ROUND_S} or more.")
    return seconds


def _size(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, times, height = text.lower().partition("x")
    if not (times and width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f"{text} is not WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def _print_unit(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from gapcam.camera.systemd import unit_file

    program = Path(sys.executable).with_name("gapcam")
    click.echo(unit_file(program if program.exists() else Path("/opt/gapcam/bin/gapcam")), nl=False)
    ctx.exit()


def _group(name: str) -> Callable[..., Callable[[Command], Command]]:
    return partial(click.option, cls=GroupedOption, group=name)


_source = _group("Sources (each may have its own after a '#': rtsp://host/a#rate=15,rotate=90,name=door)")
_sink = _group("Sinks (each may have its own after a '#': door.mp4#segment=600,keep=24,sources=door)")
_explaining = _group("Explaining")
_events = _group("Events")
_page = _group("Page")
_running = _group("Running")
_logs = _group("Logs and status")

_OPTIONS = [
    _source(
        "-s",
        "--source",
        "sources",
        multiple=True,
        metavar="SRC",
        help="/dev/video0 or 0, csi://0, rtsp://, http:// (MJPEG), a video file, a folder or pattern of images, "
        "test://; or @FILE that holds such lines, with passwords. May be repeated.",
    ),
    _source("--size", callback=_size, metavar="WxH", help="Ask cameras for it, scale others to it."),
    _source("--rate", type=FiniteNumber(), metavar="FPS", help="Frames a second. Files are played at it."),
    _source(
        "--rotate", type=click.Choice(["0", "90", "180", "270"]), default="0", show_default=True, help="Clockwise."
    ),
    _source("--loop", is_flag=True, help="Files and images begin anew at their end."),
    _source("--seek", type=_SECONDS, default=0, metavar="SECONDS", help="Where files begin."),
    _source("--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True, help="Of RTSP."),
    _source(
        "--timeout",
        type=FiniteNumber(),
        default=5,
        show_default=True,
        metavar="SECONDS",
        help="A camera that gives nothing for so long is lost, and opened again.",
    ),
    _source(
        "--give-up-after", type=_SECONDS, metavar="SECONDS", help="Open it again for so long.  [default: for ever]"
    ),
    _source(
        "--stall",
        type=FiniteNumber(),
        default=5,
        show_default=True,
        metavar="SECONDS",
        help="A camera whose driver says nothing for so long is shown as stalled.",
    ),
    _source(
        "--policy",
        type=click.Choice(["newest", "all"]),
        help="newest: a newer frame takes the place of one that waits. all: nothing is dropped; for files and images, "
        "which are read as fast as they are explained.  [default: all for images, newest for others]",
    ),
    _source(
        "--batch/--no-batch",
        default=None,
        help="Whether frames of several sources share an inference.  [default: what measures faster]",
    ),
    _sink(
        "--sink",
        "sinks",
        multiple=True,
        metavar="SINK",
        help="window; FILE.mp4, FILE.mkv; FOLDER/ of images; FILE.jsonl, or - for stdout; mqtt[s]://HOST/TOPIC; "
        "http[s]:// of a webhook for events; or @FILE. May be repeated.",
    ),
    _sink(
        "--segment", type=_SECONDS, default=3600, show_default=True, metavar="SECONDS", help="Of video; 0: one file."
    ),
    _sink("--keep", type=click.IntRange(min=0), default=0, metavar="N", help="Only the newest files.  [default: all]"),
    _sink("--overwrite", is_flag=True, help="Replace a file that is there. Without it a video gets a number."),
    _sink(
        "--min-free",
        type=click.IntRange(min=0),
        default=300,
        show_default=True,
        metavar="MB",
        help="Recording stops where the disk has less room.",
    ),
    _sink("--mqtt-password-file", type=_PATH, metavar="FILE", help="Holds the broker's password."),
    _sink("--webhook-secret-file", type=_PATH, metavar="FILE", help="Holds the key that signs what is sent."),
    _sink("--ca-file", type=_PATH, metavar="FILE", help="Certificates to trust, of a broker or a webhook."),
    _explaining(
        "--classes",
        multiple=True,
        metavar="CLASS[,CLASS...]",
        help="Show these classes, by label or index, instead of the best one. May be repeated.",
    ),
    _explaining("--topk", type=click.IntRange(min=1), default=5, show_default=True, help="List so many of the best."),
    _explaining("--every", type=click.IntRange(min=1), default=1, show_default=True, help="A map on each n-th frame."),
    _explaining(
        "--above",
        type=FiniteRange(0, 1),
        default=0,
        show_default=True,
        metavar="SCORE",
        help="Maps only of classes with such a score: a quiet scene costs the plain classifier.",
    ),
    _explaining(
        "--only-classes", multiple=True, metavar="CLASS[,CLASS...]", help="Maps only while one of these is the best."
    ),
    _explaining(
        "--smooth",
        type=_SECONDS,
        default=0.3,
        show_default=True,
        metavar="SECONDS",
        help="Time constant of the average of scores and maps; 0: none.",
    ),
    _explaining(
        "--threshold",
        type=FiniteRange(0, 1, max_open=True),
        default=0.2,
        show_default=True,
        help="Boxes: keep map values above this part of the maximum.",
    ),
    _explaining(
        "--percentile",
        type=FiniteRange(0, 100, min_open=True),
        help="Boxes: of this percentile instead of the maximum.",
    ),
    _explaining("--clamp-negative", is_flag=True, help="Leave negative weights out of the maps (Bae et al. 2020)."),
    _explaining(
        "--normalize",
        "normalization",
        type=click.Choice(["steady", "minmax", "max", "fixed"]),
        default="steady",
        show_default=True,
        help="What the ends of the colours mean. steady: they follow the maps slowly; minmax, max: each frame's own; "
        "fixed: the --limits.",
    ),
    _explaining(
        "--limits", type=FiniteNumber(), nargs=2, metavar="LOW HIGH", help="Map values at the ends of the colours."
    ),
    _explaining("--colormap", default="jet", show_default=True, metavar="NAME", help="Any of OpenCV's, such as turbo."),
    _explaining("--alpha", type=FiniteRange(0, 1), default=0.5, show_default=True, help="How much a map covers."),
    _explaining("--alpha-by-heat", is_flag=True, help="Cover by --alpha times the map: only what is warm."),
    _events(
        "--event",
        "events",
        multiple=True,
        metavar="CLASS[:...]",
        help="A class enters and leaves: 'tabby:enter=0.6,leave=0.4,for=0.5,gone=1,stays=10', or * for any class. May "
        "be repeated.",
    ),
    _events(
        "--zone",
        "zones",
        multiple=True,
        metavar="NAME=X0,Y0,X1,Y1[:...]",
        help="A part of the frame, from 0 to 1, that boxes enter and leave. May be repeated.",
    ),
    _page("--serve", metavar="HOST:PORT", help="Serve a page to watch, say 127.0.0.1:8080."),
    _page(
        "--token-file",
        type=_PATH,
        metavar="FILE",
        help="Holds the token that people sign in with; else GAPCAM_CAMERA_TOKEN in the environment. Needed for any "
        "other address than this machine's own.",
    ),
    _page("--insecure", is_flag=True, help="Serve other machines without a token."),
    _page("--tls-cert", type=_PATH, metavar="FILE", help="Serve https with this certificate."),
    _page("--tls-key", type=_PATH, metavar="FILE", help="Its key, where it is not in the same file."),
    _page("--origin", "origins", multiple=True, metavar="URL", help="Another origin of the page, such as a proxy's."),
    _page("--max-clients", type=click.IntRange(min=1), metavar="N", help="Who watch at once.  [default: 16]"),
    _running("--duration", type=_SECONDS, metavar="SECONDS", help="End after so long."),
    _running(
        "--print-unit",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_unit,
        help="Print a unit file for systemd, and end.",
    ),
    _logs("--json", "as_json", is_flag=True, help="At the end, print a summary as JSON to stdout."),
    _logs(
        "--status-every",
        type=_SECONDS,
        callback=_round,
        default=10,
        show_default=True,
        metavar="SECONDS",
        help="Log how it is doing; on a terminal a table is shown instead. 0: neither.",
    ),
    _logs("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of stderr."),
    _logs(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What is logged.",
    ),
    device_options,
    session_options,
]


def camera_options(command: Command) -> Command:
    """All of them, in the order above."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
