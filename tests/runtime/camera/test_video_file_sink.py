"""Recorded videos, played back by two players: PyAV and OpenCV."""

from __future__ import annotations

import logging
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from camera_frames import BEGAN, LONG_AGO, FrameMaker, noise, picture

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks import full_disk, video_encoder
from gapcam.camera.sinks.full_disk import FreeSpace
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.video_encoder import Encoder, encoder_for
from gapcam.camera.sinks.video_file import LONGEST_PAUSE_S, VideoFileSink
from gapcam.camera.sinks.whole_writes import WholeWrites
from gapcam.errors import UsageError

RECORDER = Path(__file__).parents[1] / "record_video.py"
TICK_S = 1 / 60_000


def played(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds and pictures, decoded by PyAV."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(frame.time) for frame in frames], [frame.to_ndarray(format="bgr24") for frame in frames]


def length_s(path: Path) -> float:
    """As the file says."""
    with av.open(str(path)) as container:
        return float(container.duration or 0) / av.time_base


def frames_for_opencv(path: Path) -> int:
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    video.release()
    return count


def options(**changes: object) -> SinkOptions:
    return SinkOptions(**({"min_free_bytes": 0} | changes))  # type: ignore[arg-type]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[VideoFileSink]:
    opened = VideoFileSink(tmp_path / "out.mp4", options())
    opened.open()
    yield opened
    opened.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_every_frame_is_played_back_when_it_was_taken_and_as_it_was(
    frames: FrameMaker, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out.{suffix}"
    recording = VideoFileSink(path, options())
    recording.open()
    moments = np.cumsum([0, 0.1, 0.033, 0.5, 0.067, *[0.1] * 35]).tolist()
    given = [frames(picture(n), number=n, at=at) for n, at in enumerate(moments)]
    for frame in given:
        recording.write(frame)
    recording.close()
    times, pictures = played(path)
    # Matroska has milliseconds.
    assert times == pytest.approx(moments, abs=2 * TICK_S if suffix == "mp4" else 0.6e-3)
    for frame, shown in zip(given, pictures, strict=True):
        assert np.abs(frame.picture().astype(int) - shown).mean() < 4  # the codec's loss
    assert frames_for_opencv(path) == len(given)
    assert names(tmp_path) == [path.name]


def test_it_is_h264_with_an_index_and_the_time_at_which_it_began(frames: FrameMaker, sink: VideoFileSink) -> None:
    for n in range(25):
        sink.write(frames(number=n, at=n / 5))
    sink.close()
    path = Path(sink.name)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].frames == 25  # of the index: fragments alone do not say
        assert container.metadata["creation_time"].startswith("2027-01-15T08:00:00")
        assert BEGAN == 1_800_000_000
        keys = [float(frame.time) for frame in container.decode(video=0) if frame.key_frame]
    assert keys == pytest.approx([0, 1, 2, 3, 4], abs=2 * TICK_S)


def test_colours_are_those_of_the_frame_in_players_that_heed_the_tags(frames: FrameMaker, sink: VideoFileSink) -> None:
    # Wide, so that a player that guessed would take the matrix of HD.
    image = np.zeros((720, 1280, 3), np.uint8)
    image[:, :640], image[:, 640:] = (30, 40, 220), (40, 200, 60)
    for n in range(3):
        sink.write(frames(image, number=n))
    sink.close()
    with av.open(sink.name) as container:
        assert container.streams.video[0].codec_context.colorspace == 6  # BT.601, as OpenCV converts
    _, (first, *_) = played(Path(sink.name))
    expected = frames(image).picture()
    for x in (300, 1000):
        assert first[600, x].astype(int) == pytest.approx(expected[600, x].astype(int), abs=8)


@pytest.mark.parametrize(("height", "width"), [(121, 160), (120, 161), (33, 47)])
def test_odd_sides_get_one_more_row_or_column(frames: FrameMaker, tmp_path: Path, height: int, width: int) -> None:
    recording = VideoFileSink(tmp_path / "out.mp4", options(bare=True))
    for n in range(3):
        recording.write(frames(picture(n, height, width), number=n))
    recording.close()
    _, pictures = played(tmp_path / "out.mp4")
    assert [shown.shape[:2] for shown in pictures] == [(height + height % 2, width + width % 2)] * 3
    assert np.abs(picture(0, height, width).astype(int) - pictures[0][:height, :width]).mean() < 4
    assert np.abs(pictures[0][-1].astype(int) - pictures[0][-2]).mean() < 4
    assert np.abs(pictures[0][:, -1].astype(int) - pictures[0][:, -2]).mean() < 4


def test_without_map_boxes_and_caption_it_is_the_camera_s_picture(frames: FrameMaker, tmp_path: Path) -> None:
    recording = VideoFileSink(tmp_path / "out.mp4", options(bare=True))
    recording.write(frames(picture(0)))
    recording.close()
    _, (shown,) = played(tmp_path / "out.mp4")
    assert np.abs(picture(0).astype(int) - shown).mean() < 4
    assert np.abs(frames(picture(0)).picture().astype(int) - shown).mean() > 20


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_last_frame_of_each_file_is_seen_as_long_as_the_others(
    frames: FrameMaker, tmp_path: Path, suffix: str
) -> None:
    recording = VideoFileSink(tmp_path / f"out.{suffix}", options(segment_s=3))
    for n in range(20):
        recording.write(frames(number=n, at=n / 1000, position_s=n / 2))
    recording.close()
    assert names(tmp_path) == [*(f"out.{n:04d}.{suffix}" for n in (1, 2, 3)), f"out.{suffix}"]
    lengths = [length_s(tmp_path / name) for name in names(tmp_path)]
    assert lengths == pytest.approx([3, 3, 1, 3], abs=1e-3)
    if suffix == "mp4":  # how OpenCV counts
        video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) / video.get(cv2.CAP_PROP_FPS) == pytest.approx(3)
        video.release()


