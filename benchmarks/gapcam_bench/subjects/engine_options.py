"""How ONNX Runtime uses the processors: the same for gapcam and its peers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gapcam.backends.onnx_file import ENGINE_SUFFIXES
from gapcam.engine_file import is_engine

SESSION_OPTIONS: Mapping[str, str] = {"session.intra_op.allow_spinning": "0"}
"""Of ONNX Runtime, for all subjects that use it: its threads sleep when they have nothing to do, as in `gapcam camera`.

By default they spin for a while after each inference, on processors that the stages around it need: decoding and
drawing would look slower than they are, and a frame's energy greater. An inference by itself takes a little longer.
"""


def session_options(file: Path) -> Mapping[str, object] | None:
    """`SESSION_OPTIONS`; None for an engine, which ONNX Runtime does not run."""
    return None if is_engine(file) or file.suffix.lower() in ENGINE_SUFFIXES else SESSION_OPTIONS
