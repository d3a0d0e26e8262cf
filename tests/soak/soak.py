"""Four sources, every sink and the page for some minutes, with faults all the time: `make soak MINUTES=5`.

| source | what it is                        | what happens to it                                                 |
| ------ | --------------------------------- | ------------------------------------------------------------------ |
| `rtsp` | GStreamer's server, H.264         | killed and restarted, stalled, another size and back               |
| `http` | MJPEG through a proxy             | broken JPEGs, connection reset, changed bytes, another size, stall |
| `file` | a video file, looped              | nothing: it must not notice the others' faults                     |
| `test` | the moving pattern                | nothing                                                            |

Sinks: a video file of each source, images, lines of JSON, MQTT (its broker is killed and restarted), a webhook, one
that fails for a while, one that is slow, and the page with two clients, of which one stalls for a while.

Every minute has the same faults at the same times, so that minutes can be compared. Ages are those of the hand-over to
the sinks. Frames that came, went and were dropped are counted by the soak as well as by the pipeline. Each event must
reach each sink once, also a slow one and one that failed meanwhile.

It fails where a check fails. A check that says nothing does not: one minute has nothing to compare with.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from bad_sinks import FailingSink, SlowSink
from camera_servers import rtsp
from camera_servers.fault_proxy import FaultProxy
from camera_servers.mjpeg import MjpegServer
from camera_servers.mqtt_broker import MqttBroker
from camera_servers.rtsp import RtspServer
from camera_servers.stamped_frame import stamped_frame
from camera_servers.webhook import WebhookServer
from fault_schedule import CYCLE_S, Fault, Schedule
from frame_log import CountedSink, CountedSource, EventTally, FrameLog
from process_use import left_over, memory_mb, use
from rich.console import Console
from rich.table import Table
from soak_checks import (
    AGE_GROWTH,
    MEMORY_MB,
    PAUSE_S,
    Check,
    Minute,
    as_rows,
    at_least,
    at_most,
    growth,
    in_a_line,
    memory_growth,
    minute,
    nothing,
    unaccounted,
    unknown,
)
from yardstick import Yardstick

import gapcam
from gapcam.camera import (
    EventRule,
    ExplainSettings,
    PageServer,
    Pipeline,
    PipelineStatus,
    Reopen,
    SinkOptions,
    sink_from_uri,
    source_from_uri,
)
from gapcam.camera.heap import keep_heap_small
from gapcam.camera.page.server_options import ServerOptions

FPS = 8
SOURCES = ("rtsp", "http", "file", "test")
UNTOUCHED = ("file", "test")
DEMO = Path("out/demo/model.onnx")
PROGRESS_S = 10
TICK_S = 0.1
RECOVERY_S = 5.0
LOG_WIDTH = 120
"""Of tables that go to a file or a log."""


class Client:
    """Somebody who watches the page, in a process of its own."""

    def __init__(self, url: str, source: str) -> None:
        command = [sys.executable, "-m", "gapcam_bench.page_client", url, "--view", json.dumps({"source": source})]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stall(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> dict[str, Any]:
        """What it saw."""
        self.resume()
        try:
            answer, _ = self._process.communicate("", timeout=10)
            return json.loads(answer.splitlines()[-1])  # type: ignore[no-any-return]
        finally:
            self._process.kill()
            self._process.communicate()


class Soak:
    """All that takes part, from start to end. `run` gives what was found, as for JSON."""

    def __init__(self, model: Path, folder: Path, cycle_s: float, cycles: int, say: Console) -> None:
        self.model, self.folder, self.cycle_s, self.cycles, self.say = model, folder, cycle_s, cycles, say
        self.scale = cycle_s / CYCLE_S
        self.interrupted = False
        self.memory: list[tuple[float, float]] = []  # seconds since the start, resident MB

    def run(self) -> dict[str, Any]:
        with gapcam.load(self.model, session_options={"session.intra_op.allow_spinning": "0"}) as session:
            # What the libraries keep for the life of the process is there then.
            session(stamped_frame(0, 320, 240)).overlay()
            before = use()
            seen = self._with_servers(session)
            return self._found(seen, left_over(before))

    def _with_servers(self, session: gapcam.Session) -> list[dict[str, Any]]:
        with ExitStack() as stack:
            self._start_servers(stack)
            self._make_pipeline(session)
            self.page.start()
            self.yardstick = Yardstick()
            stack.callback(self.yardstick.end)
            clients = [
                Client(self.page.url.replace("http", "ws", 1) + "api/live", source) for source in ("test", "rtsp")
            ]
            try:
                self._run_pipeline(clients)
            finally:
                seen = [client.end() for client in clients]
                self.pipeline.stop(timeout_s=20)
            self.posts = self.webhook.counts()["posts"]
        return seen

    def _start_servers(self, stack: ExitStack) -> None:
        self.rtsp = stack.enter_context(RtspServer(320, 240, fps=FPS, keyframe_every=FPS))
        self.http = stack.enter_context(MjpegServer(320, 240, fps=FPS))
        self.proxy = stack.enter_context(FaultProxy(self.http.port))
        self.broker = stack.enter_context(MqttBroker())
        self.webhook = stack.enter_context(WebhookServer())

    def _make_pipeline(self, session: gapcam.Session) -> None:
        video = self.folder / "source.mp4"
        write_video(video)
        timeout = max(0.5, 5 * self.scale)
        uris = {
            "rtsp": f"{self.rtsp.url}#name=rtsp,timeout={timeout:g}",
            "http": f"{self.http.url_at(self.proxy.port)}#name=http,timeout={timeout:g}",
            "file": f"{video}#name=file,loop=yes",
            "test": f"test://#name=test,rate={FPS},size=640x480",
        }
        self.sources = [CountedSource(source_from_uri(uris[name])) for name in SOURCES]
        self.pipeline = Pipeline(
            session,
            self.sources,
            settings=ExplainSettings(rules=(EventRule("*", enter=0.1, enter_s=0, leave_s=0.5),)),
            reopen=Reopen(first_s=0.5 * self.scale, greatest_s=4 * self.scale, stall_s=timeout),
        )
        self.page = PageServer(self.pipeline, ServerOptions(address="127.0.0.1:0"))
        self.log = FrameLog(SOURCES, most=int(len(SOURCES) * FPS * self.cycle_s * self.cycles * 1.5) + 1000)
        self.failing, images = FailingSink(), self.folder / "images"
        images.mkdir()
        options = SinkOptions(sources=SOURCES, min_free_bytes=0)
        made = {
            "lines": str(self.folder / "frames.jsonl"),
            "video": str(self.folder / "video.mp4"),
            "images": f"{images}/#every={max(0.2, 1 * self.scale):g},keep=20",
            "mqtt": f"mqtt://127.0.0.1:{self.broker.port}/soak",
            "webhook": self.webhook.url,
        }
        sinks = [sink_from_uri(uri, name=name, options=options) for name, uri in made.items()]
        self.sinks = [CountedSink(sink) for sink in (self.log, self.failing, SlowSink(0.4), self.page, *sinks)]
        for sink in self.sinks:
            self.pipeline.add_sink(sink)

    def _faults(self, clients: list[Client]) -> list[Fault]:
        def fail(failing: bool) -> None:
            self.failing.failing = failing

        rtsp_server, http, proxy = self.rtsp, self.http, self.proxy
        return [
            Fault(4, "RTSP server killed", rtsp_server.kill),
            Fault(8, "RTSP server restarted", rtsp_server.start),
            Fault(14, "RTSP server stalled", rtsp_server.stall),
            Fault(15, "page client stalled", clients[1].stall),
            Fault(22, "RTSP server goes on", rtsp_server.resume),
            Fault(25, "sink fails", lambda: fail(True)),
            Fault(26, "page client goes on", clients[1].resume),
            Fault(28, "RTSP frames of another size", lambda: rtsp_server.change_size(480, 360)),
            Fault(30, "broken JPEGs", lambda: http.break_frames(0.3)),
            Fault(32, "sink works again", lambda: fail(False)),
            Fault(33, "RTSP frames of the first size", lambda: rtsp_server.change_size(320, 240)),
            Fault(34, "whole JPEGs", lambda: http.break_frames(0)),
            Fault(35, "MJPEG connection reset", lambda: proxy.cut(reset=True)),
            Fault(36, "broker killed", self.broker.kill),
            Fault(38, "MJPEG bytes changed", lambda: proxy.corrupt(0.0005)),
            Fault(42, "MJPEG bytes as they are", proxy.pass_all),
            Fault(43, "MJPEG frames of another size", lambda: http.change_size(480, 360)),
            Fault(44, "broker restarted", self.broker.start),
            Fault(46, "MJPEG frames of the first size", lambda: http.change_size(320, 240)),
            Fault(48, "MJPEG stalled", proxy.stall),
            Fault(56, "MJPEG goes on", proxy.pass_all),
        ]

    def _run_pipeline(self, clients: list[Client]) -> None:
        schedule = Schedule(self._faults(clients), self.cycle_s, self.cycles)
        self.pipeline.start()
        self.began = time.monotonic()
        shown = sampled = 0.0
        try:
            while (elapsed := time.monotonic() - self.began) < self.cycle_s * self.cycles:
                schedule.run_due(elapsed)
                if elapsed >= sampled:
                    self.memory.append((elapsed, memory_mb()[0]))
                    sampled += max(0.25, self.scale)
                if elapsed >= shown:
                    self._show_progress(elapsed, schedule)
                    shown += PROGRESS_S
                if self.pipeline.wait(TICK_S):
                    break
        except KeyboardInterrupt:
            self.interrupted = True
            self.say.print("interrupted: what is known so far follows")
        self.ended = time.monotonic()
        self.faults = schedule.done
        self.at_end = self._recovered()
        if not self.interrupted:
            schedule.run_due(float("inf"))

    def _recovered(self) -> PipelineStatus:
        """The status once all sources run; they have a moment to come back from the last fault."""
        until = time.monotonic() + RECOVERY_S
        while True:
            status = self.pipeline.status()
            overcome = all(source.state == "running" for source in status.sources)
            if overcome or self.interrupted or time.monotonic() > until:
                return status
            time.sleep(TICK_S)

    def _show_progress(self, elapsed: float, schedule: Schedule) -> None:
        status = self.pipeline.status()
        seen = sum(source.captured for source in status.sources)
        dropped = sum(source.dropped for source in status.sources)
        states = ", ".join(f"{source.name} {source.state}" for source in status.sources)
        self.say.print(
            f"{elapsed:4.0f} of {self.cycle_s * self.cycles:.0f} s: {seen} frames seen, {dropped} dropped; {states}; "
            f"{self.memory[-1][1]:.0f} MB; {schedule.last or 'no fault yet'}",
            highlight=False,
            soft_wrap=True,
        )

    # What was found.

    def _found(self, clients: list[dict[str, Any]], left: dict[str, Any]) -> dict[str, Any]:
        status = self.pipeline.status()
        minutes = {name: self._minutes(name) for name in (None, *SOURCES)}
        machine = [minute(self.yardstick.seconds(*self._cycle(at))) for at in range(len(minutes[None]))]
        memory = self._memory()
        checks = [
            *self._accounts(status),
            *self._events(status),
            *self._growths(minutes[None], machine, memory["resident_mb"]),
            nothing("threads left over", left["threads"]),
            nothing("threads left over, as the system calls them", left["native threads"]),
            nothing("files and sockets left over", left["files"]),
            nothing("processes left over", left["processes"]),
            *(
                at_most(
                    f"greatest pause of {name}, which had no faults",
                    self.log.greatest_pause(name, self.ended),
                    PAUSE_S,
                    " s",
                )
                for name in UNTOUCHED
            ),
            at_most("greatest pause of a client beside one that stalled", clients[0]["gap_s"], PAUSE_S, " s"),
            *self._effects(status),
            *self._files(status),
        ]
        return {
            "model": self.model.name,
            "seconds": round(self.ended - self.began, 1),
            "cycle_s": self.cycle_s,
            "interrupted": self.interrupted,
            "faults": self.faults,
            "repeated": self.log.repeated,
            "events": self.happened.count,
            "sources": [asdict(source) for source in status.sources],
            "sinks": [asdict(sink) for sink in status.sinks],
            "minutes": {name or "all": [row and asdict(row) for row in rows] for name, rows in minutes.items()},
            "true_age_ms": {name: self._true_ages(name) for name in ("rtsp", "http")},
            "machine_ms": [row and asdict(row) for row in machine],
            "memory": memory,
            "left_over": left,
            "clients": [{**client, "ages_ms": asdict_minute(client["ages_ms"])} for client in clients],
            "checks": as_rows(checks),
            "outcome": in_a_line(checks),
            "passed": not self.interrupted and all(check.verdict != "FAIL" for check in checks),
        }

    def _minutes(self, source: str | None) -> list[Minute | None]:
        whole = int((self.ended - self.began) / self.cycle_s + 1e-3)
        return [minute(self.log.ages(*self._cycle(at), source)) for at in range(whole)]

    def _cycle(self, at: int) -> tuple[float, float]:
        return self.began + at * self.cycle_s, self.began + (at + 1) * self.cycle_s

    def _true_ages(self, source: str) -> list[dict[str, float] | None]:
        """From when the server made the frame, of the calm end of each cycle and of all of it."""
        rows = [minute(self.log.true_ages(*self._cycle(at), source)) for at in range(len(self._minutes(source)))]
        return [row and asdict(row) for row in rows]

    def _memory(self) -> dict[str, Any]:
        cycles: list[list[float]] = []
        for at in range(self.cycles):
            inside = [row[1] for row in self.memory if at * self.cycle_s <= row[0] < (at + 1) * self.cycle_s]
            if inside:
                cycles.append(inside)
        medians = [round(float(np.median(inside)), 2) for inside in cycles]
        return {"resident_mb": medians, "greatest_mb": [round(max(inside), 2) for inside in cycles]}

    def _accounts(self, status: Any) -> list[Check]:
        sources, sinks = [asdict(row) for row in status.sources], [asdict(row) for row in status.sinks]
        explained = sum(row["explained"] for row in sources)
        given = {source.name: source.frames for source in self.sources}
        counted = {sink.name: sink for sink in self.sinks}
        return [
            at_most(
                "frames of sources lost without account",
                unaccounted(sources, "captured", ("explained", "dropped", "failed", "waiting")),
                0,
            ),
            at_most(
                "frames of sinks lost without account",
                unaccounted(sinks, "received", ("written", "dropped", "failed", "waiting")),
                0,
            ),
            at_most("frames that still wait", sum(row["waiting"] for row in sources + sinks), 0),
            at_most(
                "captured frames otherwise than sources gave",
                sum(abs(row["captured"] - given[row["name"]]) for row in sources),
                0,
            ),
            at_most(
                "frames handed over otherwise than explained",
                sum(abs(row["received"] - explained - self.log.repeated) for row in sinks),
                0,
            ),
            at_most(
                "written frames otherwise than sinks took",
                sum(abs(row["written"] - counted[row["name"]].taken) for row in sinks),
                0,
            ),
            # Where the soak's own log misses none, it is known what happened.
            at_most("explained frames otherwise than were logged", abs(self.log.count - explained), 0),
            at_most("frames out of order", self.log.behind, 0),
            at_most("frames that could not be explained", sum(row["failed"] for row in sources), 0),
        ]

    @property
    def happened(self) -> EventTally:
        """The events, as the log has them."""
        return next(sink.events for sink in self.sinks if sink.name == self.log.name)

    def _events(self, status: Any) -> list[Check]:
        """Whether each event came to each sink once, and from there to where it goes."""
        off = [f"{sink.name}: {words}" for sink in self.sinks if (words := sink.events.beyond(self.happened))]
        rows = [json.loads(line)["events"] for line in (self.folder / "frames.jsonl").read_text().splitlines()]
        written = [json.dumps(event) for events in rows for event in events]
        undelivered = next(row.undelivered for row in status.sinks if row.name == "webhook")
        return [
            at_least("events", self.happened.count, 1),
            nothing("sinks that were not given each event once", off),
            at_most("events in the lines of JSON otherwise than happened", abs(len(written) - self.happened.count), 0),
            at_most("events twice in the lines of JSON", len(written) - len(set(written)), 0),
            at_most("events otherwise than were posted", abs(self.posts - self.happened.count), 0),
            at_most("events that the webhook says it did not deliver", undelivered, 0),
        ]

    def _growths(self, ages: list[Minute | None], machine: list[Minute | None], medians_mb: list[float]) -> list[Check]:
        p50, p99, memory = (
            "frame age p50, last minute / first",
            "frame age p99, last minute / first",
            "memory growth after the first minute",
        )
        if self.interrupted:
            why = "the soak was interrupted"
            return [
                unknown(p50, why, AGE_GROWTH),
                unknown(p99, why, AGE_GROWTH),
                unknown(memory, why, MEMORY_MB, " MB"),
            ]
        return [
            growth(p50, ages, machine, "p50_ms"),
            growth(p99, ages, machine, "p99_ms"),
            memory_growth(memory, medians_mb),
        ]

    def _effects(self, status: Any) -> list[Check]:
        """Whether the faults were faults, and were overcome."""
        sources = {source.name: source for source in status.sources}
        sinks = {sink.name: sink for sink in status.sinks}
        if self.interrupted:
            return []
        states = [f"{row.name} {row.state}" for row in self.at_end.sources if row.state != "running"]
        return [
            nothing("sources that do not run at the end", states),
            at_least("rtsp was opened again, times", sources["rtsp"].reopened, self.cycles),
            at_least("http was opened again, times", sources["http"].reopened, self.cycles),
            at_least("broken frames of http", sources["http"].broken, self.cycles),
            at_least("the failing sink was opened again, times", sinks["failing"].restarts, self.cycles),
            at_least("frames dropped by the slow sink", sinks["slow"].dropped, self.cycles),
        ]

    def _files(self, status: Any) -> list[Check]:
        """Whether what was written can be read."""
        written = {sink.name: sink.written for sink in status.sinks}
        # A video shows no frame twice.
        filmed = written["video"] - next(sink.repeated for sink in self.sinks if sink.name == "video")
        lines = (self.folder / "frames.jsonl").read_text().splitlines()
        wrong = sum(1 for line in lines if json.loads(line)["source"] not in SOURCES)
        frames, unreadable = 0, []
        for path in sorted(self.folder.glob("video*.mp4")):
            try:
                frames += count_frames(path)
            except av.error.FFmpegError as error:  # noqa: PERF203 - each file counts
                unreadable.append(f"{path.name}: {error}")
        return [
            at_most("lines of JSON otherwise than frames written", abs(len(lines) - written["lines"]) + wrong, 0),
            nothing("videos that do not play", unreadable),
            at_most("frames in the videos otherwise than written once", abs(frames - filmed), 0),
        ]


def asdict_minute(ages_ms: list[float]) -> dict[str, float] | None:
    """Percentiles instead of every value."""
    found = minute(np.array(ages_ms) / 1e3)
    return found and asdict(found)


def write_video(path: Path, frames: int = 5 * FPS) -> None:
    """H.264 in MP4, with stamps."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(stamped_frame(number, 320, 240), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def count_frames(path: Path) -> int:
    """That can be decoded."""
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def show(found: dict[str, Any], console: Console) -> None:
    """Tables: sources and sinks, minutes, checks."""
    sources = Table("source", "seen", "explained", "dropped", "failed", "broken", "reopened", "age p50", "p99, ms")
    for row in found["sources"]:
        age = row["age"] or {}
        names = ("captured", "explained", "dropped", "failed", "broken", "reopened")
        sources.add_row(
            row["name"], *(str(row[name]) for name in names), *(_ms(age, key) for key in ("p50_ms", "p99_ms"))
        )
    sinks = Table("sink", "received", "written", "dropped", "failed", "undelivered", "restarts", "age p50", "p99, ms")
    for row in found["sinks"]:
        age = row["age"] or {}
        names = ("received", "written", "dropped", "failed", "undelivered", "restarts")
        sinks.add_row(
            row["name"], *(str(row[name]) for name in names), *(_ms(age, key) for key in ("p50_ms", "p99_ms"))
        )
    minutes = Table("frame age, ms", *(f"minute {at + 1}" for at in range(len(found["minutes"]["all"]))))
    for name, rows in found["minutes"].items():
        minutes.add_row(name, *(f"{_ms(row or {}, 'p50_ms')} / {_ms(row or {}, 'p99_ms')}" for row in rows))
    for name, rows in found["true_age_ms"].items():
        minutes.add_row(
            f"{name}, from the server", *(f"{_ms(row or {}, 'p50_ms')} / {_ms(row or {}, 'p99_ms')}" for row in rows)
        )
    minutes.add_row(
        "the machine", *(f"{_ms(row or {}, 'p50_ms')} / {_ms(row or {}, 'p99_ms')}" for row in found["machine_ms"])
    )
    minutes.add_row(
        "memory, MB", *(f"{mb:.1f}" for mb in found["memory"]["resident_mb"][: len(found["minutes"]["all"])])
    )
    checks = Table("check", "found", "limit", "")
    for row in found["checks"]:
        checks.add_row(row["what"], row["found"], row["limit"], row["verdict"])
    for table in (sources, sinks, minutes, checks):
        console.print(table)
    console.print(
        f"{found['faults']} faults and {found['events']} events in {found['seconds']:.0f} s. A pair of figures is p50 "
        "and p99. The machine: a fixed piece of work in a process of its own; where that took longer in the last "
        "minute, so may frames.",
        soft_wrap=True,
        highlight=False,
    )
    console.print(found["outcome"], soft_wrap=True, highlight=False)


