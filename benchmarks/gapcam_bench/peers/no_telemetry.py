"""OpenVINO without its telemetry."""

from __future__ import annotations

import sys


def keep_openvino_quiet() -> None:
    """Let nothing be told to Intel when openvino is imported afterwards.

    Its import imports its converter, which tells of the import through the package openvino_telemetry, unless a file in
    the user's home forbids it. Where that package cannot be imported, openvino has a stub for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import of it fails