def test_a_picture_alone_in_its_file_is_seen_until_the_next_one(frames: FrameMaker, tmp_path: Path) -> None:
    recording = VideoFileSink(tmp_path / "out.mp4", options())
    for n in range(4):
        recording.write(frames(picture(n, 120, 160 + 8 * n), number=n, at=n / 1000, position_s=n / 2))
    recording.close()
    assert [length_s(path) for path in tmp_path.iterdir()] == pytest.approx([0.5] * 4, abs=1e-3)
    alone = VideoFileSink(tmp_path / "alone.mp4", options())
    alone.write(frames(position_s=0.0))
    alone.close()
    assert length_s(tmp_path / "alone.mp4") == pytest.approx(1, abs=1e-3)


def test_a_live_recording_has_no_tail_after_a_stall_nor_beyond_its_end(frames: FrameMaker, tmp_path: Path) -> None:
    stalled = VideoFileSink(tmp_path / "stalled.mp4", options())
    for n, at in enumerate([0, 0.1, 0.2, 0.3, 8.3]):
        stalled.write(frames(number=n, at=at))
    stalled.close()
    assert length_s(tmp_path / "stalled.mp4") == pytest.approx(8.4, abs=1e-3)
    slow = VideoFileSink(tmp_path / "slow.mp4", options())
    now = time.monotonic() - LONG_AGO
    for n in range(3):  # a stamp that is ahead of the clock, so that no time at all is left until the end
        slow.write(frames(number=n, at=now + 10 * n))
    slow.close()
    assert length_s(tmp_path / "slow.mp4") == pytest.approx(20, abs=2e-3)


def test_a_long_pause_is_shortened(frames: FrameMaker, sink: VideoFileSink) -> None:
    for n, at in enumerate([0, 1, 3601, 3602]):
        sink.write(frames(number=n, at=at))
    sink.close()
    assert played(Path(sink.name))[0] == pytest.approx([0, 1, 1 + LONGEST_PAUSE_S, 2 + LONGEST_PAUSE_S], abs=1e-4)


def test_frames_of_a_file_are_as_far_apart_as_in_that_file(frames: FrameMaker, sink: VideoFileSink) -> None:
    # Read faster than it was recorded; it begins anew after the third frame.
    for n, (at, position) in enumerate([(0, 5.0), (0.001, 5.5), (0.002, 6.0), (0.102, 0.0), (0.103, 0.5)]):
        sink.write(frames(number=n, at=at, position_s=position))
    sink.close()
    assert played(Path(sink.name))[0] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0], abs=1e-4)


def test_times_that_jitter_do_not_make_it_longer(frames: FrameMaker, sink: VideoFileSink) -> None:
    for n in range(40):  # twenty a second, every fourth stamp 0.1 s early
        sink.write(frames(number=n, at=1 + n / 20 - 0.1 * (n % 4 == 2)))
    sink.close()
    assert played(Path(sink.name))[0][-1] == pytest.approx(39 / 20, abs=0.02)


def test_frames_taken_at_the_same_moment_are_all_kept_in_their_order(frames: FrameMaker, sink: VideoFileSink) -> None:
    for n in range(5):
        sink.write(frames(number=n, at=1.0))
    sink.close()
    assert len(played(Path(sink.name))[0]) == 5


