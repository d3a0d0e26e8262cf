"""How long work takes on the device, by the device's own events.

Launching from Python takes about as long as these kernels run, so the device is first given a copy that keeps it busy
while the host queues all of a sample: event, the work, event. What is between the events then follows without a gap,
with or without a CUDA graph. That copy is larger than any second-level cache, too: work that uses other buffers in each
run of a sample finds the cache as cold as a new frame does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gapcam.cuda.driver import Driver, Graph, Memory, Stream
from gapcam.latency import Latency

Work = Callable[[Stream, int], None]
"""Queues one run, given its number: the number chooses the buffers."""

HOLD_BYTES = 2**27
"""More than the largest second-level cache there is (126 MB, B200)."""
_MARGIN = 2.0
"""How much longer the device is kept busy than the host was seen to need."""


class DeviceClock:
    """Measures on one stream. Used inside `driver.active()`.

    Args:
        driver: of the device.
        stream: to measure on; a new one unless it is an engine's.
        hold_bytes: of the copy that keeps the device busy; less where its memory is small.
    """

    def __init__(self, driver: Driver, *, stream: Stream | None = None, hold_bytes: int = HOLD_BYTES) -> None:
        self.driver = driver
        self.stream: Stream = stream or driver.stream()
        self._events = driver.event(timing=True), driver.event(timing=True)
        self._memories: list[Memory] = [driver.allocate(hold_bytes), driver.allocate(hold_bytes)]
        self._hold_bytes = hold_bytes
        self._hold_ms = 0.0
        self._hold_ms = max(self._once(lambda: None, holds=0, work=self._hold) for _ in range(3))

    def copy_latency(self, *, samples: int) -> tuple[Latency, int]:
        """A copy of `hold_bytes` on the device, and the bytes that it moves: each is read and written."""
        measured = [self._once(lambda: None, holds=1, work=self._hold) for _ in range(samples + 2)][2:]
        return _latency(measured, 1), 2 * self._hold_bytes

    def latency(self, work: Work, *, in_a_row: int, samples: int, graph: bool = True) -> tuple[Latency, bool]:
        """How long one run takes.

        Args:
            work: queues it.
            in_a_row: runs of a sample; what a sample takes is divided by it.
            samples: how many.
            graph: whether a sample is captured in a CUDA graph first, where the driver has them.

        Returns:
            The latency, and whether a graph was used.
        """

        def queue() -> None:
            for number in range(in_a_row):
                work(self.stream, number)

        queue()  # whatever is done once
        self.stream.synchronize()
        with self._captured(queue) if graph and self.driver.has_graphs else _no_graph() as captured:
            if captured is None:
                run = queue
            else:
                launch, stream = captured.launch, self.stream

                def run() -> None:
                    launch(stream)

            started = time.perf_counter()
            run()
            queued_ms = (time.perf_counter() - started) * 1e3
            self.stream.synchronize()
            holds = max(1, math.ceil(_MARGIN * queued_ms / self._hold_ms)) if self._hold_ms > 0 else 1
            measured = [self._once(run, holds=holds) for _ in range(samples + 2)][2:]
        return _latency(measured, in_a_row), captured is not None

    def close(self) -> None:
        """Give the memory back."""
        for memory in self._memories:
            memory.close()

    def _once(self, run: Callable[[], None], *, holds: int, work: Callable[[], None] | None = None) -> float:
        before, after = self._events
        for _ in range(holds):
            self._hold()
        before.record(self.stream)
        (work or run)()
        after.record(self.stream)
        self.stream.synchronize()
        return after.milliseconds_since(before)

    def _hold(self) -> None:
        source, target = self._memories
        self.driver.copy(source.pointer, target.pointer, self._hold_bytes, self.stream)

    @contextmanager
    def _captured(self, queue: Callable[[], None]) -> Iterator[Graph]:
        with self.driver.capture(self.stream) as capture:
            queue()
        graph = capture.graph()
        try:
            yield graph
        finally:
            graph.close()


@contextmanager
def _no_graph() -> Iterator[None]:
    yield None


def _latency(measured_ms: list[float], divisor: int) -> Latency:
    # Events count in half microseconds or so: what is shorter than that shows as nothing.
    return Latency([max(round(value * 1e6 / divisor), 1) for value in measured_ms])
