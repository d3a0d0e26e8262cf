"""`test://`: a clock that moves over a wall, for demonstrations and tests. Where it is and whether is known exactly."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from threading import Event
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from gapcam.box import Box
from gapcam.camera.captured_frame import SourceFrame
from gapcam.camera.errors import SourceLostError
from gapcam.camera.option_text import number_from_text
from gapcam.camera.sources.pace import Pace
from gapcam.camera.sources.source_options import SourceOptions, size_from, whole_number_from
from gapcam.camera.sources.turned import turned
from gapcam.errors import UsageError
from gapcam.frame import Frame

SIZE, FPS = (1280, 720), 30.0
LABEL = "analog clock"
"""What ImageNet calls it."""

_BITS = 24
_RADIUS = 0.36  # of the shorter side
_INK = (20, 20, 20)
_KEYS = ("size", "fps", "frames", "absent", "every")


@dataclass(frozen=True, slots=True)
class TestScene:
    """What `test://` shows: `test://?size=1280x720&fps=15&frames=100&absent=2-4,6-7&every=10`.

    Attributes:
        size: (width, height) in pixels, 64 to 8192 each.
        fps: frames a second: how far things move from one frame to the next.
        frames: how many there are; None for no end.
        absent: (from, to) in seconds: when there is no clock.
        every_s: after so many seconds these times begin anew; 0 for never.
    """

    __test__ = False  # pytest takes the name for a test's

    size: tuple[int, int] = SIZE
    fps: float = FPS
    frames: int | None = None
    absent: tuple[tuple[float, float], ...] = ()
    every_s: float = 0.0

    @classmethod
    def from_uri(cls, uri: str, options: SourceOptions) -> TestScene:
        """The scene that a URI describes; what it does not say, the options may.

        Raises:
            UsageError: it says something else.
        """
        found = re.fullmatch(r"test:/{0,2}(\?(?P<query>.*))?", uri)
        if found is None:
            raise UsageError(f"got {uri!r}; give test:// or, say, test://?size=640x480&fps=15")
        given = dict(parse_qsl(found.group("query") or "", keep_blank_values=True))
        if unknown := sorted(given.keys() - set(_KEYS)):
            raise UsageError(f"test:// has no {unknown[0]!r}; it has {', '.join(_KEYS)}")
        size = size_from(given["size"]) if "size" in given else options.size or SIZE
        fps = number_from_text(given["fps"], "fps") if "fps" in given else options.fps or FPS
        frames = whole_number_from("frames", given["frames"]) if "frames" in given else None
        absent = tuple(_span(text) for text in given.get("absent", "").split(",") if text)
        every_s = number_from_text(given.get("every", "0"), "every")
        if min(size) < 64 or max(size) > 8192:
            raise UsageError(f"size is {size[0]}x{size[1]}; test:// draws 64 to 8192 pixels a side")
        if not 0 < fps <= 1000:
            raise UsageError(f"fps is {fps:g}; give frames a second above 0, up to 1000")
        if not 0 <= every_s < math.inf:
            raise UsageError(f"every is {every_s:g}; give seconds, 0 or more")
        return cls(size, fps, frames, absent, every_s)

    @property
    def radius(self) -> int:
        """Of the clock, pixels."""
        return round(_RADIUS * min(self.size))

    def is_present(self, number: int) -> bool:
        """Whether a frame shows the clock."""
        at = number / self.fps
        at = at % self.every_s if self.every_s else at
        return not any(begin <= at < end for begin, end in self.absent)

    def centre(self, number: int) -> tuple[int, int]:
        """(x, y) of the clock in pixels: it wanders through all of the frame, and is never cut off."""
        width, height = self.size
        at, free = number / self.fps, self.radius + 2
        x = width / 2 + (width / 2 - free) * math.sin(at * 0.61)
        y = height / 2 + (height / 2 - free) * math.sin(at * 0.43 + 1)
        return round(x), round(y)

    def object_box(self, number: int) -> Box | None:
        """The clock's box in a frame, (x0, y0, x1, y1) in pixels as drawn, before rotation; None while it is absent."""
        if not self.is_present(number):
            return None
        (x, y), radius = self.centre(number), self.radius
        return Box(float(x - radius), float(y - radius), float(x + radius + 1), float(y + radius + 1))


class MovingClock:
    """Frame n of a scene is the same always, and carries n in its pixels, see `number_in`.

    Args:
        uri: see `TestScene`.
        name: see `Source`.
        options: `size` and `fps` where the URI does not say them, `rotate`, `loop` (with `frames`), `seek_s`, `pace`.

    Attributes:
        scene: what is shown.
    """

    live = False

    def __init__(self, uri: str, *, name: str, options: SourceOptions) -> None:
        self.name, self.uri = name, uri
        self.paced = True if options.pace is None else options.pace
        self.scene = TestScene.from_uri(uri, options)
        self._options = options
        self._first = round(options.seek_s * self.scene.fps)
        if self.scene.frames is not None and self._first >= self.scene.frames:
            raise UsageError(
                f"{uri} has {self.scene.frames / self.scene.fps:g} s; give less than that for seek, "
                f"which is {options.seek_s:g}, and 1 or more for frames"
            )
        self._interrupted = Event()
        self._drawing: _Drawing | None = None

    def object_box(self, number: int) -> Box | None:
        """See `TestScene.object_box`."""
        return self.scene.object_box(number)

    def open(self) -> None:
        """See `Source`."""
        self._drawing = _Drawing(self.scene)
        self._pace = Pace(self._interrupted)
        self._number, self._count = self._first, 0

    def read(self) -> SourceFrame | None:
        """See `Source`."""
        if self._drawing is None:
            raise SourceLostError(f"{self.uri} is not open")
        if self._number == self.scene.frames:
            if not self._options.loop:
                return None
            self._number = self._first
        number, due_s = self._number, self._count / self.scene.fps
        frame = turned(self._drawing.frame(number), self._options.rotate)
        taken_at = self._pace.wait_for(due_s if self.paced else None)
        if self._interrupted.is_set():
            raise SourceLostError(f"{self.uri} was interrupted")
        self._number += 1
        self._count += 1
        return SourceFrame(frame, taken_at, number / self.scene.fps)

    def interrupt(self) -> None:
        """See `Source`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source`."""
        self._drawing = None


