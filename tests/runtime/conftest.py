"""What the runtime's tests share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode finds no helpers beside the tests

import cv2
import pytest

from gapcam.cli.console import stdout

# Two test processes on two cores: OpenCV's own threads would only get in each other's way, and blur the timings.
cv2.setNumThreads(1)


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as wide as they need to be, and output that is buffered as users have it, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(stdout, "width", 200)  # it may have been made before, for another test
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
