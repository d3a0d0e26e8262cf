"""Video files as sources: every frame, in order, upright, at its time; damage is said and counted."""

from __future__ import annotations

import os
import random
import re
import struct
import threading
import time
import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from camera_servers.stamped_frame import read_stamp, stamped_frame
from planned_camera import eventually
from written_videos import number_of, write_video

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError, SourceLostError
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.video_file import VideoFile
from gapcam.errors import DataError


def opened(path: Path, **options: Any) -> VideoFile:
    options.setdefault("pace", False)
    source = VideoFile(str(path), name="film", options=SourceOptions(**options))
    source.open()
    return source


def read_all(source: VideoFile, at_most: int = 1000) -> tuple[list[SourceFrame], list[str]]:
    """The frames, and what was said of those that were broken."""
    frames: list[SourceFrame] = []
    broken: list[str] = []
    while len(frames) + len(broken) < at_most:
        try:
            frame = source.read()
        except BrokenFrameError as error:
            broken.append(str(error))
            continue
        if frame is None:
            break
        frames.append(frame)
    return frames, broken


def numbers(frames: list[SourceFrame]) -> list[int | None]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264.mp4", {}),
        ("b-frames.mp4", {"options": {"bf": "3"}}),
        ("h264.mkv", {"audio": True}),
        ("h264.ts", {}),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("ten-bits.mkv", {"pix_fmt": "yuv420p10le"}),
        ("4-4-4.mkv", {"pix_fmt": "yuv444p", "size": (321, 243)}),
        ("alpha.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
        ("alpha.mkv", {"codec": "ffv1", "pix_fmt": "bgra"}),
        ("interlaced.mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1", "bf": "0"}}),
        ("grey.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("film 10:30 #1.mp4", {}),
    ],
)
def test_every_frame_comes_once_and_in_order(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    source = opened(write_video(tmp_path / name, **settings))
    frames, broken = read_all(source)
    assert broken == []
    assert numbers(frames) == list(range(30))
    width, height = settings.get("size", (320, 240))
    assert all(frame.image.shape == (height, width, 3) for frame in frames)
    assert all(frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous for frame in frames)
    positions = [frame.position_s for frame in frames]
    assert positions == pytest.approx([n / 30 for n in range(30)], abs=0.002)
    source.close()
    source.close()


def test_colours_are_those_that_were_written(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 1, codec="ffv1", pix_fmt="bgra")
    (frame,), _ = read_all(opened(path))
    assert np.array_equal(frame.image, stamped_frame(0, 320, 240, time_ms=0))


def test_frames_that_came_unevenly_keep_their_times(tmp_path: Path) -> None:
    times_ms = [0, 40, 50, 250, 260, 400]
    frames, _ = read_all(opened(write_video(tmp_path / "a.mkv", 6, times_ms=times_ms)))
    assert [frame.position_s for frame in frames] == pytest.approx([ms / 1e3 for ms in times_ms], abs=0.002)


@pytest.mark.parametrize("times_ms", [None, [0, 40, 50, 250, 260, 400, 410, 420, 430, 600]])
def test_a_file_is_played_in_its_own_time(tmp_path: Path, times_ms: list[int] | None) -> None:
    path = write_video(tmp_path / "a.mkv", 10, fps=20, times_ms=times_ms)
    source = opened(path, pace=None)
    assert source.paced
    began = time.monotonic()
    frames, _ = read_all(source)
    positions = np.array([frame.position_s for frame in frames])
    taken = np.array([frame.taken_at for frame in frames])
    assert positions[-1] > 0.4
    assert np.all(taken - began - (positions - positions[0]) > -0.005)
    assert np.median(np.diff(taken) - np.diff(positions)) < 0.03


def test_another_rate_paces_a_file_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 10, fps=10)
    source = opened(path, pace=None, fps=50)
    began = time.monotonic()
    frames, _ = read_all(source)
    taken = np.array([frame.taken_at for frame in frames])
    assert np.all(taken - began > np.arange(10) / 50 - 0.005)
    assert np.median(np.diff(taken)) < 0.05
    assert frames[-1].position_s == pytest.approx(0.9, abs=0.002)


