"""`gapcam camera`, as people, scripts and service managers use it: real processes, real files, real signals.

What only shows that a mistake is named needs no process of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import click
import cv2
import httpx
import numpy as np
import pytest
from camera_servers.server_process import lasting_port
from click.testing import CliRunner, Result
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.camera import heap
from gapcam.camera.asked import asked_for, resolved
from gapcam.camera.backoff import Reopen
from gapcam.camera.cli import camera_command
from gapcam.camera.explain_settings import ExplainSettings, VideoNormalization
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.classes import ClassNames
from gapcam.cli.main import main
from gapcam.errors import ClassNotFoundError, UsageError

PROGRAM = [sys.executable, "-m", "gapcam.cli.main"]
INTERRUPTED = (130, -signal.SIGINT)  # the latter where the interrupt went through a library's own code: 130 to a shell
PATTERN = "test://?size=160x120&fps=30"
SO_TIMESTAMP = 29  # of Linux, with a C timeval
TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - the tests' own


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return red_and_blue(tmp_path / "model.onnx", contract=a_contract((16, 16)))


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GAPCAM", "NOTIFY", "WATCHDOG"))}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def camera(*arguments: object, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*PROGRAM, "camera", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment(**more),
    )


@pytest.fixture
def camera_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run one that ends before it looks at its model, in this process, whose heap and environment stay as they are."""
    monkeypatch.setattr(heap, "keep_heap_small", lambda: True)
    here: dict[str, str | None] = dict.fromkeys(os.environ.keys() - environment().keys())
    here |= {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}  # as the command sets them
    return lambda *arguments: CliRunner(env=here).invoke(main, ["camera", *map(str, arguments)])


