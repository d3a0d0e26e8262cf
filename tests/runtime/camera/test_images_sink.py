"""Pictures as image files."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_frames import FrameMaker, noise, picture

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks.images import ImagesSink
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.errors import DataError, UsageError


def opened(folder: Path, **changes: object) -> ImagesSink:
    sink = ImagesSink(folder, SinkOptions(**({"min_free_bytes": 0} | changes)))  # type: ignore[arg-type]
    sink.open()
    return sink


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def numbers(folder: Path) -> list[int]:
    return [int(Path(name).stem.split("-")[2]) for name in names(folder)]


def test_each_frame_is_a_file_named_after_its_source_its_time_and_its_number(
    frames: FrameMaker, tmp_path: Path
) -> None:
    sink = opened(tmp_path / "new" / "folder", format="png")
    given = [frames(number=n, at=n * 0.25) for n in range(3)]
    for frame in given:
        sink.write(frame)
    sink.close()
    assert names(tmp_path / "new" / "folder") == [
        "cam-20270115T080000.000Z-00000000.png",
        "cam-20270115T080000.250Z-00000001.png",
        "cam-20270115T080000.500Z-00000002.png",
    ]
    for frame, name in zip(given, names(tmp_path / "new" / "folder"), strict=True):
        read = cv2.imread(str(tmp_path / "new" / "folder" / name))
        np.testing.assert_array_equal(read, frame.picture())


def test_jpeg_is_close_and_its_quality_counts(frames: FrameMaker, tmp_path: Path) -> None:
    sizes = []
    for quality in (30, 95):
        opened(tmp_path / str(quality), quality=quality, bare=True).write(frames())
        (path,) = (tmp_path / str(quality)).iterdir()
        assert path.suffix == ".jpg"
        assert np.abs(cv2.imread(str(path)).astype(int) - picture(0)).mean() < 6
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1] / 1.5


def test_one_in_so_many_seconds_of_each_source(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=1)
    for n in range(40):  # ten a second, with a pause of some seconds after the 29th
        for source in ("a", "b"):
            sink.write(frames(number=n, at=n / 10 + 0.03 * (source == "b") + 4.5 * (n > 29), source=source))
    written = {
        source: [n for name, n in zip(names(tmp_path), numbers(tmp_path), strict=True) if name[0] == source]
        for source in "ab"
    }
    assert written == {"a": [0, 10, 20, 30], "b": [0, 10, 20, 30]}


def test_a_rate_that_does_not_divide_the_camera_s_is_kept_on_average(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=0.25)
    for n in range(100):
        sink.write(frames(number=n, at=n / 10))
    assert len(names(tmp_path)) == 40


def test_of_a_file_it_is_the_seconds_of_the_file_however_fast_it_is_read(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=2)
    for n in range(50):  # five a second, read within 0.05 s
        sink.write(frames(number=n, at=n / 1000, position_s=n / 5))
    assert numbers(tmp_path) == [0, 10, 20, 30, 40]
    tenths = opened(tmp_path / "tenths", every_s=0.1)
    for n in range(30):
        tenths.write(frames(number=n, at=0, position_s=n / 10))
    assert numbers(tmp_path / "tenths") == list(range(30))


def test_a_film_that_begins_anew_goes_on_being_counted(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=6)
    for n in range(200):  # a film of 1 s, ten a second, for 20 s
        sink.write(frames(number=n, at=n / 10, position_s=n % 10 / 10))
    assert numbers(tmp_path) == [0, 60, 120, 180]


def test_a_film_that_is_read_fast_and_begins_anew_goes_on_at_its_rate(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=2)
    for n in range(150):  # five a second, read at once: rounds of 10 s
        sink.write(frames(number=n, at=0, position_s=n % 50 / 5))
    assert numbers(tmp_path) == list(range(0, 150, 10))


def test_times_that_jitter_are_one_time(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=1)
    jitter = np.random.default_rng(0).normal(0, 0.03, 100)
    for n in range(100):  # thirty a second
        sink.write(frames(number=n, at=10 + n / 30 + jitter[n]))
    assert len(names(tmp_path)) == 4


def test_only_where_something_happened(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, on_events=True)
    for n in range(6):
        sink.write(frames(number=n, events=("red",) if n in (2, 5) else ()))
    assert numbers(tmp_path) == [2, 5]


def test_a_frame_on_which_something_happened_comes_in_between(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, every_s=1)
    for n in range(15):
        sink.write(frames(number=n, events=("red",) if n == 3 else ()))
    assert numbers(tmp_path) == [0, 3, 10]


def test_a_frame_that_comes_once_more_with_events_is_one_file(frames: FrameMaker, tmp_path: Path) -> None:
    every, eventful = opened(tmp_path / "every"), opened(tmp_path / "eventful", on_events=True)
    given = [frames(number=n, events=("red",) if n == 1 else ()) for n in range(4)]
    for frame in (given[0], given[1], replace(given[1], again=True), given[2], given[3]):
        every.write(frame)
        eventful.write(frame)
    last = replace(frames(number=3, events=("blue",)), again=True)  # it had no event before
    every.write(last)
    eventful.write(last)
    assert numbers(tmp_path / "every") == [0, 1, 2, 3]
    assert numbers(tmp_path / "eventful") == [1, 3]


def test_nothing_is_overwritten_unless_that_was_asked_for(frames: FrameMaker, tmp_path: Path) -> None:
    for _ in range(2):
        opened(tmp_path).write(frames())
    assert names(tmp_path) == ["cam-20270115T080000.000Z-00000000-1.jpg", "cam-20270115T080000.000Z-00000000.jpg"]
    opened(tmp_path, overwrite=True).write(frames())
    assert len(names(tmp_path)) == 2


def test_the_oldest_make_room_those_of_earlier_runs_too(frames: FrameMaker, tmp_path: Path) -> None:
    (tmp_path / "cam-holiday.jpg").touch()
    for run in range(2):
        sink = opened(tmp_path, keep=3)
        for n in range(5):
            for source in ("cam", "cam-20270115T080000.000Z"):
                sink.write(frames(number=n, at=10 * run + n, source=source))
    assert "cam-holiday.jpg" in names(tmp_path)
    kept = [name for name in names(tmp_path) if name != "cam-holiday.jpg"]
    assert len(kept) == 6
    assert [name[:19] for name in kept if name.count("-") == 2] == [f"cam-20270115T0800{s}" for s in (12, 13, 14)]


@pytest.mark.parametrize("source", ["../../etc/passwd", "a/b", "x" * 300, "\0\n", "Kamera vor der Tür", "\udcff"])
def test_a_source_s_name_stays_in_the_folder(frames: FrameMaker, tmp_path: Path, source: str) -> None:
    sink = opened(tmp_path / "folder")
    sink.write(frames(source=source))
    sink.write(frames(source=source + "."))
    assert len(names(tmp_path / "folder")) == 2
    assert names(tmp_path) == ["folder"]


def test_a_file_that_may_not_grow_ends_it_and_leaves_no_half_a_file(frames: FrameMaker, tmp_path: Path) -> None:
    sink = opened(tmp_path, format="png", bare=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(SinkEndedError, match="cannot grow: File too large"):
            sink.write(frames(noise(0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_too_little_room_ends_it(tmp_path: Path) -> None:
    with pytest.raises(SinkEndedError, match="are to stay free"):
        opened(tmp_path, min_free_bytes=1 << 60)


def test_a_picture_that_jpeg_cannot_hold_is_one_line(frames: FrameMaker, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a picture of 65600 x 16 pixels does not fit jpg"):
        opened(tmp_path, bare=True).write(frames(np.zeros((16, 65600, 3), np.uint8)))


def test_a_folder_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file; choose another folder"):
        ImagesSink(tmp_path / "file" / "images", SinkOptions())
