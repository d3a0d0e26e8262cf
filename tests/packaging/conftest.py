"""What the tests of the repository and its packaging share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what make and the tools leave in it; builds may write there."""
    copy = tmp_path_factory.mktemp("source") / "gapcam"
    left_behind = shutil.ignore_patterns(
        ".git", ".venv", "out", "dist", "build", "__pycache__", ".*_cache", ".hypothesis"
    )
    return Path(shutil.copytree(ROOT, copy, ignore=left_behind))
