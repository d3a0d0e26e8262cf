"""The camera's benchmark: it runs on a small model, its figures add up, its camera keeps time."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gapcam.camera import Pipeline
from gapcam.camera.captured_frame import SourceFrame
from gapcam.frame import Frame
from gapcam_bench import camera_goals
from gapcam_bench.camera import bench_camera
from gapcam_bench.camera_goals import goal, missed_in_words, panned_pictures, spread
from gapcam_bench.paced_frames import PacedFrames

LEAST_FRAMES = 10


class NotedFrames(PacedFrames):
    """A camera that notes the moment of the last frame that was read."""

    made: ClassVar[list[NotedFrames]] = []

    def __init__(self, images: Sequence[Frame], fps: float) -> None:
        super().__init__(images, fps)
        self.fps, self.last = fps, 0.0
        self.made.append(self)

    def read(self) -> SourceFrame | None:
        frame = super().read()
        self.last = frame.taken_at if frame else self.last
        return frame

    @property
    def given(self) -> int:
        """Frames until that moment."""
        return round((self.last - (self._began or 0.0)) * self.fps)


class Unhurried(Pipeline):
    """It goes on until every sink has some frames, however long a busy machine takes for them."""

    def wait(self, timeout_s: float | None = None) -> bool:
        ended = super().wait(timeout_s)
        while not ended and min(sink.written for sink in self.status().sinks) < LEAST_FRAMES:
            ended = super().wait(0.05)
        return ended


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[NotedFrames]:
    """One of each case that was measured; no frame is left out of the ages for being early."""
    monkeypatch.setattr(camera_goals, "Pipeline", Unhurried)
    monkeypatch.setattr(camera_goals, "PacedFrames", NotedFrames)
    monkeypatch.setattr(camera_goals, "WARM_UP_S", 0.0)
    monkeypatch.setattr(NotedFrames, "made", [])
    return NotedFrames.made


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bench_camera, [str(argument) for argument in arguments])


def test_every_case_runs_and_its_json_adds_up(tiny_model: Path, cameras: list[NotedFrames]) -> None:
    ran = invoke(tiny_model, "--seconds", "2", "--size", "160x120", "--threads", "1", "--json")
    assert ran.exit_code in (0, 1), ran.output
    found = json.loads(ran.stdout)
    missed = [each["what"] for case in found["cases"] for each in case["goals"] if each["verdict"] == "MISS"]
    assert ran.exit_code == bool(missed)
    assert all(what in ran.stderr for what in missed)
    assert ("goals missed" in ran.stderr) == bool(missed)
    assert (found["model"], found["frame"], found["threads"]) == ("tiny.onnx", [120, 160], 1)
    cases = {case["name"]: case for case in found["cases"]}
    assert list(cases) == ["bare", "lines", "page", "behind"]
    for case in cases.values():
        assert case["captured"] == case["explained"] + case["dropped"] + case["failed"] + case["waiting"]
        assert case["waiting"] == case["failed"] == 0
        for sink in case["sinks"].values():
            assert sink["written"] + sink["dropped"] == case["explained"]
        for figures in (case["ages"] | case["stages"]).values():
            assert figures["count"] > 0
            assert 0 <= figures["p50_ms"] <= figures["p99_ms"] <= figures["greatest_ms"]
        hand_over, stages = case["ages"]["hand-over"], case["stages"]
        assert stages["turn"]["p50_ms"] >= stages["inference"]["p50_ms"]
        assert hand_over["greatest_ms"] >= stages["turn"]["greatest_ms"]
        assert case["cpu"] > 0
        assert case["others"] is None or case["others"] >= 0
        for each in case["goals"]:
            assert each["verdict"] == ("PASS" if each["measured"] <= each["limit"] else "MISS")
    assert len(cameras) == len(cases)
    for name, camera in zip(("bare", "lines", "page"), cameras, strict=False):
        assert cases[name]["fps"] == camera.fps == 15
        assert cases[name]["captured"] + cases[name]["missed"] == pytest.approx(camera.given, abs=1)
        assert 2 <= cases[name]["seconds"] < 60
        dropped, *ages = cases[name]["goals"]
        assert (dropped["what"], dropped["limit"]) == ("frames dropped", 0)
        assert dropped["measured"] == cases[name]["dropped"] + cases[name]["missed"]
        assert {age["limit"] for age in ages} == {133.333}
        assert [age["measured"] for age in ages] == [figures["p99_ms"] for figures in cases[name]["ages"].values()]
    assert set(cases["lines"]["sinks"]) == {"lines"}
    assert {"video", "hand-over", "client"} < set(cases["page"]["ages"])
    behind = cases["behind"]
    keys, inference = ("p99_ms", "greatest_ms"), behind["stages"]["inference"]
    limits = [2 * inference[key] + 1e3 / behind["fps"] for key in keys]
    assert [each["limit"] for each in behind["goals"]] == pytest.approx(limits * 2, abs=0.002)
    measured = [behind["ages"][where][key] for where in ("hand-over", "lines") for key in keys]
    assert [each["measured"] for each in behind["goals"]] == measured


@pytest.mark.usefixtures("cameras")
def test_the_tables_name_every_case_asked_for(tiny_model: Path) -> None:
    ran = invoke(tiny_model, "--seconds", "2", "--size", "64x64", "--case", "behind", "--case", "bare")
    assert ran.exit_code in (0, 1), ran.output
    for word in ("bare: 15.0 frames a second", "behind: ", "frames of 64 x 64", "age at hand-over", "frames dropped"):
        assert word in ran.stdout
    assert "lines: " not in ran.stdout
    assert "measuring behind, 2 s" in ran.stderr


@pytest.mark.usefixtures("cameras")
def test_a_missed_goal_is_said_in_a_line_with_how_busy_others_were_and_fails_the_command(tiny_model: Path) -> None:
    ran = invoke(tiny_model, "--seconds", "2", "--size", "64x64", "--case", "bare", "--rate", "20000")
    assert ran.exit_code == 1, ran.output
    last = ran.stderr.splitlines()[-1]
    assert re.match(r"[123] of 3 goals missed \(bare: frames dropped", last)
    if Path("/proc/stat").exists():
        assert re.search(r"others kept up to \d+\.\d\d processors busy meanwhile$", last)


def test_nothing_is_said_where_every_goal_was_reached() -> None:
    assert missed_in_words([]) is None


def test_what_was_mistyped_is_said_in_a_line(tmp_path: Path, tiny_model: Path) -> None:
    ran = invoke(tmp_path / "none.onnx")
    assert (ran.exit_code, ran.output.count("\n")) == (3, 1)
    assert "make it with gapcam export" in ran.output
    for size in ("1280", "x", "0x720", "axb"):
        ran = invoke(tiny_model, "--size", size)
        assert ran.exit_code == 2
        assert "WIDTHxHEIGHT" in ran.output
    assert "Examples:" in invoke("--help").output


def test_a_goal_may_reach_its_limit() -> None:
    assert goal("age", 133.3, 133.3).verdict == "PASS"
    assert goal("age", 133.4, 133.3).verdict == "MISS"


def test_a_spread_is_of_values_that_occurred() -> None:
    found = spread([value / 1e3 for value in range(1, 201)])
    assert (found.count, found.p50_ms, found.p99_ms, found.greatest_ms) == (200, 100, 198, 200)


def test_the_camera_gives_each_frame_at_its_moment() -> None:
    images = panned_pictures(48, 64, count=4)
    camera = PacedFrames(images, fps=50)
    camera.open()
    frames = [camera.read() for _ in range(5)]
    taken = np.array([frame.taken_at for frame in frames if frame])
    assert camera._began is not None
    numbers = np.rint((taken - camera._began) / 0.02).astype(int)  # 1 to 5, where no busy machine reads too late
    np.testing.assert_allclose(taken, camera._began + numbers * 0.02, rtol=0, atol=1e-9)
    assert all(frame and frame.image is images[number % 4] for number, frame in zip(numbers, frames, strict=True))
    assert (np.diff(numbers) > 0).all()
    assert (camera.missed, camera.sent) == (numbers[-1] - 5, 5)


def test_frames_that_nobody_read_are_counted_and_the_newest_one_is_read() -> None:
    camera = PacedFrames(panned_pictures(48, 64, count=4), fps=50)
    camera.open()
    time.sleep(0.11)
    asked = time.monotonic()
    frame = camera.read()
    assert frame is not None
    assert asked - 0.02 < frame.taken_at <= time.monotonic()
    assert camera.missed >= 4
    camera.interrupt()
    assert camera.read() is None


def test_the_pictures_pan_there_and_back() -> None:
    pictures = panned_pictures(48, 64, count=6)
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 6
    assert all(np.array_equal(pictures[at], pictures[5 - at]) for at in range(3))
    np.testing.assert_array_equal(pictures[1][:-4, :-4], pictures[0][4:, 4:])
    assert not np.array_equal(pictures[0], pictures[1])