def _ms(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.1f}" if key in row else "-"


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends it as SIGINT does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="How long.")
@click.option(
    "--cycle", type=click.FloatRange(min=5), default=CYCLE_S, show_default=True, help="Seconds of one round of faults."
)
@click.option("--model", type=click.Path(path_type=Path, exists=True), help="Default: the demo's, else a small one.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("out/soak"), show_default=True, help="A folder."
)
@click.option("--verbose", is_flag=True, help="With the pipeline's log lines.")
def soak(minutes: float, cycle: float, model: Path | None, output: Path, verbose: bool) -> None:
    """Run four sources at once against faults, and see what gets lost, slower or larger.

    Fails where a check fails. SIGINT ends it early with what is known.
    """
    if missing := rtsp.missing():
        raise click.ClickException(missing)
    keep_heap_small()  # as `gapcam camera` does
    say = Console(stderr=True)
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8d %(levelname)s %(message)s")
    output.mkdir(parents=True, exist_ok=True)
    cycles = max(1, round(minutes * 60 / cycle))
    folder = Path(tempfile.mkdtemp(prefix="run_", dir=output))
    try:
        chosen = model or (DEMO if DEMO.exists() else small_model(folder))
        with interruptible():
            found = Soak(chosen, folder, cycle, cycles, say).run()
    finally:
        shutil.rmtree(folder)
    show(found, Console(width=None if sys.stdout.isatty() else LOG_WIDTH))
    (output / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    if found["interrupted"]:
        sys.exit(130)
    sys.exit(0 if found["passed"] else 1)


def small_model(folder: Path) -> Path:
    """One that needs no export: the classes red and blue."""
    from small_models import red_and_blue

    return red_and_blue(folder / "small.onnx")


if __name__ == "__main__":
    soak(prog_name="soak")
