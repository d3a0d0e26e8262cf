"""What all tests of the export have in common."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_weights_each_time() -> None:
    """Networks with random weights get the same ones in every run: how far rounding goes depends on them."""
    torch.manual_seed(0)
