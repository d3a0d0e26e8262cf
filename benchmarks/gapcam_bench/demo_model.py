"""The model that benchmarks measure where none is named."""

from __future__ import annotations

from pathlib import Path

from gapcam.errors import ModelError

DEMO_MODEL = Path("out/demo/model.onnx")
"""Where `make demo` writes it."""


def check_exists(model: Path) -> None:
    """Refuse a model that is not there.

    Raises:
        ModelError: and what makes one.
    """
    if not model.exists():
        again = "run make demo first" if model == DEMO_MODEL else "make it with gapcam export"
        raise ModelError(f"There is no {model}: {again}.")
