"""`test://`: the same frames always, a clock that the network knows, and the truth about where it is."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import gapcam
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import SourceLostError
from gapcam.camera.sources.moving_clock import LABEL, MovingClock, number_in
from gapcam.camera.sources.source_options import SourceOptions


def opened(uri: str, **options: Any) -> MovingClock:
    options.setdefault("pace", False)
    source = MovingClock(uri, name="test", options=SourceOptions(**options))
    source.open()
    return source


def frames(source: MovingClock, at_most: int) -> list[SourceFrame]:
    found = [frame for frame in (source.read() for _ in range(at_most)) if frame is not None]
    assert all(frame.image.flags.c_contiguous and frame.image.dtype == np.uint8 for frame in found)
    return found


@pytest.mark.parametrize("size", ["1280x720", "640x480", "321x243", "64x64"])
def test_a_frame_carries_its_number_and_is_the_same_always(size: str) -> None:
    one, other = (frames(opened(f"test://?size={size}"), 40) for _ in range(2))
    assert [number_in(frame.image) for frame in one] == list(range(40))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0].image, one[1].image)
    width, height = map(int, size.split("x"))
    assert one[0].image.shape == (height, width, 3)


def test_the_number_survives_a_jpeg() -> None:
    for frame in frames(opened("test://?size=320x240"), 20)[-3:]:
        jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        assert number_in(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == number_in(frame.image)


def test_the_box_is_where_the_picture_differs_from_the_empty_wall() -> None:
    scene = "size=640x480&fps=2"
    source, empty = opened(f"test://?{scene}"), opened(f"test://?{scene}&absent=0-1000")
    for number, (frame, wall) in enumerate(zip(frames(source, 60), frames(empty, 60), strict=True)):
        rows, columns = np.nonzero((frame.image != wall.image).any(axis=2))
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        box = source.object_box(number)
        assert box is not None
        assert tuple(box) == pytest.approx(seen, abs=1)
        assert empty.object_box(number) is None


def test_the_clock_wanders_through_the_frame_and_is_never_cut_off() -> None:
    source = opened("test://?size=1280x720&fps=10")
    boxes = np.array([source.object_box(number) for number in range(2000)])
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 1280
    assert boxes[:, 3].max() <= 720
    assert boxes[:, 0].min() < 20
    assert boxes[:, 2].max() > 1260
    assert np.abs(np.diff(boxes, axis=0)).max() < 40  # a tenth of a second


def test_it_comes_and_goes_when_it_is_told_to() -> None:
    source = opened("test://?fps=10&size=64x64&absent=0.5-1,1.5-1.7&every=2")
    present = [source.scene.is_present(number) for number in range(40)]
    once = [True] * 5 + [False] * 5 + [True] * 5 + [False] * 2 + [True] * 3
    assert present == once + once


@pytest.mark.parametrize("size", ["1280x720", "640x480"])
def test_the_network_knows_the_clock_wherever_it_is(demo_model: Path, size: str) -> None:
    source, empty = opened(f"test://?size={size}&fps=1"), opened(f"test://?size={size}&absent=0-9")
    with gapcam.load(demo_model) as session:
        for frame in frames(source, 40):
            best = session(frame.image).top[0]
            assert best.label == LABEL
            assert best.score > 0.5
        assert session(frames(empty, 1)[0].image).top[0].score < 0.2


def test_it_ends_loops_and_begins_where_it_is_asked_to() -> None:
    uri = "test://?size=64x64&frames=10&fps=5"
    assert [number_in(frame.image) for frame in frames(opened(uri), 99)] == list(range(10))
    looped = frames(opened(uri, loop=True, seek_s=1), 12)
    assert [number_in(frame.image) for frame in looped] == [5 + n % 5 for n in range(12)]
    assert [frame.position_s for frame in looped[:3]] == pytest.approx([1.0, 1.2, 1.4])


def test_the_uri_comes_over_the_options() -> None:
    scene = opened("test://?size=64x80", size=(100, 100), fps=7).scene
    assert (scene.size, scene.fps) == ((64, 80), 7)


def test_rotation_turns_the_frame() -> None:
    (plain,), (turned,) = frames(opened("test://?size=128x64"), 1), frames(opened("test://?size=128x64", rotate=90), 1)
    assert np.array_equal(turned.image, cv2.rotate(plain.image, cv2.ROTATE_90_CLOCKWISE))


def test_frames_come_at_their_rate_and_an_interrupt_ends_the_wait() -> None:
    source = opened("test://?size=64x64&fps=50", pace=None)
    assert source.paced
    began = time.monotonic()
    taken = np.array([frame.taken_at for frame in frames(source, 21)])
    assert np.all(taken - began > np.arange(21) / 50 - 0.005)
    assert np.median(np.diff(taken)) < 0.035  # the most part of them, on however busy a machine
    source.interrupt()
    with pytest.raises(SourceLostError, match="interrupted"):
        source.read()


def test_what_frames_share_takes_little_more_memory_than_a_frame() -> None:
    tracemalloc.start()
    try:
        opened("test://?size=1024x1024")
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 1024 * 1024 * 3
    finally:
        tracemalloc.stop()


def test_a_frame_of_720_lines_is_drawn_in_two_milliseconds() -> None:
    source = opened("test://?size=1280x720")
    times = []
    for _ in range(60):
        begin = time.thread_time()
        source.read()
        times.append(time.thread_time() - begin)
    # The least of many: a busy machine makes it slower, nothing makes it faster.
    assert min(times) < 2e-3