class Running:
    """One that runs, whose log is read as it comes."""

    def __init__(self, arguments: tuple[object, ...], more: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "camera", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**more),
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def until(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait for a line of its log."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or not self._thread.is_alive(), timeout)
            match = found()
        assert match is not None, "\n".join(self.lines)
        return match

    def ended(self, timeout: float = 30) -> int:
        """Its exit code, once it has ended."""
        code = self.process.wait(timeout)
        self._thread.join(timeout)
        return code

    def close(self) -> None:
        """Read what is left, give the pipes back."""
        self._thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def started(*arguments: object, **more: str) -> Iterator[Running]:
    running = Running(arguments, more)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        running.close()


def frames_in(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_finite_source_goes_to_every_kind_of_file_whole(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = camera(
        model,
        *("--source", f"{PATTERN}&frames=20", "--policy", "all", "--classes", "blue", "--smooth", 0),
        *("--sink", out / "lines.jsonl", "--sink", out / "film.mp4", "--sink", f"{out}/pictures/", "--json"),
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ended_by"] == "its sources' end"
    (source,) = facts["sources"]
    assert (source["captured"], source["explained"], source["dropped"], source["lost"]) == (20, 20, 0, 0)
    assert [(sink["written"], sink["dropped"], sink["lost"]) for sink in facts["sinks"]] == [(20, 0, 0)] * 3
    rows = [json.loads(line) for line in (out / "lines.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["frame"] for row in rows] == list(range(20))
    assert {entry["label"] for row in rows for entry in row["classes"]} == {"blue"}
    assert frames_in(out / "film.mp4") == 20
    assert len(list((out / "pictures").iterdir())) == 20
    assert "ended by its sources' end" in done.stderr
    assert re.search(r"captured=20 explained=20 dropped=0 failed=0 waiting=0 lost=0", done.stderr)


def test_separate_images_have_the_scores_that_they_have_alone_and_a_film_does_not(model: Path, tmp_path: Path) -> None:
    from gapcam_export.photographs import photograph

    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(photograph(name), (320, 240)))
    with gapcam.load(model, device="cpu") as session:
        alone = [session(cv2.imread(str(path))).scores.tolist() for path in sorted(folder.iterdir())]
    assert len({tuple(scores) for scores in alone}) == 3

    def scores(*options: object) -> list[list[float]]:
        lines = tmp_path / "lines.jsonl"
        lines.unlink(missing_ok=True)
        done = camera(model, "--device", "cpu", "-s", folder, *options, "--sink", lines)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        return [[entry["score"] for entry in sorted(row["top"], key=lambda each: each["index"])] for row in rows]

    assert scores() == [pytest.approx(each, abs=1e-6) for each in alone]
    first, *later = scores("--rate", 30, "--policy", "all")
    assert first == pytest.approx(alone[0], abs=1e-6)
    assert all(each != pytest.approx(one, abs=1e-3) for each, one in zip(later, alone[1:], strict=True))


def test_sources_of_one_name_get_names_of_their_own(model: Path) -> None:
    brief = f"{PATTERN}&frames=10"
    done = camera(model, "-s", brief, "-s", f"{brief}#rate=10,rotate=90", "-s", f"{brief}#name=door", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    names = [source["name"] for source in facts["sources"]]
    assert len(set(names)) == 3
    assert names[1] == f"{names[0]}-2"
    assert names[2] == "door"
    assert [(source["width"], source["height"]) for source in facts["sources"]] == [(160, 120), (120, 160), (160, 120)]
    assert all((source["lost"], source["captured"]) == (0, 10) for source in facts["sources"])
    assert "no --sink and no --serve" in done.stderr


def test_a_duration_ends_what_has_no_end(model: Path) -> None:
    done = camera(model, "-s", PATTERN, "--duration", 1, "--json")
    facts = json.loads(done.stdout)
    assert facts["ended_by"] == "--duration"
    assert 1 <= facts["seconds"] < 30
    # A machine that is very busy may not come to a frame.
    assert done.returncode == (0 if facts["sources"][0]["captured"] else 5), done.stderr


WRONG = [
    ([], 2, "no source"),
    (["--source", PATTERN, "--sink", "absent/film.mp4"], 2, "does not exist"),
    (["--source", PATTERN, "--sink", "film.avi"], 2, "there is no sink 'film.avi'"),
    (["--source", "gopher://x"], 2, "gopher"),
    (["--source", "test://?size=1"], 2, "size"),
    (["--source", "film.mp4?pace=no&rate=5"], 2, "behind a '#', not a '?': 'film.mp4#pace=no,rate=5'"),
    (["--source", f"{PATTERN}#colour=red"], 2, "colour"),
    (["--source", PATTERN, "--sink", "-", "--json"], 2, "both write to stdout"),
    (["--source", PATTERN, "--serve", "0.0.0.0:0"], 2, "needs a token"),
    (["--source", PATTERN, "--serve", "127.0.0.1:99999"], 2, "99999"),
    (["--source", PATTERN, "--serve", "192.0.2.1:8080", "--insecure"], 5, "cannot serve 192.0.2.1:8080"),
    (["--source", PATTERN, "--insecure"], 2, "--insecure without a page"),
    (["--source", PATTERN, "--serve", ":0", "--token-file", "absent"], 5, "absent"),
    (["--source", PATTERN, "--serve", ":0", "--tls-cert", "absent"], 5, "absent"),
    (["--source", PATTERN, "--event", "red:often=1"], 2, "'often'"),
    (["--source", PATTERN, "--zone", "door=1"], 2, "door=1"),
    (["--source", PATTERN, "--alpha", "2"], 2, "--alpha"),
    (["--source", PATTERN, "--colormap", "grey"], 2, "grey"),
    (["--source", PATTERN, "--normalize", "fixed"], 2, "limits"),
    (["--source", PATTERN, "--size", "big"], 2, "WIDTHxHEIGHT"),
    (["--source", PATTERN, "--timeout", "0"], 2, "timeout"),
    (["--source", PATTERN, "--keep", "-1"], 2, "--keep"),
    (["--source", PATTERN, "--mqtt-password-file", "absent", "--sink", "mqtt://127.0.0.1/a"], 5, "absent"),
    (["--source", "rtsp://127.0.0.1:1/a", "--policy", "all"], 2, "is live"),
    (["--source", "absent.mp4"], 5, "there is no file absent.mp4; check the name"),
    (["--source", "absent.jpg"], 5, "there is no file absent.jpg; check the name"),
    (["--source", "absent/"], 5, "there is no file absent/"),
    (["--source", "absent*.jpg"], 5, "no file matches absent*.jpg"),
    (["--source", f"{PATTERN}#name=a", "--source", "0#name=a"], 2, "two sources are called 'a'"),
    (["--source", PATTERN, "--source", "/proc"], 5, "the folder /proc has no images"),
    (
        ["--source", "rtsp:/user:hunter2@cam/live"],
        5,
        "***@cam/live; check the name; for a camera, write rtsp://HOST/PATH",
    ),
    (["--source", "10.0.0.5/live"], 5, "no file 10.0.0.5/live; check the name; for a camera, write rtsp://HOST/PATH"),
    (["--source", "cam.local:554/live"], 5, "for a camera, write rtsp://HOST/PATH"),
    (["--source", PATTERN, "--sink", "/proc/film.mp4"], 2, "the folder /proc takes no file"),
    (["--source", PATTERN, "--keep", "3"], 2, "--keep without a sink that it concerns"),
    (["--source", "@absent"], 5, "cannot read URIs from absent"),
    (["--source", "@/dev/null"], 2, "no URI in /dev/null"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "says"), WRONG, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else ""
)
def test_what_is_wrong_with_the_options_is_one_line_before_the_model_is_looked_at(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    camera_here: Callable[..., Result],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = camera_here("no-such-model.onnx", *arguments)
    assert done.exit_code == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert "hunter2" not in line
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--classes", "--only-classes", "--event"])
def test_a_class_that_the_model_does_not_have_is_one_line(model: Path, option: str) -> None:
    done = camera(model, "--source", PATTERN, option, "green")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: there is no class called 'green'")


@pytest.mark.parametrize(
    ("sinks", "says"),
    [
        (["--sink", "./film.mp4"], "would write over film.mp4"),
        (["--sink", "a.mp4", "--sink", "./a.mp4"], "the same files"),
    ],
)
def test_a_source_is_not_overwritten_nor_one_sink_by_another(
    sinks: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    camera_here: Callable[..., Result],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").write_bytes(b"the only copy")
    done = camera_here("no-such-model.onnx", "--source", "film.mp4", *sinks, "--overwrite")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    assert Path("film.mp4").read_bytes() == b"the only copy"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_port_in_use_is_one_line(camera_here: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = camera_here("no-such-model.onnx", "-s", PATTERN, "--serve", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.exit_code == 5
    assert len(done.stderr.splitlines()) == 1
    assert "in use" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)])
def test_a_signal_finishes_all_files(model: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    video, lines = tmp_path / "film.mp4", tmp_path / "lines.jsonl"
    sinks = ("--sink", video, "--sink", lines)
    # Every frame: of those that wait for a sink, none is dropped where it has no turn for a while.
    with started(model, "--source", PATTERN, "--policy", "all", *sinks, "--status-every", 0.2) as running:
        running.until(r"status .*explained=[1-9]\d")
        running.process.send_signal(number)
        assert running.ended() == code
        assert running.until(f"ended by {number.name} after")
        written = int(running.until(r"film.mp4 in all.* written=(\d+) dropped=0 failed=0 waiting=0 lost=0")[1])
        assert "Traceback" not in running.log
    assert written >= 10
    assert frames_in(video) == written
    assert len([json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]) >= 10


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, (-signal.SIGTERM, 0))])
def test_a_signal_while_the_model_is_loaded_ends_it_too(
    demo_model: Path, number: signal.Signals, codes: tuple[int, ...]
) -> None:
    with started(demo_model, "--source", PATTERN) as running:
        running.until("loading")
        running.process.send_signal(number)
        assert running.ended() in codes  # 0 where it was loaded already
        assert "Traceback" not in running.log


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_what_does_not_finish(model: Path, second: signal.Signals) -> None:
    with started(model, "--source", PATTERN, "--sink", "-", "--status-every", 0.2) as running:
        assert running.process.stdout is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(running.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        running.until(
            r"status .*explained=[5-9]\d\d|status .*explained=[3-9]\d"
        )  # the pipe, which nobody reads, is full
        running.process.send_signal(signal.SIGTERM)
        running.until("SIGTERM: what is being written is finished")
        running.process.send_signal(second)
        assert running.ended() == 128 + second


def test_after_kill_what_was_written_can_be_used(model: Path, tmp_path: Path) -> None:
    video, lines = tmp_path / "film.mp4", tmp_path / "lines.jsonl"
    with started(model, "--source", PATTERN, "--sink", video, "--sink", lines, "--serve", "127.0.0.1:0") as running:
        url = running.until(r"the page is at (http://127\.0\.0\.1:\d+/)")[1]
        until = time.monotonic() + 60
        # A status of the pipeline: that of the log does not say what has been written.
        while min(sink["written"] for sink in httpx.get(f"{url}api/status", timeout=30).json()["sinks"][:2]) < 90:
            assert time.monotonic() < until  # three seconds
            time.sleep(0.05)
        running.process.kill()
        running.ended()
    assert frames_in(video) >= 30
    rows = lines.read_text(encoding="utf-8").splitlines()
    assert len([json.loads(row) for row in rows[:-1]]) >= 80


def test_who_reads_stdout_no_more_ends_it(model: Path) -> None:
    with started(model, "--source", PATTERN, "--sink", "-") as running:
        assert running.process.stdout is not None
        assert json.loads(running.process.stdout.readline())["source"]
        running.process.stdout.close()
        assert running.ended() == 1
        assert running.until("ended by its sinks' end")


def test_a_camera_that_stays_away_is_given_up_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    away = "rtsp://admin:s3cret@127.0.0.1:1/live"
    done = camera(model, "-s", away, "-s", f"{PATTERN}&frames=60", "--give-up-after", 1, "--sink", tmp_path / "a.jsonl")
    assert done.returncode == 1, done.stderr
    assert re.search(r"source \S+: failed: ", done.stderr)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["position_s"] > 1.5  # of two seconds; a busy machine leaves some of its frames out
    alone = camera(model, "-s", away, "--give-up-after", 0.5)
    assert alone.returncode == 5, alone.stderr
    assert alone.stderr.splitlines()[-1].startswith("error: ")
    for_a_time = camera(model, "-s", away, "--duration", 1)
    assert for_a_time.returncode == 5, for_a_time.stderr
    assert "no source gave a frame" in for_a_time.stderr.splitlines()[-1]


def test_what_a_sink_took_and_could_not_deliver_is_in_the_figures_and_the_exit_code(model: Path) -> None:
    port = lasting_port()
    done = camera(
        model,
        *("--source", f"{PATTERN}&frames=40", "--policy", "all", "--event", "*:enter=0.01,leave=0.005,for=0", "--json"),
        *("--sink", f"mqtt://127.0.0.1:{port}/home", "--sink", f"http://127.0.0.1:{port}/"),
    )
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert [(sink["dropped"], sink["failed"]) for sink in facts["sinks"]] == [(0, 0)] * 2
    mqtt, webhook = facts["sinks"]
    events = webhook["undelivered"]
    assert events >= 1
    assert mqtt["undelivered"] == mqtt["received"] + events
    assert re.search(rf"sink http://127.0.0.1:{port} in all .*undelivered={events} ", done.stderr)
    assert f"{events} events could not be delivered, {events} in all" in done.stderr
    assert re.search(rf"messages could not be delivered, {mqtt['undelivered']} in all", done.stderr)


def test_what_could_not_be_read_of_files_is_in_the_exit_code(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "whole.png"), np.zeros((32, 32, 3), np.uint8))
    whole = camera(model, "-s", photos, "--json")
    (photos / "torn.png").write_bytes((photos / "whole.png").read_bytes()[:40])
    torn = camera(model, "-s", photos, "--json")
    assert [whole.returncode, torn.returncode] == [0, 1], torn.stderr
    (source,) = json.loads(torn.stdout)["sources"]
    assert (source["live"], source["explained"], source["broken"]) == (False, 1, 1)


SECRETS = ("s3cr%65t", "s3cret", "sup3rtok3n", "hunter2pw", "bigboss", TOKEN)


@pytest.mark.parametrize("form", ["text", "json"])
def test_credentials_are_nowhere_to_be_seen_even_where_all_fails(model: Path, tmp_path: Path, form: str) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN, encoding="utf-8")
    uris = ["rtsp://bigboss:s3cr%65t@127.0.0.1:1/live", "http://bigboss:s3cret@127.0.0.1:1/a.mjpg?token=sup3rtok3n"]
    arguments = [part for uri in uris for part in ("--source", uri)]
    arguments += ["--sink", "mqtt://bigboss:hunter2pw@127.0.0.1:1/topic", "--log-format", form, "--log-level", "debug"]
    with started(
        model, *arguments, "--source", PATTERN, "--serve", "127.0.0.1:0", "--token-file", token, "--json"
    ) as running:
        url = running.until(r"the page is at (http://127\.0\.0\.1:\d+/)")[1]
        running.until("127.0.0.1:1/live|lost")
        running.until("mqtt")
        seen = ""
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("metrics", "api/status", "api/settings", "api/events", "healthz", "openapi.json", "login", ""):
            answer = httpx.get(url + path, headers=bearer, timeout=30)
            seen += answer.text + str(answer.headers)
        running.process.terminate()
        assert running.ended() == 0
        assert running.process.stdout is not None
        out = running.process.stdout.read()
        everything = seen + running.log + out
    assert "***@127.0.0.1:1/live" in out
    for secret in SECRETS:
        assert secret not in everything
    (tmp_path / "sources").write_text("# cameras\n\n" + "\n".join(uris) + "\n", encoding="utf-8")
    arguments[:4] = ["--source", f"@{tmp_path / 'sources'}"]
    failed = camera(model, *arguments, "--give-up-after", 0.2, "--debug", "--json")
    assert "***@127.0.0.1:1/live" in failed.stdout
    assert failed.returncode == 5, failed.stderr
    for secret in SECRETS:
        assert secret not in failed.stderr + failed.stdout
    if form == "json":
        assert all(
            isinstance(json.loads(line), dict) for line in failed.stderr.splitlines() + failed.stdout.splitlines()
        )


@pytest.mark.parametrize("where", ["file", "environment", "systemd"])
def test_the_page_asks_for_the_token_wherever_it_comes_from(model: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    given: list[object] = ["--token-file", tmp_path / "token"] if where == "file" else []
    more = {
        "file": {},
        "environment": {"GAPCAM_CAMERA_TOKEN": TOKEN},
        "systemd": {"CREDENTIALS_DIRECTORY": str(tmp_path)},
    }[where]
    with started(model, "--source", PATTERN, "--serve", "127.0.0.1:0", *given, **more) as running:
        url = running.until(r"the page is at (http://127\.0\.0\.1:\d+/)")[1]
        until = time.monotonic() + 30
        # The page is there before the pipeline begins.
        while httpx.get(f"{url}healthz", timeout=30).json() != {"status": "ok"}:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert httpx.get(f"{url}api/status", timeout=30).status_code == 401
        status = httpx.get(f"{url}api/status", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert status.status_code == 200
        assert status.json()["sources"][0]["captured"] >= 0
        assert TOKEN not in running.log


def test_logs_may_be_json_down_to_the_last_line(model: Path) -> None:
    with started(model, "--source", PATTERN, "--log-format", "json", "--status-every", 0.1) as running:
        running.until('"message": "status"')
        running.process.terminate()
        assert running.ended() == 0
        rows = [json.loads(line) for line in running.lines]
    assert {"time", "level", "message"} <= set.intersection(*map(set, rows))
    assert any(row["message"] == "status" and row["state"] for row in rows)
    failed = camera("absent.onnx", "--source", PATTERN, "--log-format", "json")
    assert failed.returncode == 3
    row = [json.loads(line) for line in failed.stderr.splitlines()][-1]
    assert (row["level"], row["exit_code"]) == ("critical", 3)
    assert "absent.onnx" in row["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--source", PATTERN, "--alpha", "2"], 2, "--alpha"),
        (["--source", PATTERN, "rtsp://bigboss:s3cret@cam/live"], 2, "rtsp://***@cam/live"),
        (["--source", PATTERN, "--colour"], 2, "--colour"),
        (["--source", "@absent"], 5, "cannot read URIs from absent"),
        (["--source", "absent.mp4"], 5, "there is no file absent.mp4"),
    ],
)
@pytest.mark.parametrize("form", [["--log-format=json"], []])
def test_a_mistake_is_json_where_the_log_is(
    arguments: list[str], code: int, says: str, form: list[str], camera_here: Callable[..., Result]
) -> None:
    done = camera_here("absent.onnx", *arguments, *form)
    (line,) = done.stderr.splitlines()
    row = json.loads(line) if form else {"message": line, "level": "critical", "exit_code": code}
    assert (row["level"], row["exit_code"], done.exit_code) == ("critical", code, code)
    assert says in row["message"]
    assert "s3cret" not in line


def test_ctrl_c_while_the_model_is_loaded_is_json_too(demo_model: Path) -> None:
    with started(demo_model, "--source", PATTERN, "--log-format", "json") as running:
        running.until("loading")
        running.process.send_signal(signal.SIGINT)
        assert running.ended() in INTERRUPTED
        rows = [json.loads(line) for line in running.lines]
    assert "Traceback" not in running.log
    assert rows[-1]["message"] == "interrupted" or rows[-1]["source"]  # the latter where it was loaded already


def test_on_a_terminal_a_table_shows_how_it_is_doing(model: Path) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, 0x5414, b"\x28\x00\x78\x00\x00\x00\x00\x00")  # TIOCSWINSZ: 40 lines of 120
    process = subprocess.Popen(
        [*PROGRAM, "camera", str(model), "--source", f"{PATTERN}#name=door"],
        stderr=follower,
        stdout=subprocess.DEVNULL,
        env=environment(TERM="xterm", COLUMNS="120"),
    )
    os.close(follower)
    until = time.monotonic() + 60
    shown, plain = b"", ""
    looked_for = ["best class", r"door\s+running\s+160x120\s+\d", r"(red|blue) 0\.\d\d"]
    while True:
        if looked_for and all(re.search(pattern, plain) for pattern in looked_for):
            looked_for = []
            process.terminate()
        if not select.select([leader], [], [], 60)[0]:
            process.kill()
        try:
            part = os.read(leader, 65536)
        except OSError:  # its end, on Linux
            break
        if not part:
            break
        shown += part
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))
        if looked_for and time.monotonic() > until:
            process.kill()
    os.close(leader)
    code = process.wait(30)
    assert not looked_for, plain
    assert code == 0
    assert " status source=" not in plain


