"""What a build did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gapcam.engine_file import EngineHeader


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        path: the engine file.
        size_bytes: of that file.
        header: what the engine was built from, with and for.
        built: False where the engine was there already and fits.
        notes: what the user should know; TensorRT's warnings are among them.
        seconds: how long it took.
    """

    path: Path
    size_bytes: int
    header: EngineHeader
    built: bool
    notes: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; the contract, as the header's metadata have it, is a text."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "built": self.built,
            "header": msgspec.to_builtins(self.header),
            "notes": list(self.notes),
            "seconds": self.seconds,
        }