def test_a_frame_that_comes_once_more_is_recorded_once(frames: FrameMaker, sink: VideoFileSink) -> None:
    given = [frames(number=n) for n in range(3)]
    for frame in given:
        sink.write(frame)
    sink.write(replace(given[2], again=True))
    sink.write(replace(frames(number=3), again=True))  # the first time for this sink: it was too slow before
    sink.close()
    assert played(Path(sink.name))[0] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-4)


def test_another_size_begins_another_file(frames: FrameMaker, sink: VideoFileSink, tmp_path: Path) -> None:
    for n, width in enumerate([160, 160, 200, 160]):
        sink.write(frames(picture(n, 120, width), number=n))
    sink.close()
    assert names(tmp_path) == ["out.0001.mp4", "out.0002.mp4", "out.mp4"]
    widths = [[shown.shape[1] for shown in played(tmp_path / name)[1]] for name in ("out.mp4", "out.0001.mp4")]
    assert widths == [[160, 160], [200]]


def test_each_source_has_a_file_of_its_own(frames: FrameMaker, tmp_path: Path) -> None:
    recording = VideoFileSink(tmp_path / "out.mp4", options(sources=("front", "back/../door")))
    for n in range(4):
        for source in ("front", "back/../door", "somebody else"):
            recording.write(frames(picture(n), number=n, source=source))
    recording.close()
    assert names(tmp_path) == ["out.back%2F%2E%2E%2Fdoor.mp4", "out.front.mp4"]
    assert [len(played(path)[0]) for path in tmp_path.iterdir()] == [4, 4]


def test_a_second_source_that_nobody_announced_gets_its_name_in_the_file_s(
    frames: FrameMaker, sink: VideoFileSink, tmp_path: Path
) -> None:
    for n in range(2):
        for source in ("a", "b"):
            sink.write(frames(number=n, source=source))
    sink.close()
    assert names(tmp_path) == ["out.b.mp4", "out.mp4"]


