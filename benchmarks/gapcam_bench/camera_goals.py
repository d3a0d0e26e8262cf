"""How old frames get between camera and sink, and what is dropped, in cases with a goal.

| case     | camera                        | sinks                   | goal                                         |
| -------- | ----------------------------- | ----------------------- | -------------------------------------------- |
| `bare`   | at the rate                   | none                    | nothing dropped, age p99 at most 2 intervals |
| `lines`  | at the rate                   | lines of JSON           | the same, until they are written             |
| `page`   | at the rate                   | a video, and the page   | the same, and until a client has received it |
| `behind` | twice as fast as the machine  | lines of JSON           | age at most 2 inferences and 1 interval,     |
|          |                               |                         | also until the lines are written             |

The model is loaded as `gapcam camera` loads it. The camera is `PacedFrames`: a frame is taken at its exact moment, so
that whatever makes it wait counts. A frame that nobody reads in time counts as dropped. Of each case the first second
is left out of the ages, not of what was dropped.

A turn is what the network's thread does with one frame: preprocessing, inference, map, events, hand-over. While the
camera is faster than the machine, the newest frame at the end of a turn is at most one frame interval old, and then has
a turn of its own. So the goal of `behind`, two inferences and one interval, leaves the other steps of the turn, and the
sink, as long as the network itself takes. The p99 of ages is held against the p99 of inferences, the greatest age
against the longest inference.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import msgspec
import numpy as np

import gapcam
from gapcam.camera import Pipeline, sink_from_uri
from gapcam.camera.heap import keep_heap_small
from gapcam.camera.page.server_options import ServerOptions
from gapcam.camera.sinks.protocol import Sink
from gapcam.child_python import child_module
from gapcam.environment import Environment, environment
from gapcam.errors import GapcamError
from gapcam.frame import Frame
from gapcam.session import Session
from gapcam_bench.paced_frames import PacedFrames
from gapcam_bench.subjects.engine_options import SESSION_OPTIONS
from gapcam_bench.timed_sink import NotedFrame, TimedSink
from gapcam_export.photographs import photograph

if TYPE_CHECKING:
    from gapcam.camera.page.server import PageServer

CASES = ("bare", "lines", "page", "behind")
WARM_UP_S = 1.0
PICTURES = 30
_CLIENT_ENDS_S = 60.0


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Of some values in milliseconds, by nearest rank."""

    count: int
    p50_ms: float
    p99_ms: float
    greatest_ms: float


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One figure held against its limit: the limit may be reached."""

    what: str
    measured: float
    limit: float
    verdict: Literal["PASS", "MISS"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one case.

    Attributes:
        name: of the case.
        fps: at which the camera gave frames.
        seconds: for how long.
        captured: frames that were read from the camera.
        explained: of these.
        dropped: of these.
        failed: of these.
        waiting: of these, when everything had stopped.
        missed: frames of the camera that nobody read in time.
        sinks: what each wrote and dropped.
        ages: from capture to "hand-over", and until each sink, by its name, had written it; "client" is when a client
            of the page had received it.
        stages: of the frames until the hand-over, by name; "turn" is all that the network's thread did.
        cpu: processors that this process kept busy, on average.
        others: processors that everything else kept busy, the page's client and other virtual machines among it: what
            disturbs; None where the system does not say.
        goals: of the case.
    """

    name: str
    fps: float
    seconds: float
    captured: int
    explained: int
    dropped: int
    failed: int
    waiting: int
    missed: int
    sinks: dict[str, dict[str, int]]
    ages: dict[str, Spread]
    stages: dict[str, Spread]
    cpu: float
    others: float | None
    goals: tuple[Goal, ...]


