"""What the tests of cameras share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from camera_frames import FrameMaker


@pytest.fixture
def frames() -> Iterator[FrameMaker]:
    """Makes explained frames."""
    maker = FrameMaker()
    yield maker
    maker.close()
