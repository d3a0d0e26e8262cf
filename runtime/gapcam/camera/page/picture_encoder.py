"""Pictures for those who watch: drawn and encoded beside the server's loop, once for all who look alike."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2

from gapcam.box import Box
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.page.newest_frames import PublishedFrame
from gapcam.camera.page.view import MIN_WIDTH, View
from gapcam.errors import DataError
from gapcam.frame import Frame
from gapcam.overlay import draw_boxes

PictureFormat: TypeAlias = Literal["jpg", "png"]

_KEPT = 32
"""Different pictures of one frame that are kept for others: more who look differently each wait for their own."""


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture as bytes, and what is on it.

    Attributes:
        data: JPEG or PNG.
        width: in pixels.
        height: likewise.
        scale: of the frame's own width.
        shown: the index of the class that it is about; None where the scene is quiet.
        map: whether a map is drawn on it.
        boxes: those drawn on it, in the frame's pixels.
    """

    data: bytes
    width: int
    height: int
    scale: float
    shown: int | None
    map: bool
    boxes: tuple[Box, ...]


class _Drawing:
    """A picture that is being made, for one or more who wait."""

    def __init__(self, work: Future[EncodedPicture]) -> None:
        self.waiting = 0
        self._work = work
        self._done = asyncio.wrap_future(work)

    async def finished(self) -> EncodedPicture:
        return await asyncio.shield(self._done)  # one who leaves takes nothing away from the others

    def dropped(self) -> bool:
        """Whether it is not made after all: nobody waits, and it was not begun."""
        return self.waiting == 0 and self._work.cancel()


class PictureEncoder:
    """Draws and encodes in threads of its own. Used in one event loop; `close` ends the threads.

    However many watch, and however differently, at most half of the cores are at work for them: the others are the
    network's. Where that is not enough, everybody gets fewer frames. Snapshots, which may take ten times as long, have
    one thread more, so that none who watch wait for them. What nobody waits for any more is not begun.
    """

    def __init__(self) -> None:
        threads = min(4, max(1, (os.cpu_count() or 1) // 2))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gapcam page pictures")
        self._snapshots = ThreadPoolExecutor(1, thread_name_prefix="gapcam page snapshots")

    async def encoded(
        self,
        published: PublishedFrame,
        view: View,
        *,
        scale: float = 1.0,
        quality: int = 85,
        form: PictureFormat = "jpg",
        snapshot: bool = False,
    ) -> EncodedPicture:
        """A picture of a frame, for a view of its source.

        Args:
            published: the frame.
            view: how it is looked at.
            scale: of the width that the view would have, in (0, 1].
            quality: of the JPEG, in [1, 100].
            form: "jpg" or "png".
            snapshot: in the snapshots' thread, after those asked for before.
        """
        frame = published.frame
        index = frame.shown if view.target is None else view.target
        width = _width(frame.captured.image.shape[1], view.max_width, scale)
        key = (index, view.map, view.boxes, view.threshold, view.look, width, quality, form, snapshot)
        drawing: _Drawing | None = published.pictures.get(key)
        if drawing is None:
            pool = self._snapshots if snapshot else self._pool
            drawing = _Drawing(pool.submit(_encode, frame, index, view, width, quality, form))
            if len(published.pictures) < _KEPT:
                published.pictures[key] = drawing
        drawing.waiting += 1
        try:
            return await drawing.finished()
        finally:
            drawing.waiting -= 1
            if drawing.dropped() and published.pictures.get(key) is drawing:
                del published.pictures[key]

    def close(self) -> None:
        """End the threads. What is being drawn is finished first."""
        for pool in (self._pool, self._snapshots):
            pool.shutdown(wait=True, cancel_futures=True)


def _width(frame_width: int, max_width: int | None, scale: float) -> int:
    width = frame_width if max_width is None else min(frame_width, max_width)
    return min(width, max(MIN_WIDTH, round(width * scale)))


def _encode(
    frame: ExplainedFrame, index: int | None, view: View, width: int, quality: int, form: PictureFormat
) -> EncodedPicture:
    has_map = index is not None and index in frame.maps
    boxes = frame.boxes(index, threshold=view.threshold) if has_map and view.boxes else ()
    picture: Frame = frame.captured.image
    if has_map and view.map:
        picture = frame.picture(index, look=view.look, boxes=view.boxes, caption=False, threshold=view.threshold)
    elif boxes:
        picture = picture.copy()
        draw_boxes(picture, boxes)
    frame_height, frame_width = picture.shape[:2]
    height = max(1, round(frame_height * width / frame_width))
    if width != frame_width:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    how = [cv2.IMWRITE_JPEG_QUALITY, quality] if form == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    done, data = cv2.imencode(f".{form}", picture, how)
    if not done:
        raise DataError(f"OpenCV could not encode a frame of {frame.captured.source} as {form}")
    return EncodedPicture(
        data=data.tobytes(),
        width=width,
        height=height,
        scale=width / frame_width,
        shown=index,
        map=has_map and view.map,
        boxes=boxes,
    )