class CameraGoals(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome.

    Attributes:
        model: name of the model's file.
        frame: (height, width) in pixels.
        threads: that the engine may use; None for every physical core.
        environment: what it was measured on.
        cases: in the order of this module's table.
    """

    model: str
    frame: tuple[int, int]
    threads: int | None
    environment: Environment
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Wanted:
    """What to measure.

    Attributes:
        model: that keeps gapcam's contract.
        fps: of the paced cases.
        seconds: of each case.
        height: of frames in pixels.
        width: likewise.
        threads: of the engine; None for every physical core.
        cases: which of `CASES`.
    """

    model: Path
    fps: float = 15
    seconds: float = 20
    height: int = 720
    width: int = 1280
    threads: int | None = None
    cases: tuple[str, ...] = CASES


def camera_goals(wanted: Wanted, *, begins: Callable[[str], None] = lambda _: None) -> CameraGoals:
    """Measure the cases, one after another.

    Args:
        wanted: what.
        begins: called with the name of each case, for a progress display.

    Raises:
        GapcamError: the model cannot be loaded, or a case failed.
    """
    images = panned_pictures(wanted.height, wanted.width)
    cases = []
    keep_heap_small()
    with gapcam.load(wanted.model, threads=wanted.threads, session_options=SESSION_OPTIONS) as session:
        for name in CASES:
            if name in wanted.cases:
                begins(name)
                cases.append(_measured(name, wanted, session, images))
    return CameraGoals(
        model=wanted.model.name,
        frame=(wanted.height, wanted.width),
        threads=wanted.threads,
        environment=environment(),
        cases=tuple(cases),
    )


def panned_pictures(height: int, width: int, count: int = PICTURES) -> list[Frame]:
    """What a camera sees that is turned over a photograph of a cat, and back: H x W x 3 uint8 BGR each."""
    steps = [*range(count // 2), *reversed(range(count - count // 2))]
    pixels = 4  # a frame
    large = cv2.resize(photograph("chelsea"), (width + count * pixels, height + count * pixels))
    return [np.ascontiguousarray(large[s * pixels :, s * pixels :][:height, :width]) for s in steps]


def _measured(name: str, wanted: Wanted, session: Session, images: Sequence[Frame]) -> Case:
    fps = wanted.fps if name != "behind" else 2e3 / _turn_ms(session, images)
    camera = PacedFrames(images, fps)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(session, [camera], policy="newest")
        page = _page(pipeline) if name == "page" else None
        timed = [TimedSink(sink) for sink in _sinks(name, Path(folder), page)] or [TimedSink()]
        for sink in timed:
            pipeline.add_sink(sink)
        client: dict[str, Any] = {}
        busy, all_busy, began = time.process_time(), _machine_busy_s(), time.monotonic()
        with pipeline:
            with _watching(page, client):
                pipeline.wait(wanted.seconds)
            seconds, cpu = time.monotonic() - began, time.process_time() - busy
            all_cpu = _machine_busy_s() - all_busy
        status = pipeline.status()
    source = status.sources[0]
    ages, stages = _ages(timed, client), _stages(timed[0].frames)
    return Case(
        name=name,
        fps=fps,
        seconds=seconds,
        captured=source.captured,
        explained=source.explained,
        dropped=source.dropped,
        failed=source.failed,
        waiting=source.waiting,
        missed=camera.missed,
        sinks={sink.name: {"written": sink.written, "dropped": sink.dropped} for sink in status.sinks},
        ages=ages,
        stages=stages,
        cpu=cpu / seconds,
        others=max(0.0, all_cpu - cpu) / seconds if all_cpu else None,
        goals=_behind_goals(fps, ages, stages)
        if name == "behind"
        else _paced_goals(fps, source.dropped + camera.missed, ages),
    )


def _turn_ms(session: Session, images: Sequence[Frame]) -> float:
    """The median of a frame's inference with its map, where nothing else runs."""
    durations = []
    for at in range(25):
        began = time.perf_counter()
        session(images[at % len(images)]).map()
        durations.append((time.perf_counter() - began) * 1e3)
    return float(np.median(durations[5:]))


def _sinks(name: str, folder: Path, page: PageServer | None) -> list[Sink]:
    if name in ("lines", "behind"):
        return [sink_from_uri(str(folder / "frames.jsonl"), name="lines")]
    if page is not None:
        return [sink_from_uri(str(folder / "video.mp4"), name="video"), page]
    return []


@contextmanager
def _watching(page: PageServer | None, seen: dict[str, Any]) -> Iterator[None]:
    """A client of the page, where there is one, once it is connected; afterwards `seen` holds what it saw."""
    if page is None:
        yield
        return
    command = child_module("gapcam_bench.page_client", _live_url(page))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:  # noqa: S603
        try:
            if client.stdout is not None and client.stdout.readline():  # nothing, where it has ended
                yield
            answer, _ = client.communicate(timeout=_CLIENT_ENDS_S)
        finally:
            client.kill()
    if client.returncode != 0:
        raise GapcamError(f"the page's client ended with {client.returncode}")
    seen.update(json.loads(answer.splitlines()[-1]))


def _page(pipeline: Pipeline) -> PageServer:
    from gapcam.camera.page.server import PageServer  # it needs the extra `camera`

    page = PageServer(pipeline, ServerOptions(address="127.0.0.1:0"))
    page.start()
    return page


def _live_url(page: PageServer) -> str:
    return page.url.replace("http", "ws", 1).rstrip("/") + "/api/live"


def _machine_busy_s() -> float:
    """Seconds that all processors together were not idle, since the machine's start; 0 where that is not known.

    With those that other virtual machines took of the same processors ("steal").
    """
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, path.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _ages(timed: Sequence[TimedSink], client: dict[str, Any]) -> dict[str, Spread]:
    ages = {"hand-over": spread([f.explained_at - f.taken_at for f in _warm(timed[0].frames)])}
    for sink in timed:
        ages[sink.name] = spread([f.written_at - f.taken_at for f in _warm(sink.frames)])
    if client:
        ages["client"] = spread([age / 1e3 for age in client["ages_ms"][len(client["ages_ms"]) // 10 :]])
    return ages


def _stages(frames: Sequence[NotedFrame]) -> dict[str, Spread]:
    kept = _warm(frames)
    names = {name: None for frame in kept for name in frame.timings_ms}
    stages = {name: spread([f.timings_ms[name] / 1e3 for f in kept if name in f.timings_ms]) for name in names}
    turns = [f.explained_at - f.taken_at - f.timings_ms["wait"] / 1e3 for f in kept]
    return {**stages, "turn": spread(turns)}


def _warm(frames: Sequence[NotedFrame]) -> list[NotedFrame]:
    kept = [frame for frame in frames if frame.taken_at >= frames[0].taken_at + WARM_UP_S]
    if not kept:
        raise GapcamError(f"only {len(frames)} frames were written; measure for longer than {WARM_UP_S:g} s")
    return kept


def spread(seconds: Sequence[float]) -> Spread:
    """Of at least one duration."""
    p50, p99 = (float(s) * 1e3 for s in np.percentile(seconds, (50, 99), method="inverted_cdf"))
    return Spread(
        count=len(seconds), p50_ms=round(p50, 3), p99_ms=round(p99, 3), greatest_ms=round(max(seconds) * 1e3, 3)
    )


def goal(what: str, measured: float, limit: float) -> Goal:
    """Held against its limit."""
    return Goal(
        what=what, measured=round(measured, 3), limit=round(limit, 3), verdict="PASS" if measured <= limit else "MISS"
    )


def missed_in_words(cases: Sequence[Case]) -> str | None:
    """One line: which goals were missed, and how busy other processes were meanwhile. None where none was."""
    misses = [f"{case.name}: {each.what}" for case in cases for each in case.goals if each.verdict == "MISS"]
    if not misses:
        return None
    busy = [case.others for case in cases if case.others is not None]
    others = f"{max(busy):.2f} processors" if busy else "an unknown number of processors"
    count = sum(len(case.goals) for case in cases)
    return f"{len(misses)} of {count} goals missed ({'; '.join(misses)}); others kept up to {others} busy meanwhile"


def _paced_goals(fps: float, dropped: int, ages: dict[str, Spread]) -> tuple[Goal, ...]:
    limit = 2e3 / fps
    return (
        goal("frames dropped", dropped, 0),
        *(goal(f"age p99 at {where}, ms", age.p99_ms, limit) for where, age in ages.items()),
    )


def _behind_goals(fps: float, ages: dict[str, Spread], stages: dict[str, Spread]) -> tuple[Goal, ...]:
    inference, interval = stages["inference"], 1e3 / fps
    return tuple(
        goal(f"{what} at {where}, ms", getattr(age, key), 2 * getattr(inference, key) + interval)
        for where, age in ages.items()
        for what, key in (("age p99", "p99_ms"), ("greatest age", "greatest_ms"))
    )
