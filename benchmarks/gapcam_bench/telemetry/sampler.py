"""Reads all readers again and again, in a thread of its own, while other processes measure.

What that costs the machine: see docs/benchmarks.md; it is the same for every cell of a run, and the thread belongs to
the process that waits, never to one that measures.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from gapcam_bench.telemetry.reading import Reader
from gapcam_bench.telemetry.series import Series

_NOTHING = float("nan")


class Sampler:
    """A thread that reads; `with Sampler(open_readers()) as sampler: ...; sampler.series()`.

    Leaving the `with` ends the thread and closes the readers; the series can still be asked for.

    Args:
        readers: what to read. They are only used in the sampler's thread until it ends.
        hz: how often a second, above 0. A reader that takes longer is read as often as it can be.
    """

    def __init__(self, readers: Sequence[Reader], hz: float = 10.0) -> None:
        self._readers = tuple(readers)
        self._period = 1.0 / hz
        self._channels = tuple(channel for reader in self._readers for channel in reader.channels)
        self._lacking = {name: why for reader in self._readers for name, why in reader.lacking.items()}
        self._time = array("d")
        self._values = array("d")
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        for reader in self._readers:
            reader.close()
        if self._error is not None and error is None:
            raise self._error

    def series(self) -> Series:
        """All that was read so far; it may be asked for while the thread runs."""
        with self._lock:
            at = np.array(self._time, np.float64)
            values = np.array(self._values, np.float64).reshape(len(at), len(self._channels))
        return Series(
            time=at,
            values={channel.name: values[:, n].copy() for n, channel in enumerate(self._channels)},
            channels=self._channels,
            lacking=dict(self._lacking),
        )

    def _run(self) -> None:
        try:
            following = time.monotonic()
            while not self._end.is_set():
                self._read()
                following = max(following + self._period, time.monotonic())
                self._end.wait(max(0.0, following - time.monotonic()))
            self._read()  # so that the last moment is covered, too
        except BaseException as error:  # noqa: BLE001 - raised again where the sampler was opened
            self._error = error

    def _read(self) -> None:
        if not self._channels:
            return
        began = time.time()
        found = [_NOTHING if value is None else value for reader in self._readers for value in reader.read()]
        at = (began + time.time()) / 2
        with self._lock:
            if not self._time or at > self._time[-1]:  # the system's clock may be set back
                self._time.append(at)
                self._values.extend(found)
