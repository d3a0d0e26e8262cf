"""One number of threads for every library of a process that measures. Imports nothing: what is measured is cold."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_libraries(threads: int | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Give libraries of linear algebra, such as NumPy's, as many threads as a cell has. Before they are imported.

    Args:
        threads: of the cell; None leaves them their default, every processor.
        environment: of the process.
    """
    if threads is not None:
        environment.update(dict.fromkeys(_VARIABLES, str(threads)))


def limit_opencv(threads: int | None) -> None:
    """Give OpenCV as many threads as a cell has; None leaves it its default, every processor."""
    import cv2

    if threads is not None:
        cv2.setNumThreads(threads)