def test_a_file_that_is_there_is_left_alone(frames: FrameMaker, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    (tmp_path / "out.0007.mp4").write_bytes(b"precious, too")
    for _ in range(2):
        recording = VideoFileSink(tmp_path / "out.mp4", options())
        recording.write(frames())
        recording.close()
    assert names(tmp_path) == ["out.0007.mp4", "out.0008.mp4", "out.0009.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    assert len(played(tmp_path / "out.0008.mp4")[0]) == 1


def test_it_is_replaced_where_that_was_asked_for_but_never_by_the_same_recording(
    frames: FrameMaker, tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    recording = VideoFileSink(tmp_path / "out.mp4", options(overwrite=True))
    for n in range(2):  # opened again, as after a failure
        recording.open()
        recording.write(frames(number=n))
        recording.close()
    assert names(tmp_path) == ["out.0001.mp4", "out.mp4"]
    assert [len(played(path)[0]) for path in tmp_path.iterdir()] == [1, 1]


def test_files_are_as_long_as_asked_for_and_the_oldest_make_room(frames: FrameMaker, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"an earlier run's")
    (tmp_path / "out.cam.mp4").write_bytes(b"something else")
    recording = VideoFileSink(tmp_path / "out.mp4", options(segment_s=2, keep=3))
    for n in range(45):
        recording.write(frames(number=n, at=n / 5))
    recording.close()
    # 9 seconds in files of 2: numbers 1 to 5, of which the last three stay
    assert names(tmp_path) == ["out.0003.mp4", "out.0004.mp4", "out.0005.mp4", "out.cam.mp4"]
    assert [len(played(tmp_path / f"out.000{n}.mp4")[0]) for n in (3, 4, 5)] == [10, 10, 5]


def test_files_that_replace_others_are_newer_than_they(frames: FrameMaker, tmp_path: Path) -> None:
    (tmp_path / "out.0009.mp4").write_bytes(b"an earlier run's")
    recording = VideoFileSink(tmp_path / "out.mp4", options(overwrite=True, keep=2, segment_s=1))
    recording.write(frames(number=0, at=0))
    assert names(tmp_path) == ["out.0009.mp4", "out.mp4"]
    for n in range(1, 4):
        recording.write(frames(number=n, at=n))
    recording.close()
    assert names(tmp_path) == ["out.0002.mp4", "out.0003.mp4"]


def test_a_missing_folder_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist; make it: mkdir -p"):
        VideoFileSink(tmp_path / "nowhere" / "out.mp4", options())
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        VideoFileSink(tmp_path / "file" / "out.mp4", options())
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(UsageError, match="no regular file"):
        VideoFileSink(tmp_path / "out.mp4", options())


def test_too_little_room_ends_it_before_the_disk_is_full(frames: FrameMaker, tmp_path: Path) -> None:
    recording = VideoFileSink(tmp_path / "out.mp4", options(min_free_bytes=1 << 60))
    with pytest.raises(SinkEndedError, match=r"MB left, and .* MB are to stay free"):
        recording.open()
    with pytest.raises(SinkEndedError):
        VideoFileSink(tmp_path / "out.mp4", options(min_free_bytes=1 << 60)).write(frames())
    assert names(tmp_path) == []


class Clock:
    """Seconds that the test counts."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_room_is_looked_for_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(full_disk, "time", clock)
    folder = tmp_path / "folder"
    folder.mkdir()
    space = FreeSpace(folder, 1)
    space.check()
    folder.rmdir()
    clock.now += 0.95
    space.check()
    clock.now += 0.1
    with pytest.raises(FileNotFoundError):
        space.check()


def test_an_encoder_that_is_listed_but_does_not_work_is_passed_over(
    frames: FrameMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine that tests has no video core; one that has would rightly take it.
    lost = Encoder("libx264", pixels="pal8")
    candidates = (Encoder("no_such_encoder"), lost, Encoder("mpeg4", bits_a_pixel=0.4), Encoder("mjpeg", "yuvj420p"))
    with caplog.at_level(logging.WARNING, "gapcam.camera"):
        assert encoder_for(160, 120, candidates).name == "mpeg4"
    assert [record.getMessage() for record in caplog.records] == [
        "no H.264 encoder works here: videos are recorded as mpeg4"
    ]
    with pytest.raises(SinkEndedError, match="no video encoder works for 160 x 120 pixels"):
        encoder_for(160, 120, candidates[:2])
    monkeypatch.setattr("gapcam.camera.sinks.video_file.encoder_for", lambda *size: encoder_for(*size, candidates))
    recording = VideoFileSink(tmp_path / "out.mp4", options())
    given = [frames(number=n) for n in range(20)]
    for frame in given:
        recording.write(frame)
    recording.close()
    times, pictures = played(tmp_path / "out.mp4")
    assert times == pytest.approx([n / 10 for n in range(20)], abs=1e-4)
    assert np.abs(given[-1].picture().astype(int) - pictures[-1]).mean() < 8


def test_every_fallback_makes_a_video_that_plays(
    frames: FrameMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [encoder for encoder in video_encoder.ENCODERS if video_encoder._encodes(encoder, 160, 120)]
    assert {"libx264", "mpeg4", "mjpeg"} <= {encoder.name for encoder in works}
    for encoder in works:
        monkeypatch.setattr("gapcam.camera.sinks.video_file.encoder_for", lambda *_, one=encoder: one)
        for suffix in ("mp4", "mkv"):
            recording = VideoFileSink(tmp_path / f"{encoder.name}.{suffix}", options())
            for n in range(10):
                recording.write(frames(number=n))
            recording.close()
            _, pictures = played(tmp_path / f"{encoder.name}.{suffix}")
            assert len(pictures) == 10
            assert length_s(tmp_path / f"{encoder.name}.{suffix}") == pytest.approx(1, abs=1e-3)
            assert np.abs(frames(number=9).picture().astype(int) - pictures[9]).mean() < 10


class Recorder:
    """`record_video.py`, running."""

    def __init__(self, path: Path, *arguments: object) -> None:
        command = [sys.executable, str(RECORDER), str(path), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def until(self, number: int) -> None:
        while (line := self.line()) != str(number):
            assert line, self.process.communicate()[1]

    def end(self) -> tuple[list[str], str]:
        """The rest of stdout, and stderr."""
        out, err = self.process.communicate(timeout=30)
        return out.split("\n"), err


@pytest.fixture
def recorders() -> Iterator[list[Recorder]]:
    started: list[Recorder] = []
    yield started
    for recorder in started:
        recorder.process.kill()
        recorder.process.wait()
        for stream in (recorder.process.stdout, recorder.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_is_killed_plays_but_for_its_last_second_or_so(
    tmp_path: Path, recorders: list[Recorder], suffix: str
) -> None:
    # Nothing moves: so few bytes that buffers would hold them for long.
    path, fps = tmp_path / f"out.{suffix}", 20
    recorders.append(recorder := Recorder(path, fps))
    recorder.until(70)
    recorder.process.kill()
    lines, _ = recorder.end()
    taken = max([70, *(int(line) for line in lines if line)]) + 1
    times, pictures = played(path)
    assert taken - 1.2 * fps - 2 <= len(times) <= taken + 1
    assert times == pytest.approx([n / fps for n in range(len(times))], abs=0.6e-3)
    assert np.abs(picture(0).astype(int) - pictures[-1]).mean() < 4
    assert abs(frames_for_opencv(path) - len(times)) <= 1


def test_what_is_terminated_is_complete(tmp_path: Path, recorders: list[Recorder]) -> None:
    recorders.append(recorder := Recorder(tmp_path / "out.mp4", 20))
    recorder.until(30)
    recorder.process.send_signal(signal.SIGTERM)
    lines, err = recorder.end()
    assert "terminated" in lines, err
    taken = max([30, *(int(line) for line in lines if line.isdecimal())]) + 1
    assert len(played(tmp_path / "out.mp4")[0]) == taken
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == taken


def test_a_file_that_may_not_grow_ends_the_recording_and_plays(tmp_path: Path, recorders: list[Recorder]) -> None:
    path = tmp_path / "out.mp4"
    recorders.append(recorder := Recorder(path, 20, 700_000))
    lines, err = recorder.end()
    assert any("cannot grow: File too large; nothing more is written there" in line for line in lines)
    assert recorder.process.returncode == 0
    taken = max(int(line) for line in lines if line.isdecimal()) + 1
    times, _ = played(path)
    plays = len(times) / 20
    assert re.fullmatch(rf"sink .*: {path} plays {plays:.2f} s of the \d\.\d\d s that were recorded\n", err)
    assert 0 < taken - len(times) <= 1.2 * 20
    assert frames_for_opencv(path) == len(times)
    assert 350_000 < path.stat().st_size <= 700_000


def test_after_a_write_that_failed_nothing_more_is_written(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "file").open("xb", buffering=0) as raw:
        file = WholeWrites(raw)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            with pytest.raises(OSError, match="File too large") as first:
                file.write(b"x" * 20)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with pytest.raises(OSError, match="File too large") as second:
            file.write(b"y")  # there would be room again
        assert first.value is second.value is file.broken
    assert (tmp_path / "file").read_bytes() == b"x" * 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts a small disk as Linux does")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"may not mount a small disk: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def written_until_it_ended(recording: VideoFileSink, frames: FrameMaker) -> int:
    for n in range(1000):
        try:
            recording.write(frames(noise(n), number=n))
        except SinkEndedError as error:  # noqa: PERF203 - one of them ends it
            assert "No space left on device" in str(error)  # noqa: PT017 - likewise
            return n
    raise AssertionError("it never ended")


def test_a_full_disk_ends_the_recording_and_what_is_there_plays(
    frames: FrameMaker, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = VideoFileSink(small_disk / "out.mp4", options(bare=True))
    taken = written_until_it_ended(recording, frames)
    recording.close()
    times, _ = played(small_disk / "out.mp4")
    # Ten frames a second: the last one is seen for a tenth.
    expected = f"out.mp4 plays {times[-1] + 0.1:.2f} s of the {taken / 10:.2f} s that were recorded"
    assert caplog.text.rstrip().endswith(expected)
    assert 0 < taken - len(times) <= 12
    assert frames_for_opencv(small_disk / "out.mp4") == len(times)


def test_a_disk_too_full_for_anything_is_left_without_a_broken_file(
    frames: FrameMaker, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (small_disk / "other").write_bytes(bytes((2 << 20) - (64 << 10)))
    recording = VideoFileSink(small_disk / "out.mp4", options(bare=True))
    assert written_until_it_ended(recording, frames) > 0
    recording.close()
    assert names(small_disk) == ["other"]
    assert re.search(r"out.mp4 plays 0.00 s of the \d.\d\d s that were recorded: it was removed", caplog.text)


def test_a_disk_that_fills_up_while_a_file_is_finished_leaves_what_plays(
    frames: FrameMaker, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = VideoFileSink(small_disk / "out.mp4", options(bare=True))
    for n in range(25):
        recording.write(frames(noise(n), number=n))
    with (small_disk / "other").open("wb", buffering=0) as other, suppress(OSError):
        while other.write(bytes(4096)):
            pass
    with caplog.at_level(logging.WARNING, "gapcam.camera"):
        recording.close()
    assert "could not be finished" in caplog.text
    times, _ = played(small_disk / "out.mp4")
    assert len(times) in (10, 20)
    assert f"out.mp4 plays {len(times) / 10:.2f} s of the 2.50 s that were recorded" in caplog.text