def number_in(frame: Frame) -> int:
    """The number that a frame of the pattern carries: 24 squares at its lower edge, the highest bit first.

    Args:
        frame: as drawn: not rotated and not scaled. What a video encoder does to it does no harm.
    """
    side = _side(frame.shape[1])
    row = frame.shape[0] - 1 - side // 2
    bits = [frame[row, bit * side + side // 2].mean() > 127 for bit in range(_BITS)]
    return int("".join("1" if bit else "0" for bit in bits), 2)


class _Drawing:
    """What all frames of a scene share: the wall, and the clock without its hands."""

    def __init__(self, scene: TestScene) -> None:
        self._scene = scene
        self._wall = _wall(*scene.size)
        self._face, self._mask = _clock_face(scene.radius)

    def frame(self, number: int) -> Frame:
        """H x W x 3 uint8 BGR."""
        frame: Frame = self._wall.copy()
        if self._scene.is_present(number):
            (x, y), radius = self._scene.centre(number), self._scene.radius
            part = frame[y - radius : y + radius + 1, x - radius : x + radius + 1]
            cv2.copyTo(self._face, self._mask, part)
            minutes = number / self._scene.fps  # one a second
            _draw_hand(part, minutes / 720, 0.42, 0.05)
            _draw_hand(part, minutes / 60, 0.68, 0.035)
        side = _side(frame.shape[1])
        bits = np.array([number >> bit & 1 for bit in reversed(range(_BITS))], np.uint8) * 255
        frame[-side:, : _BITS * side] = bits.repeat(side)[:, np.newaxis]
        return frame


def _side(width: int) -> int:
    return max(2, width // 160)


def _wall(width: int, height: int) -> Frame:
    y, x = np.arange(height)[:, np.newaxis], np.arange(width)
    wall = np.empty((height, width, 3), np.uint8)
    for channel, shades in enumerate((60 + 60 * y / height, 90 + 50 * y / height, 60 + 40 * x / width)):
        wall[..., channel] = shades.astype(np.uint8)
    return wall


def _clock_face(radius: int) -> tuple[Frame, NDArray[np.uint8]]:
    side = 2 * radius + 1
    face, mask = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
    cv2.circle(mask, (radius, radius), radius, 255, -1)
    cv2.circle(face, (radius, radius), radius, (30, 30, 30), -1, cv2.LINE_AA)
    cv2.circle(face, (radius, radius), round(0.9 * radius), (250, 250, 250), -1, cv2.LINE_AA)
    for minute in range(60):
        inner, width = (0.76, 0.04) if minute % 5 == 0 else (0.81, 0.012)
        _draw_ray(face, minute / 60, inner, 0.85, width)
    for hour in range(1, 13):
        scale, width = radius / 130, max(1, round(radius / 45))
        (wide, high), _ = cv2.getTextSize(str(hour), cv2.FONT_HERSHEY_SIMPLEX, scale, width)
        angle = hour / 12 * 2 * math.pi
        x = radius + 0.62 * radius * math.sin(angle) - wide / 2
        y = radius - 0.62 * radius * math.cos(angle) + high / 2
        where = (round(x), round(y))
        cv2.putText(face, str(hour), where, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, width, cv2.LINE_AA)
    cv2.circle(face, (radius, radius), max(1, round(0.05 * radius)), _INK, -1, cv2.LINE_AA)
    return face, mask


def _draw_hand(clock: Frame, turn: float, length: float, width: float) -> None:
    _draw_ray(clock, turn, 0.0, length, width)


def _draw_ray(clock: Frame, turn: float, inner: float, outer: float, width: float) -> None:
    """A line from the centre outwards; lengths and width in radii, `turn` in turns from 12 o'clock."""
    radius, angle = clock.shape[0] // 2, turn * 2 * math.pi
    ends = [
        (round(8 * radius * (1 + r * math.sin(angle))), round(8 * radius * (1 - r * math.cos(angle))))
        for r in (inner, outer)
    ]
    cv2.line(clock, ends[0], ends[1], _INK, max(1, round(radius * width)), cv2.LINE_AA, shift=3)


def _span(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text)
    if found is None or float(found.group(1)) >= float(found.group(2)):
        raise UsageError(f"absent is {text!r}; give seconds, FROM-TO, such as 2-4.5")
    return float(found.group(1)), float(found.group(2))
