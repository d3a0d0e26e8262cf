"""How long a source has been running: of a file as the file says, of a camera by the clock."""

from __future__ import annotations

import numpy as np
import pytest

from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.running_time import RunningTime

IMAGE = np.zeros((1, 1, 3), np.uint8)


def steps(frames: list[tuple[float, float | None]]) -> list[float]:
    """Of (taken_at, position_s) of each frame."""
    time = RunningTime()
    found = [
        time.add(CapturedFrame("door", number, IMAGE, taken_at, 1e9, position_s))
        for number, (taken_at, position_s) in enumerate(frames)
    ]
    assert time.seconds == pytest.approx(sum(found))
    return found


def test_of_a_file_it_does_not_matter_how_fast_it_is_read() -> None:
    assert steps([(7, 0.0), (7.5, 0.04), (7.6, 0.12)]) == pytest.approx([0, 0.04, 0.08])


def test_a_file_that_begins_anew_goes_on_at_its_own_rate() -> None:
    assert steps([(7, 9.5), (8, 9.54), (9, 0.0), (9.5, 0.04)]) == pytest.approx([0, 0.04, 0.04, 0.04])


def test_a_file_of_one_frame_goes_by_the_clock() -> None:
    assert steps([(7, 0.0), (7.5, 0.0), (9, 0.0)]) == pytest.approx([0, 0.5, 1.5])


def test_of_a_camera_stamps_that_jitter_never_go_back() -> None:
    assert steps([(7, None), (7.5, None), (7.4, None), (7.6, None)]) == pytest.approx([0, 0.5, 0, 0.1])
