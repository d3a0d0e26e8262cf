"""The soak finds what it is there to find; and a short one: half a minute with every fault three times."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from camera_servers import rtsp
from planned_camera import eventually

ROOT = Path(__file__).resolve().parents[3]
SOAK = ROOT / "tests" / "soak"
sys.path.insert(0, str(SOAK))

from fault_schedule import Fault, Schedule  # noqa: E402
from frame_log import EventTally  # noqa: E402
from process_use import left_over, memory_mb, use  # noqa: E402
from soak_checks import (  # noqa: E402
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
from yardstick import EVERY_S, Yardstick  # noqa: E402

from gapcam.camera import Event  # noqa: E402

PR_SET_NAME = 15

needs_rtsp = pytest.mark.skipif(bool(rtsp.missing()), reason=rtsp.missing())


def test_faults_come_in_their_order_each_cycle_and_a_shorter_cycle_has_the_same() -> None:
    came: list[str] = []
    faults = [Fault(40, "late", lambda: came.append("late")), Fault(6, "early", lambda: came.append("early"))]
    schedule = Schedule(faults, cycle_s=10, cycles=2)
    schedule.run_due(0.9)
    assert came == []
    schedule.run_due(1.0)
    assert (came, schedule.last, schedule.done) == (["early"], "early", 1)
    schedule.run_due(11.1)
    assert came == ["early", "late", "early"]
    schedule.run_due(100)
    assert came == ["early", "late", "early", "late"]


def test_growth_is_the_last_minute_in_units_of_the_first() -> None:
    slow, fast, same = minute(np.full(100, 0.0221)), minute(np.full(100, 0.020)), minute(np.full(9, 0.022))
    assert fast is not None
    assert (fast.frames, fast.p50_ms, fast.p99_ms, fast.greatest_ms) == (100, 20, 20, 20)
    steady = [fast, fast]
    assert growth("age", [fast, None, slow], steady, "p50_ms").verdict == "FAIL"
    assert growth("age", [slow, fast], steady, "p99_ms").verdict == "PASS"
    assert growth("age", [fast, same], steady, "p50_ms").verdict == "PASS"
    for too_few in ([], [fast]):
        found = growth("age", too_few, too_few, "p50_ms")
        assert (found.verdict, found.found) == ("unknown", "one minute has nothing to compare with; at least 2")
    for silent in ([fast, None], [None, fast]):
        assert growth("age", silent, steady, "p50_ms").verdict == "FAIL"
    for unseen in ([], [fast, None]):
        assert growth("age", [fast, slow], unseen, "p50_ms").verdict == "FAIL"


def test_memory_is_compared_with_the_second_minute() -> None:
    assert [memory_growth("memory", [90, 100, mb]).verdict for mb in (105, 105.1, 90)] == ["PASS", "FAIL", "PASS"]
    short = memory_growth("memory", [90, 200])
    assert (short.verdict, short.found[-10:]) == ("unknown", "at least 3")


def test_what_says_nothing_fails_nothing_and_is_named_in_a_line() -> None:
    good, bad = at_most("frames", 0, 0), at_most("threads", 1, 0)
    silent = [unknown(what, "too short", 1.1) for what in ("p50", "p99")] + [unknown("memory", "shorter still", 5)]
    said = "3 say nothing: too short (p50; p99), shorter still (memory)"
    assert in_a_line([good, *silent]) == f"PASS: 1 of 4 checks passed, {said}"
    assert in_a_line([good, bad, *silent]) == f"FAIL: 1 of 5 checks passed, 1 failed (threads), {said}"
    assert in_a_line([good]) == "PASS: 1 of 1 checks passed"


def test_on_a_machine_that_got_slower_frames_may_be_older_by_as_much() -> None:
    one, slower, more = (minute(np.full(100, seconds)) for seconds in (0.010, 0.014, 0.0155))
    found = growth("age", [one, slower], [one, slower], "p50_ms")
    assert (found.verdict, found.found) == ("PASS", "1.400")
    assert found.limit == "at most 1.1; 1.540 as the machine took 1.40 times as long"
    assert growth("age", [one, more], [one, slower], "p50_ms").verdict == "FAIL"
    steady = growth("age", [one, slower], [one, one], "p50_ms")
    assert (steady.verdict, steady.limit) == ("FAIL", "at most 1.1")
    assert growth("age", [one, one], [slower, one], "p50_ms").verdict == "PASS"


def test_a_machine_that_got_much_slower_excuses_no_more_than_half_as_much_again() -> None:
    one, five, allowed, more = (minute(np.full(100, seconds)) for seconds in (0.01, 0.05, 0.0164, 0.0166))
    assert growth("age", [one, allowed], [one, five], "p50_ms").verdict == "PASS"
    found = growth("age", [one, more], [one, five], "p50_ms")
    assert (found.verdict, found.found) == ("FAIL", "1.660")
    assert found.limit == "at most 1.1; 1.650 as the machine took 5.00 times as long, of which 1.5 counts"


def test_one_hiccup_of_the_machine_excuses_no_age() -> None:
    calm, hiccup = (minute(np.array([0.01] * 97 + [seconds] * 3)) for seconds in (0.01, 0.1))
    one, double = (minute(np.full(100, seconds)) for seconds in (0.01, 0.02))
    assert growth("age", [one, double], [calm, hiccup], "p99_ms").verdict == "FAIL"


def test_events_that_are_missing_or_others_or_too_many_are_found() -> None:
    first, second, third = (Event("enters", "test", number, number / 8, 3, "cat", 0.5) for number in range(3))

    def tally(*events: Event) -> EventTally:
        made = EventTally()
        for event in events:
            made.add([event])
        return made

    happened = EventTally()
    happened.add([first, second])
    assert tally(second, first).beyond(happened) == ""
    assert tally(first).beyond(happened) == "1 of 2 missing"
    assert tally(first, second, second).beyond(happened) == "1 of 2 too many"
    assert tally(first, third).beyond(happened) == "others than the 2 that happened"
    assert tally(first, first).beyond(happened) == "others than the 2 that happened"


def test_the_yardstick_measures_the_same_work_over_and_over() -> None:
    began = time.monotonic()
    yardstick = Yardstick()
    eventually(lambda: yardstick.count() >= 5)
    yardstick.end()
    took = yardstick.seconds(began, time.monotonic())
    assert len(took) >= 5
    assert (took > 0).all()
    assert (np.diff(yardstick.begun) > EVERY_S - 1e-3).all()
    assert len(yardstick.seconds(0, began)) == 0


def test_checks_hold_figures_against_limits() -> None:
    assert [at_most("it", found, 5).verdict for found in (5, 5.1)] == ["PASS", "FAIL"]
    assert [at_least("it", found, 5).verdict for found in (5, 4)] == ["PASS", "FAIL"]
    assert [nothing("it", found).verdict for found in ([], ["a thread"])] == ["PASS", "FAIL"]
    assert nothing("it", ["a", "b"]).found == "a, b"


def test_a_frame_that_is_lost_is_found_and_so_is_one_too_many() -> None:
    rows = [
        {"in": 10, "done": 7, "dropped": 3},
        {"in": 10, "done": 7, "dropped": 2},
        {"in": 1, "done": 2, "dropped": 0},
    ]
    assert [unaccounted([row], "in", ("done", "dropped")) for row in rows] == [0, 1, 1]
    assert unaccounted(rows, "in", ("done", "dropped")) == 2


def test_what_is_left_over_is_found_and_what_ends_soon_is_not(tmp_path: Path) -> None:
    before = use()
    stop, named = threading.Event(), threading.Event()

    def stay() -> None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"stays")
        named.set()
        stop.wait()

    thread = threading.Thread(target=stay, name="left over")
    thread.start()
    assert named.wait(20)
    with (
        (tmp_path / "open").open("w"),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child,
    ):
        found = left_over(before, timeout_s=0.2)
        child.communicate(b"\n")
    stop.set()
    assert found["threads"] == ["left over"]
    assert "stays" in found["native threads"]
    assert found["processes"] == [str(child.pid)]
    assert str(tmp_path / "open") in found["files"]
    thread.join()
    assert not any(left_over(before).values())


def test_memory_that_is_held_is_seen() -> None:
    before = memory_mb()
    held = np.ones(50_000_000, np.uint8)
    after = memory_mb()
    assert [45 < now - then < 60 for now, then in zip(after, before, strict=True)] == [True, True]
    assert held[-1] == 1


def progress(line: str) -> int:
    """Seconds since the start, where a line of a soak says so; else 0."""
    found = re.match(r" *(\d+) of \d+ s: ", line)
    return int(found[1]) if found else 0


def start_soak(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "runtime"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SOAK / "soak.py", "--model", folder / "model.onnx", "--output", folder / "out"]
    return subprocess.Popen(
        [*map(str, command), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
    )


@needs_rtsp
@pytest.mark.slow
def test_half_a_minute_of_faults_loses_no_frame_and_leaves_nothing_over(tmp_path: Path) -> None:
    from small_models import red_and_blue

    red_and_blue(tmp_path / "model.onnx")
    with start_soak(tmp_path, "--minutes", "0.5", "--cycle", "10") as soak:
        said, _ = soak.communicate(timeout=120)
    assert (tmp_path / "out" / "soak.json").exists(), said
    found = json.loads((tmp_path / "out" / "soak.json").read_text())
    assert soak.returncode == (0 if found["passed"] else 1), said
    assert found["faults"] == 3 * 21
    assert found["events"] > 0
    # How old frames get, and memory, are for a longer soak on a machine that does nothing else.
    disturbed = ("frame age", "memory growth", "greatest pause")
    failed = [row for row in found["checks"] if row["verdict"] != "PASS" and not row["what"].startswith(disturbed)]
    assert failed == [], said
    assert len(found["checks"]) > 20
    for source in found["sources"]:
        assert source["captured"] == source["explained"] + source["dropped"] + source["failed"]
        assert source["captured"] > 0
    assert max(progress(line) for line in said.splitlines()) >= 20
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["soak.json"]


@needs_rtsp
@pytest.mark.slow
def test_a_soak_of_one_minute_fails_only_where_a_check_does(tmp_path: Path) -> None:
    from small_models import red_and_blue

    red_and_blue(tmp_path / "model.onnx")
    with start_soak(tmp_path, "--minutes", "0.2", "--cycle", "12") as soak:
        said, _ = soak.communicate(timeout=90)
    assert (tmp_path / "out" / "soak.json").exists(), said
    found = json.loads((tmp_path / "out" / "soak.json").read_text())
    verdicts = [row["verdict"] for row in found["checks"]]
    assert verdicts.count("unknown") == 3
    assert soak.returncode == (1 if "FAIL" in verdicts else 0), said
    assert "3 say nothing: one minute has nothing to compare with; at least 2 (frame age p50" in said


@needs_rtsp
@pytest.mark.slow
def test_a_soak_that_is_interrupted_says_what_it_knows(tmp_path: Path) -> None:
    from small_models import red_and_blue

    red_and_blue(tmp_path / "model.onnx")
    with start_soak(tmp_path, "--minutes", "1", "--cycle", "20") as soak:
        assert soak.stdout is not None
        for line in soak.stdout:
            if progress(line) >= 10:
                break
        time.sleep(0.5)
        soak.send_signal(signal.SIGINT)
        said, _ = soak.communicate(timeout=60)
    assert soak.returncode == 130, said
    assert "interrupted" in said
    found = json.loads((tmp_path / "out" / "soak.json").read_text())
    assert found["interrupted"]
    assert not found["passed"]
    checks = {row["what"]: row["verdict"] for row in found["checks"]}
    assert checks["frames of sources lost without account"] == "PASS"
    assert checks["threads left over"] == "PASS"
    assert checks["frame age p50, last minute / first"] == "unknown"