def test_systemd_hears_that_it_is_up_alive_and_stopping(model: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        systemd.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        heard: list[str] = []
        said_at: list[float] = []  # of the last one, as the kernel has noted it: it may have waited to be heard

        def hear(until: Callable[[str], bool]) -> None:
            while not heard or not until(heard[-1]):
                message, ancillary, _, _ = systemd.recvmsg(65536, 1024)
                heard.append(message.decode())
                said_at[:] = [s + us / 1e6 for *_, data in ancillary for s, us in [struct.unpack("ll", data)]]

        more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with started(model, "--source", f"{PATTERN}#name=door", **more) as running:
            hear(lambda text: text.startswith("READY=1\nSTATUS=door "))
            times = [*said_at]
            for _ in range(8):
                hear(lambda text: text == "WATCHDOG=1")
                heard.append("")
                times += said_at
            # A quarter of a second each, but one that was late does not hold up the next; at a second systemd kills.
            assert len(times) == 9
            assert 0.7 < times[-1] - times[0] < 8
            hear(lambda text: text.startswith("STATUS=door running"))
            running.process.terminate()
            hear(lambda text: text.startswith("STOPPING=1"))
            assert running.ended() == 0
    assert heard[0].startswith("READY=1\n")


def test_a_unit_file_can_be_printed_without_a_model() -> None:
    done = camera("--print-unit")
    assert done.returncode == 0
    program = Path(sys.executable).with_name("gapcam")
    assert f"\nExecStart={program} camera $GAPCAM_MODEL $GAPCAM_CAMERA\n" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from gapcam.cli.main import main\n"
        "try: main(['camera', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'av', 'cv2', 'fastapi', 'onnxruntime', 'uvicorn'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "Sources" in done.stdout
    assert "Examples" in done.stdout


def options_of(*arguments: str) -> dict[str, object]:
    """What the command hands on."""
    context = camera_command.make_context("camera", ["model.onnx", *arguments])
    return {key: value for key, value in context.params.items() if key != "model"}


def test_the_options_defaults_are_those_of_the_api() -> None:
    asked = asked_for(options_of("--source", PATTERN))
    assert asked.settings == ExplainSettings()
    assert asked.reopen == Reopen()
    assert asked.server is None
    given = options_of("--source", PATTERN)
    defaults, sinks = SourceOptions(), SinkOptions()
    assert (given["timeout"], given["seek"], int(str(given["rotate"])), given["transport"]) == (
        defaults.timeout_s,
        defaults.seek_s,
        defaults.rotate,
        defaults.transport,
    )
    assert (given["segment"], given["keep"], int(str(given["min_free"])) * 1_000_000) == (
        sinks.segment_s,
        sinks.keep,
        sinks.min_free_bytes,
    )
    choices = {
        parameter.name: parameter.type.choices
        for parameter in camera_command.params
        if isinstance(parameter.type, click.Choice)
    }
    assert tuple(choices["normalization"]) == VideoNormalization.__args__  # type: ignore[attr-defined]


def test_classes_are_labels_or_indices_once_the_model_is_known() -> None:
    names = ClassNames(("a", "b, c", "7"), 3)
    asked = asked_for(
        options_of("-s", PATTERN, "--classes", "b, c", "--classes", "0,7", "--event", "7", "--event", "*")
    )
    settings = resolved(asked.settings, names)
    assert settings.classes == (1, 0, 2)
    assert [rule.target for rule in settings.rules] == [2, "*"]
    with pytest.raises(ClassNotFoundError):
        resolved(asked_for(options_of("-s", PATTERN, "--only-classes", "9")).settings, names)


def test_the_library_says_in_a_line_that_there_is_no_source() -> None:
    with pytest.raises(UsageError, match="there is no source"):
        asked_for(options_of())
