"""Nothing is told to the makers of ONNX Runtime, whichever package is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 29), reason="ONNX Runtime reports from 1.29 on"
)

# What ONNX Runtime looks at before it reports: whether it was forbidden, and whether this is a build server.
ASKED_FIRST = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "TF_BUILD"}


def written(folder: Path, code: str, **more: str) -> list[str]:
    """Run a program with an empty home and an empty folder for temporary files; what lies in them afterwards."""
    kept = {name: value for name, value in os.environ.items() if name not in ASKED_FIRST and "CACHE" not in name}
    environment = {**kept, **dict.fromkeys(("HOME", "TMPDIR"), str(folder)), **more}
    subprocess.run([sys.executable, "-B", "-c", code], env=environment, check=True, timeout=120)
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "module",
    [
        "gapcam.backends.onnxruntime",
        "gapcam_export.section",
        "gapcam_export.verify",
        "gapcam_bench.peers.handwritten_peer",
    ],
)
def test_importing_onnxruntime_leaves_no_device_id_and_no_queue_of_reports(tmp_path: Path, module: str) -> None:
    assert written(tmp_path, f"import {module}, sys; assert 'onnxruntime' in sys.modules") == []


def test_without_gapcam_it_leaves_both(tmp_path: Path) -> None:
    files = written(tmp_path, "import onnxruntime")
    assert {"deviceid", "onnxruntime.db"} <= set(files), "has it another way now? Then the test above proves nothing"


def test_who_allows_it_is_obeyed(tmp_path: Path) -> None:
    code = "import gapcam, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'; import onnxruntime"
    assert "deviceid" in written(tmp_path, code, ORT_DISABLE_TELEMETRY="0")
