"""What `import gapcam.camera` promises, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gapcam.camera

PUBLIC = {
    "BrokenFrameError", "CapturedFrame", "ClassDemand", "Event", "EventRule", "ExplainSettings", "ExplainedFrame",
    "PageServer", "Percentiles", "Pipeline", "PipelineStatus", "Reopen", "Sink", "SinkEndedError", "SinkOptions",
    "SinkStatus", "Source", "SourceFrame", "SourceLostError", "SourceOptions", "SourceStatus", "StopRequestedError",
    "Zone", "sink_from_uri", "source_from_uri",
}  # fmt: skip


def test_all_is_exact() -> None:
    assert set(gapcam.camera.__all__) == PUBLIC
    assert gapcam.camera.__all__ == sorted(gapcam.camera.__all__)
    assert set(dir(gapcam.camera)) >= PUBLIC
    assert all(getattr(gapcam.camera, name) is not None for name in PUBLIC)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'gapcam\.camera' has no attribute 'Pipelin'"):
        _ = gapcam.camera.Pipelin


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition(".")[0] for name in done.stdout.rpartition("MODULES")[2].split()}


EXTRA = {"av", "fastapi", "starlette", "uvicorn", "websockets", "prometheus_client", "paho", "httpx"}


def test_importing_it_imports_nothing_heavier_than_gapcam_does() -> None:
    assert modules_after("import gapcam.camera") == modules_after("import gapcam") | {"gapcam"}


def test_a_pipeline_of_ones_own_parts_needs_nothing_of_the_extra() -> None:
    loaded = modules_after("from gapcam.camera import Pipeline, ExplainSettings, Reopen, Zone, EventRule, Sink, Source")
    assert not loaded & {*EXTRA, "onnxruntime", "onnx", "torch", "click", "rich", "gapcam_export", "gapcam_bench"}
    assert "cv2" in loaded  # the check sees what is imported
