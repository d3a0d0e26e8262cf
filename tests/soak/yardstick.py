"""How fast the machine is at the moment, seen by a process that has nothing to do with the soak.

It does the same piece of work every fifth of a second and notes how long after it was due it was done. Where another
process takes the cores, that takes longer, as everything does. What came is printed at the end as JSON: pairs of the
time in seconds (`time.monotonic()`) and the duration in seconds. Each line until then is answered with how many came.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import numpy as np

EVERY_S = 0.2
SIDE = 300


class Yardstick:
    """The process, from `start` to `end`."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._taken = np.empty((0, 2))

    def count(self) -> int:
        """How often it has done its work so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """Stop it, and keep what it measured."""
        try:
            answer, _ = self._process.communicate("", timeout=10)
            self._taken = np.array(json.loads(answer)).reshape(-1, 2)
        finally:
            self._process.kill()
            self._process.communicate()

    @property
    def begun(self) -> np.ndarray:
        """[n] when the work was due, each time."""
        return self._taken[:, 0]

    def seconds(self, begin: float, end: float) -> np.ndarray:
        """[n] what the work took in that time."""
        at, took = self._taken.T
        return took[(at >= begin) & (at < end)]


def main() -> None:
    ended = threading.Event()
    work = np.random.default_rng(0).standard_normal((SIDE, SIDE))
    taken: list[tuple[float, float]] = []

    def answer() -> None:
        for _ in sys.stdin:
            sys.stdout.write(f"{len(taken)}\n")
            sys.stdout.flush()
        ended.set()

    threading.Thread(target=answer, daemon=True).start()
    due = time.monotonic()
    while not ended.wait(max(0.0, due - time.monotonic())):
        np.einsum("ij,jk->ik", work[:60], work)  # on one core: no BLAS, no threads
        now = time.monotonic()
        taken.append((round(due, 4), round(now - due, 6)))
        due = max(due + EVERY_S, now)
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main()
