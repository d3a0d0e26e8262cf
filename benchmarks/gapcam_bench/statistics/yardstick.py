"""How fast the machine is just now, by a fixed piece of work that has nothing to do with gapcam.

A processor's clock, its temperature, and what other programs (and on shared machines, other people) take of its caches
and memory change from minute to minute. A row that became 8 % slower while this piece of work did, too, shows a slower
machine and not a slower program. Half of the piece is arithmetic in the first-level cache (SHA-256), which follows the
clock; half copies memory, in turn all parts of an array that few caches hold, which follows the memory's bandwidth and
who else uses it. Both run on the calling thread alone, whatever the number of threads is set to. A piece is shorter
than the slices in which systems share a processor, so that the median of many is one that nobody interrupted.
"""

from __future__ import annotations

import hashlib
import mmap
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

SAMPLES = 100
_HASHED = bytes(16 << 10)
_HASHES = 48
_ARRAY_BYTES = 16 << 20
_COPIED_BYTES = 4 << 20


def measure_yardstick(samples: int = SAMPLES) -> NDArray[np.int64]:
    """[samples] int64 nanoseconds, about a millisecond each; two rounds before, of cold memory, are not in it."""
    # Pages of their own: freed memory of such a size would change how the C library allocates the subject's.
    source, target = (np.frombuffer(mmap.mmap(-1, _ARRAY_BYTES), np.uint8) for _ in range(2))
    source[:], target[:] = 1, 0
    rounds = _ARRAY_BYTES // _COPIED_BYTES
    pieces = [_piece(source, target, at % rounds * _COPIED_BYTES) for at in range(samples + 2 * rounds)]
    return np.array(pieces[2 * rounds :], np.int64)


def _piece(source: NDArray[np.uint8], target: NDArray[np.uint8], at: int) -> int:
    began = perf_counter_ns()
    digest = hashlib.sha256()
    for _ in range(_HASHES):
        digest.update(_HASHED)
    np.copyto(target[at : at + _COPIED_BYTES], source[at : at + _COPIED_BYTES])
    return perf_counter_ns() - began
