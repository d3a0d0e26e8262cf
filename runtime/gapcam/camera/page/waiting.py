"""Waiting with an end to it. Before Python 3.12 `asyncio.wait_for` may swallow a cancellation that comes just then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive

T = TypeVar("T")


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, and set it after so many seconds."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


async def unless_left(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """What some work gives. It is cancelled where the client leaves before that.

    Args:
        work: for a request.
        receive: the request's.

    Raises:
        HTTPException: the client left. Nobody sees it.
    """
    task, leaving = asyncio.create_task(work), asyncio.create_task(left(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)
    if task.cancelled():
        raise HTTPException(503, "the client left")
    return task.result()


async def left(receive: Receive) -> None:
    """Wait until a request's client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
