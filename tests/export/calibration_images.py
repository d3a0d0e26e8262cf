"""A small set of real images to calibrate on: parts of scikit-image's photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gapcam_export.photographs import PHOTOGRAPHS, photograph


def write_photographs(folder: Path, count: int = 16, side: int = 200) -> Path:
    """Write parts of four photographs as PNG files, `side` pixels square, each another one; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        whole = photograph(PHOTOGRAPHS[index % len(PHOTOGRAPHS)])
        y, x = (int(random.integers(0, length - side + 1)) for length in whole.shape[:2])
        cv2.imwrite(str(folder / f"part_{index:02}.png"), whole[y : y + side, x : x + side])
    return folder