def test_who_reads_too_slowly_is_not_flooded_later(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.mkv", 12, fps=20), pace=None)
    source.read()
    time.sleep(1.0)
    frames, _ = read_all(source)
    assert frames[-1].taken_at - frames[0].taken_at > 0.4  # 10 intervals of 50 ms


def test_a_loop_goes_on_without_a_seam(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.mp4", 6, fps=20), loop=True, pace=None)
    began = time.monotonic()
    frames, _ = read_all(source, at_most=15)
    assert numbers(frames) == [n % 6 for n in range(15)]
    assert [frame.position_s for frame in frames[6:9]] == pytest.approx([0, 0.05, 0.1], abs=0.002)
    taken = np.array([frame.taken_at for frame in frames])
    assert np.all(taken - began > np.arange(15) / 20 - 0.005)
    waits = np.diff(taken)
    assert np.median(waits) < 0.07
    assert min(waits[5], waits[11]) < 0.1  # at the two seams, of which a busy machine may hold one up


def test_seek_begins_at_the_frame_of_that_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    frames, _ = read_all(opened(path, seek_s=1.5))  # between two key frames
    assert numbers(frames) == list(range(45, 60))
    assert frames[0].position_s == pytest.approx(1.5, abs=0.002)
    frames, _ = read_all(opened(path, seek_s=1.5, loop=True), at_most=31)
    assert numbers(frames) == [45 + n % 15 for n in range(31)]


_OPEN = "open-gop=1:keyint=20:min-keyint=20:scenecut=0:bframes=3"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"x264-params": _OPEN}),
        ("libx264", {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}),  # and no key frame but the first
        ("libx265", {"x265-params": f"{_OPEN}:log-level=none"}),
    ],
    ids=["open", "refreshed", "hevc"],
)
def test_seek_finds_each_frame_where_groups_of_pictures_are_open(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 90, codec=codec, options=options)
    for number in (1, 19, 20, 21, 37, 38, 39, 40, 41, 59, 75, 89):
        # Past the next key frame, 20 frames on at most, all are decoded as without a seek.
        frames, broken = read_all(opened(path, seek_s=number / 30 - 0.001), at_most=30)
        assert numbers(frames) == list(range(number, 90))[:30]
        assert broken == []
        assert frames[0].position_s == pytest.approx(number / 30, abs=0.002)
    frames, broken = read_all(opened(path, seek_s=2.0, loop=True), at_most=65)
    assert numbers(frames) == [60 + n % 30 for n in range(65)]


def test_seek_finds_a_position_between_two_frames_far_apart(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 5, times_ms=[0, 40, 9000, 30_000, 30_040])
    for seek_s, first in ((0.02, 1), (5.0, 2), (9.0, 2), (20.0, 3), (30.02, 4)):
        frames, broken = read_all(opened(path, seek_s=seek_s))
        assert numbers(frames) == list(range(first, 5))
        assert broken == []


@pytest.mark.parametrize("seek_s", [0.0, 1.5])
def test_what_the_first_packet_alone_says_of_the_encoder_counts_after_a_seek_too(tmp_path: Path, seek_s: float) -> None:
    """FFmpeg: 4:4:4 video of x264 before build 151 is decoded otherwise. Here the name is not true, and it fails."""
    path = write_video(tmp_path / "a.mp4", 60, pix_fmt="yuv444p", options={"bf": "0", "coder": "cabac", "8x8dct": "1"})
    frames, _ = read_all(opened(path, seek_s=seek_s))
    assert len(frames) == 60 - 30 * seek_s
    path.write_bytes(re.sub(rb"x264 - core 1\d\d", b"x264 - core 142", path.read_bytes()))
    with pytest.raises(DataError, match="has no frame that can be read"):
        read_all(opened(path, seek_s=seek_s))


def test_seek_in_a_film_from_the_web_shows_what_is_there(data: Path) -> None:
    path = data / "video" / "cockatoo.mp4"
    all_frames, _ = read_all(opened(path))
    frames, broken = read_all(opened(path, seek_s=6.0))
    assert broken == []
    assert [frame.position_s for frame in frames] == [frame.position_s for frame in all_frames[120:]]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, all_frames[120:], strict=True))


def test_damage_before_the_position_is_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 60)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    at = packets[32][0] + packets[32][1] // 2
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    _, broken = read_all(opened(path))
    assert broken
    frames, broken = read_all(opened(path, seek_s=1.0 + 12 / 30))
    assert numbers(frames) == list(range(42, 60))
    assert broken == []


