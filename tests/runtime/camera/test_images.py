"""Images as a source: one frame each, in the order in which people count."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import BrokenFrameError
from gapcam.camera.sources import image_files, pace
from gapcam.camera.sources.image_files import ImageFiles
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.errors import DataError


class Clock:
    """Stands still but for what is waited: no other program makes it later. In the places of `time` and `Event`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(image_files, "Event", lambda: clock)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images whose grey value is ten times their number."""
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((48, 64, 3), 10 * number, np.uint8))
    return tmp_path


def opened(where: Path | str, **options: object) -> ImageFiles:
    source = ImageFiles(str(where), name="photos", options=SourceOptions(**options))  # type: ignore[arg-type]
    source.open()
    return source


def read(source: ImageFiles, at_most: int = 100) -> list[SourceFrame | str]:
    """Frames, and what was said of broken ones."""
    found: list[SourceFrame | str] = []
    while len(found) < at_most:
        try:
            frame = source.read()
        except BrokenFrameError as error:
            found.append(str(error))
            continue
        if frame is None:
            break
        found.append(frame)
    return found


def numbers(found: list[SourceFrame | str]) -> list[int]:
    return [int(frame.image[0, 0, 0]) // 10 for frame in found if isinstance(frame, SourceFrame)]


@pytest.mark.parametrize("pattern", ["", "*.png", "frame*"])
def test_two_comes_before_ten(folder: Path, pattern: str) -> None:
    frames = read(opened(folder / pattern))
    assert numbers(frames) == list(range(12))


def test_they_come_as_fast_as_they_are_read_unless_a_rate_is_given(folder: Path, clock: Clock) -> None:
    source = opened(folder)
    assert not source.paced
    frames = read(source)
    assert {frame.taken_at for frame in frames} == {clock.now} == {100}  # type: ignore[union-attr]
    assert [frame.position_s for frame in frames] == list(range(12))  # type: ignore[union-attr]
    source = opened(folder, fps=40)
    assert source.paced
    frames = read(source)
    taken_at = [frame.taken_at for frame in frames]  # type: ignore[union-attr]
    assert taken_at == pytest.approx([100 + number / 40 for number in range(12)])
    assert frames[4].position_s == pytest.approx(0.1)  # type: ignore[union-attr]
    assert not ImageFiles(str(folder), name="", options=SourceOptions(fps=40, pace=False)).paced


def test_no_frame_is_early_after_a_first_one_that_was_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    ticks = iter([0.0, 2.0])  # somebody else has the processor while the first one is looked at

    def held_up() -> float:
        clock.now += next(ticks, 0.0)
        return clock.now

    monkeypatch.setattr(clock, "monotonic", held_up)
    monkeypatch.setattr(pace, "time", clock)
    waits = pace.Pace(clock)  # type: ignore[arg-type]
    taken_at = [waits.wait_for(number / 20) for number in range(20)]
    assert all(at >= taken_at[0] + number / 20 - 1e-9 for number, at in enumerate(taken_at))


def test_each_is_a_picture_of_its_own_unless_a_rate_makes_them_a_film(folder: Path) -> None:
    for options, still in (
        ({}, True),
        ({"pace": True}, True),
        ({"fps": 40}, False),
        ({"fps": 9, "pace": False}, False),
    ):
        frame = opened(folder, **options).read()
        assert frame is not None
        assert frame.still is still, options


def test_an_image_that_cannot_be_read_is_named_and_the_rest_comes(folder: Path) -> None:
    data = (folder / "frame3.png").read_bytes()
    (folder / "frame3.png").write_bytes(data[: len(data) // 2])
    (folder / "frame7.png").write_bytes(b"")
    found = read(opened(folder))
    assert numbers(found) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert isinstance(found[3], str)
    assert "frame3.png is a PNG file that is cut off" in found[3]
    assert isinstance(found[7], str)
    assert "frame7.png is empty" in found[7]


def test_a_loop_and_a_beginning(folder: Path) -> None:
    assert numbers(read(opened(folder, loop=True), at_most=30)) == [n % 12 for n in range(30)]
    assert numbers(read(opened(folder, seek_s=2, fps=5, pace=False))) == [10, 11]
    assert numbers(read(opened(folder, seek_s=2, fps=5, pace=False, loop=True), at_most=5)) == [10, 11, 10, 11, 10]
    with pytest.raises(DataError, match="has 12 images"):
        opened(folder, seek_s=12)


def test_a_loop_over_nothing_good_ends(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert len(read(opened(tmp_path, loop=True))) == 1


def test_images_of_different_sizes_come_as_they_are_or_as_asked(folder: Path) -> None:
    cv2.imwrite(str(folder / "frame1.png"), np.full((30, 20, 3), 10, np.uint8))
    shapes = [frame.image.shape[:2] for frame in read(opened(folder))[:3]]  # type: ignore[union-attr]
    assert shapes == [(48, 64), (30, 20), (48, 64)]
    shapes = [frame.image.shape[:2] for frame in read(opened(folder, size=(40, 24), rotate=90))]  # type: ignore[union-attr]
    assert shapes == [(40, 24)] * 12


def test_what_has_no_images_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        opened(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        opened(tmp_path / "*.png")


def test_what_is_not_there_is_said_without_options_that_a_camera_lacks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images") as raised:
        opened(tmp_path)
    assert "--recursive" not in str(raised.value)
    with pytest.raises(DataError, match=r"there is no file .*absent\.png"):
        opened(tmp_path / "absent.png")
