"""Snapshots: whoever takes many waits, and nobody else does."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from camera_frames import FrameMaker, noise
from planned_camera import PATIENCE_S, eventually
from watched_page import WatchedPage, watched_page

from gapcam.camera.page import picture_encoder
from gapcam.camera.page.newest_frames import PublishedFrame
from gapcam.camera.page.picture_encoder import PictureEncoder
from gapcam.camera.page.snapshots import WAITING, Snapshots, SnapshotsBusyError
from gapcam.camera.page.view import View


def encoder_of(watch: WatchedPage) -> PictureEncoder:
    return watch.page._running._state.encoder


def test_who_watches_does_not_wait_for_the_snapshots_of_another(monkeypatch: pytest.MonkeyPatch):
    """As long as the pictures take, a snapshot is being made."""
    encode, seen = picture_encoder._encode, threading.Event()

    def encode_slowly(*what: Any) -> picture_encoder.EncodedPicture:
        if what[-1] == "png":
            assert seen.wait(PATIENCE_S)
        return encode(*what)

    monkeypatch.setattr(picture_encoder, "_encode", encode_slowly)
    with watched_page() as watch, watch.live(view={"max_width": 160}) as live:
        watch.feed()
        live.frame()
        said: list[int] = []

        def take(number: int) -> None:
            with watch.client() as client:
                wanted = {"threshold": number / 100}
                said.append(client.get("api/snapshot.png", params=wanted, timeout=10 * PATIENCE_S).status_code)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        eventually(lambda: said.count(503) == 12 - 1 - WAITING, "that those too many are refused")
        for number in range(1, 4):
            watch.feed(noise(number, 120, 160))
            assert live.next().header["number"] == number
        assert 200 not in said
        seen.set()
        for thread in threads:
            thread.join()
        assert sorted(said) == [200] * (1 + WAITING) + [503] * (12 - 1 - WAITING)


def test_one_too_many_is_told_to_come_again():
    with watched_page() as watch, watch.client() as client, ExitStack() as waiting:
        watch.feed(noise(0, 1440, 2560))
        gone = threading.Event()
        encoder_of(watch)._snapshots.submit(gone.wait, PATIENCE_S)  # the thread is at work
        try:
            for number in range(1 + WAITING):
                asked = waiting.enter_context(socket.create_connection(("127.0.0.1", port_of(watch)), PATIENCE_S))
                asked.sendall(b"GET /api/snapshot.png?threshold=0.%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
            eventually(lambda: watch.page._running._state.snapshots._asked == 1 + WAITING)
            late = client.get("api/snapshot.jpg")
            assert late.status_code == 503
            assert late.headers["retry-after"] == "1"
            assert late.json() == {"error": "4 wait for a snapshot already, and no more may; wait a second"}
            waiting.close()  # they leave
            eventually(lambda: watch.page._running._state.snapshots._asked == 0, "that nobody's turn is kept")
            assert not gone.is_set()
            assert encoder_of(watch)._snapshots._work_queue.qsize() <= 1, "at the most one that is left out by the pool"
        finally:
            gone.set()
        assert client.get("api/snapshot.jpg").status_code == 200


def port_of(watch: WatchedPage) -> int:
    return int(watch.page.url.rstrip("/").rpartition(":")[2])


def test_turns_come_in_the_order_in_which_they_were_asked_for():
    async def main() -> list[int]:
        snapshots, order = Snapshots(), []

        async def one(number: int) -> None:
            with snapshots.asked():
                async with snapshots.turn():
                    await asyncio.sleep(0.001)
                    order.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(1 + WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(SnapshotsBusyError):
            await one(9)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one(7)
        return order

    assert asyncio.run(main()) == [0, 1, 3, 4, 7]


def test_between_two_there_is_a_rest_as_long_as_the_first_took():
    async def main() -> list[float]:
        snapshots, began = Snapshots(), []
        for _ in range(3):
            async with snapshots.turn():
                began.append(time.monotonic())
                await asyncio.sleep(0.1)
        return began

    async def alone() -> float:
        asked = time.monotonic()
        async with Snapshots().turn():
            return time.monotonic() - asked

    # The least of many: a busy machine makes it slower, nothing makes it faster.
    assert min(asyncio.run(alone()) for _ in range(5)) < 0.1, "one alone does not wait"
    began = asyncio.run(main())
    assert began[1] - began[0] >= 0.2 - 0.005
    assert began[2] - began[1] >= 0.2 - 0.005


def with_busy_encoder(work: Callable[[PictureEncoder, threading.Event], object]) -> None:
    async def main() -> None:
        encoder, free = PictureEncoder(), threading.Event()
        for _ in range(encoder._pool._max_workers):
            encoder._pool.submit(free.wait, PATIENCE_S)
        try:
            await work(encoder, free)  # type: ignore[misc]
        finally:
            free.set()
            encoder.close()

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_is_not_drawn(frames: FrameMaker):
    published = PublishedFrame(frames(), 1)

    async def work(encoder: PictureEncoder, free: threading.Event) -> None:
        tasks = [
            asyncio.create_task(encoder.encoded(published, View("cam", threshold=number / 10))) for number in (1, 1, 2)
        ]
        await asyncio.sleep(0.01)
        assert len(published.pictures) == 2
        for task in (tasks[0], tasks[2]):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert len(published.pictures) == 1, "one still waits for it"
        free.set()
        assert (await tasks[1]).data[:2] == b"\xff\xd8"
        while not encoder._pool._work_queue.empty():  # what was cancelled is passed over
            await asyncio.sleep(0.001)
        assert len(published.pictures) == 1
        again = await encoder.encoded(published, View("cam", threshold=0.1))
        assert again is await tasks[1], "it is kept for others"

    with_busy_encoder(work)