def test_a_file_that_was_cut_out_of_the_middle_of_another_begins_with_its_first_whole_frame(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.ts", 90, options={"x264-params": _OPEN})
    path = tmp_path / "cut.ts"
    data = whole.read_bytes()
    path.write_bytes(data[len(data) // 3 // 188 * 188 :])
    frames, _ = read_all(opened(path))
    found = numbers(frames)
    assert found[0] in (20, 40)
    assert found == list(range(found[0], 90))


def test_a_closed_file_leaves_no_thread(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    before = own_tasks()
    source = opened(path)
    source.read()
    started = own_tasks() - before
    assert started or os.cpu_count() == 1  # the decoder's
    source.close()
    eventually(lambda: not started & own_tasks())  # the system's list may be a moment behind


def own_tasks() -> set[str]:
    """The threads that the system knows of this process."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_rounds_from_a_position_on_follow_each_other_at_the_film_s_pace(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 30, fps=20)
    source = opened(path, pace=None, loop=True, seek_s=1.3)
    began = time.monotonic()
    frames, _ = read_all(source, at_most=13)
    source.close()
    assert numbers(frames) == [26 + n % 4 for n in range(13)]
    taken = np.array([frame.taken_at for frame in frames])
    assert np.all(taken - began - np.arange(13) / 20 > -0.005)  # three rounds of 0.2 s
    assert np.median(np.diff(taken)) < 0.08


def test_seek_beyond_the_end_is_said(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    with pytest.raises(DataError, match=r"is 1\.0 s long; seek is 20"):
        opened(path, seek_s=20)


def test_a_phones_film_is_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 240 << 16, 0, 1 << 30)  # (x, y) is shown at (240 - y, x)
    data[matrix : matrix + 36] = struct.pack(">9i", *turned)
    path.write_bytes(data)
    frames, _ = read_all(opened(path))
    assert frames[1].image.shape == (320, 240, 3)
    stamp = read_stamp(cv2.rotate(frames[1].image, cv2.ROTATE_90_COUNTERCLOCKWISE))
    assert stamp is not None
    assert stamp.number == 1
    frames, _ = read_all(opened(path, rotate=270))  # and what is asked for comes on top
    assert numbers(frames) == [0, 1, 2]


@pytest.mark.parametrize(
    ("rotate", "back"),
    [(90, cv2.ROTATE_90_COUNTERCLOCKWISE), (180, cv2.ROTATE_180), (270, cv2.ROTATE_90_CLOCKWISE)],
)
def test_frames_are_scaled_then_rotated(tmp_path: Path, rotate: int, back: int) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    (_, frame), _ = read_all(opened(path, size=(160, 120), rotate=rotate))
    upright = cv2.rotate(frame.image, back)
    assert upright.shape == (120, 160, 3)
    stamp = read_stamp(upright)
    assert stamp is not None
    assert stamp.number == 1


def test_a_change_of_size_amid_a_file_changes_the_frames(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{w}.ts", 10, size=(w, h)) for w, h in ((320, 240), (640, 480))]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, broken = read_all(opened(path))
    assert [frame.image.shape[:2] for frame in frames] == [(240, 320)] * 10 + [(480, 640)] * 10
    assert numbers(frames) == [*range(10), *range(10)]
    assert broken == []


def test_damaged_frames_are_counted_and_never_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 90)
    data = bytearray(path.read_bytes())
    chance = random.Random(1)  # noqa: S311 - damage
    for _ in range(12):
        at = chance.randrange(2000, len(data) - 2000)
        data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(data)
    frames, broken = read_all(opened(path))
    assert len(broken) >= 3
    assert len(frames) >= 20
    shown = numbers(frames)
    assert None not in shown  # every frame that is shown is whole
    assert shown == sorted(shown)  # type: ignore[type-var]  # none is None
    assert all("damaged" in text for text in broken)


def test_a_jpeg_that_is_cut_off_is_broken_though_it_could_be_shown_with_a_grey_rest(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 6, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    ends = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xd9"]
    for at in range(ends[2] - 3000, ends[2] + 2):
        data[at] = 0x55
    path.write_bytes(data)
    frames, broken = read_all(opened(path))
    assert numbers(frames) == [0, 1, 3, 4, 5]
    assert len(broken) == 1


def test_a_file_that_was_cut_off_is_played_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, _ = read_all(opened(path))
    assert 15 < len(frames) < 45
    assert numbers(frames) == list(range(len(frames)))


def test_what_cannot_be_played_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = write_video(Path("a.mp4")).read_bytes()
    Path("cut.mp4").write_bytes(film[: len(film) // 2])  # its index was at the end
    Path("empty.mp4").touch()
    Path("text.mp4").write_text("no film at all\n" * 100)
    Path("folder").mkdir()
    with wave.open("sound.wav", "wb") as sound:
        sound.setparams((1, 2, 8000, 8000, "NONE", ""))
        sound.writeframes(bytes(16000))
    for name, why in {
        "cut.mp4": "cut.mp4 is not a video that FFmpeg can read, or it is cut off or damaged",
        "empty.mp4": "empty.mp4 is empty",
        "text.mp4": "text.mp4 is not a video that FFmpeg can read",
        "folder": "folder is a folder",
        "sound.wav": "sound.wav cannot be played: it has no video stream; it has audio",
        "none.mp4": "there is no file none.mp4",
        "/dev/null": "/dev/null is a pipe or a device",
    }.items():
        with pytest.raises(DataError) as raised:
            opened(Path(name))
        assert str(raised.value).startswith(why)
        assert "\n" not in str(raised.value)
        assert not isinstance(raised.value, SourceLostError)  # waiting would not help


def test_a_file_without_one_good_frame_ends_in_an_error_even_in_a_loop(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 3, codec="mjpeg", pix_fmt="yuvj420p")
    path.write_bytes(re.sub(rb"\xff\xd8\xff.*?\xff\xd9", _zeros, path.read_bytes(), flags=re.DOTALL))
    with pytest.raises(DataError, match="has no frame that can be read"):
        read_all(opened(path, loop=True))


def _zeros(found: re.Match[bytes]) -> bytes:
    return bytes(len(found.group()))


def test_an_interrupt_ends_the_wait_for_a_frame(tmp_path: Path) -> None:
    source = opened(write_video(tmp_path / "a.mkv", 2, times_ms=[0, 60_000]), pace=None)
    source.read()
    threading.Timer(0.2, source.interrupt).start()
    begin = time.monotonic()
    with pytest.raises(SourceLostError):
        read_all(source)  # whose wait ends gives its frame
    assert time.monotonic() - begin < 20  # not a minute


def test_reading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    test_damaged_frames_are_counted_and_never_shown(tmp_path)
    assert capfd.readouterr() == ("", "")
