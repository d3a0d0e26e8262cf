"""A line of JSON for each frame."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from camera_frames import BEGAN, FrameMaker

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks.json_lines import JsonLinesSink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.errors import UsageError

OPTIONS = SinkOptions(min_free_bytes=0)

WRITER = """
import sys
from pathlib import Path
from camera_frames import FrameMaker
from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks.json_lines import JsonLinesSink
from gapcam.camera.sinks.sink_options import SinkOptions

make = FrameMaker()
sink = JsonLinesSink(Path(sys.argv[1]) if sys.argv[1:] else None, SinkOptions(min_free_bytes=0))
sink.open()
number = 0
try:
    while True:
        sink.write(make(number=number))
        number += 1
        if sys.argv[1:]:
            print(number, flush=True)
except SinkEndedError as error:
    print(f"after {number}: {error}", file=sys.stderr)
sink.close()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def lines(path: Path) -> list[dict]:
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.decode().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def sink(path: Path) -> Iterator[JsonLinesSink]:
    opened = JsonLinesSink(path, OPTIONS)
    opened.open()
    yield opened
    opened.close()


def writer(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def test_each_frame_is_a_line_with_what_was_found_and_how_long_it_took(
    frames: FrameMaker, sink: JsonLinesSink, path: Path
) -> None:
    given = [frames(number=n, at=n / 2, events=("red",) * n) for n in range(3)]
    for count, frame in enumerate(given, 1):
        sink.write(frame)
        assert len(lines(path)) == count  # at once
    written = lines(path)
    assert written == [json.loads(json.dumps(frame.to_dict())) for frame in given]
    assert [row["time"] for row in written] == [BEGAN, BEGAN + 0.5, BEGAN + 1]
    assert [row["frame"] for row in written] == [0, 1, 2]
    assert {entry["label"] for entry in written[0]["top"]} == {"red", "blue"}
    assert sum(entry["score"] for entry in written[0]["top"]) == pytest.approx(1)
    assert len(written[0]["classes"][0]["boxes"][0]) == 4
    assert {"wait", "preprocess", "inference"} <= set(written[0]["timings_ms"])
    assert [len(row["events"]) for row in written] == [0, 1, 2]


def test_only_the_sources_that_were_asked_for(frames: FrameMaker, path: Path) -> None:
    sink = JsonLinesSink(path, SinkOptions(min_free_bytes=0, sources=("b",)))
    sink.open()
    for source in "abc":
        sink.write(frames(source=source))
    sink.close()
    assert [row["source"] for row in lines(path)] == ["b"]


def test_labels_of_any_characters_stay_on_one_line_and_come_back(path: Path) -> None:
    labels = ("tab\tby\n\u2028cat", "\x1b[31mred \N{CAT FACE}")
    make = FrameMaker(labels)
    sink = JsonLinesSink(path, OPTIONS)
    sink.open()
    sink.write(make())
    sink.close()
    make.close()
    (row,) = lines(path)
    assert {entry["label"] for entry in row["top"]} == set(labels)
    assert all(32 <= byte < 127 for byte in path.read_bytes()[:-1])


def test_lines_are_added_to_what_is_there_unless_it_is_to_be_replaced(frames: FrameMaker, path: Path) -> None:
    path.write_text('{"earlier": 1}\n')
    for overwrite, expected in ((False, 2), (True, 1)):
        sink = JsonLinesSink(path, SinkOptions(min_free_bytes=0, overwrite=overwrite))
        sink.open()
        sink.write(frames())
        sink.close()
        assert len(lines(path)) == expected
        sink.open()  # again, as after a failure: what this run wrote stays
        sink.write(frames())
        sink.close()
        assert len(lines(path)) == expected + 1
        path.write_text('{"earlier": 1}\n')


@pytest.mark.parametrize(
    ("before", "kept", "says"),
    [
        (b'{"a": 1}\n{"b": 2, "c"', [{"a": 1}], "ended in the middle of a line; 12 bytes were cut off"),
        (b'{"b": 2, "c"', [], "12 bytes were cut off"),
        (b'{"a": 1}\n{"b": 2}', [{"a": 1}, {"b": 2}], ""),
        (b'{"a": 1}', [{"a": 1}], ""),
        (b"", [], ""),
    ],
)
def test_a_line_that_was_not_finished_is_mended(
    frames: FrameMaker, path: Path, before: bytes, kept: list[dict], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(before)
    sink = JsonLinesSink(path, OPTIONS)
    with caplog.at_level(logging.INFO, "gapcam.camera"):
        sink.open()
    sink.write(frames())
    sink.close()
    assert lines(path)[:-1] == kept
    assert lines(path)[-1]["frame"] == 0
    assert says in caplog.text
    assert bool(says) == bool(caplog.records)


def test_a_file_that_is_something_else_loses_nothing(frames: FrameMaker, path: Path) -> None:
    path.write_bytes(b"notes of\nmy own")
    sink = JsonLinesSink(path, OPTIONS)
    sink.open()
    sink.write(frames())
    sink.close()
    assert path.read_bytes().startswith(b"notes of\nmy own\n{")


def test_a_file_that_is_moved_away_is_followed_by_a_new_one(
    frames: FrameMaker, sink: JsonLinesSink, path: Path
) -> None:
    sink.write(frames(number=0))
    path.rename(path.with_suffix(".1"))
    sink.write(frames(number=1))
    path.unlink()
    sink.write(frames(number=2))
    sink.write(frames(number=3))
    assert [row["frame"] for row in lines(path.with_suffix(".1"))] == [0]
    assert [row["frame"] for row in lines(path)] == [2, 3]


def test_a_file_that_is_emptied_goes_on_from_its_beginning(frames: FrameMaker, sink: JsonLinesSink, path: Path) -> None:
    sink.write(frames(number=0))
    os.truncate(path, 0)  # as logrotate's copytruncate does
    sink.write(frames(number=1))
    assert [row["frame"] for row in lines(path)] == [1]


def test_after_a_kill_all_lines_that_were_reported_are_there(frames: FrameMaker, path: Path) -> None:
    process = writer(path)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "50":
        pass
    process.kill()
    rest, _ = process.communicate()
    reported = max([50, *(int(line) for line in rest.split())])
    sink = JsonLinesSink(path, OPTIONS)
    sink.open()
    sink.write(frames(number=99999))
    sink.close()
    numbers = [row["frame"] for row in lines(path)]
    assert numbers[:-1] == list(range(len(numbers) - 1))
    assert len(numbers) - 1 >= reported
    assert numbers[-1] == 99999


def test_a_file_that_may_not_grow_ends_the_sink_and_has_whole_lines(
    frames: FrameMaker, sink: JsonLinesSink, path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    ended = None
    try:
        for n in range(100):
            sink.write(frames(number=n))
    except SinkEndedError as error:
        ended = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended is not None
    assert "cannot grow: File too large" in ended
    assert 1 < len(lines(path)) < 100
    assert path.stat().st_size <= 3000


def test_stdout_that_nobody_reads_any_more_ends_the_sink_without_a_word_of_python_s() -> None:
    process = writer()
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert [row["frame"] for row in first] == [0, 1, 2]
    assert said.count("\n") == 1
    assert said.endswith("nobody reads stdout any more\n")


def test_stdout_on_a_full_disk_ends_the_sink_with_a_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", WRITER], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
        )
    assert done.returncode == 0
    expected = b"after 0: stdout cannot grow: No space left on device; nothing more is written there. Make room\n"
    assert done.stderr == expected


def test_stdout_that_is_caught_or_closed(frames: FrameMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = io.StringIO()
    monkeypatch.setattr(sys, "stdout", caught)
    sink = JsonLinesSink(None, OPTIONS)
    sink.write(frames(number=3))
    assert json.loads(caught.getvalue())["frame"] == 3
    caught.close()
    with pytest.raises(SinkEndedError, match="stdout is closed"):
        sink.write(frames(number=4))


def test_stdout_takes_lines_between_other_output(frames: FrameMaker, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = JsonLinesSink(None, OPTIONS)
    sink.open()
    print("before")  # noqa: T201
    sink.write(frames(number=7))
    sink.close()
    sink.close()
    before, line = capfdbinary.readouterr().out.splitlines()
    assert before == b"before"
    assert json.loads(line)["frame"] == 7
    assert sink.name == "stdout"


def test_a_missing_folder_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; make it: mkdir -p"):
        JsonLinesSink(tmp_path / "nowhere" / "results.jsonl", OPTIONS)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UsageError, match="no regular file"):
        JsonLinesSink(tmp_path / "pipe.jsonl", OPTIONS)
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN  # Python's own: EFBIG is an error like others
